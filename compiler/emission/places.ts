// Where the values of a function lie: what comes and goes at the caller's places, the rest where the plan put it.
import { discarded, type Graph, type Node } from '../graph/graph.ts';
import { printGraph } from '../graph/print.ts';
import { outputsInPlace, type Plan } from '../plan/plan.ts';
import { valueName } from './naming.ts';
import { Names, type Writer } from './writer.ts';

/** Where a function finds its inputs and leaves its outputs, as C text, by label; null for a value it keeps to itself. */
export type Homes = (label: string, isOutput: boolean) => string | null;

export interface Values {
  /** The C text of each value's address; of intermediate ones once they are declared. */
  readonly places: Map<Node, string>;
  /** Names of the outputs that kernels leave right where the caller wants them. */
  readonly outputNames: ReadonlyMap<Node, string>;
  /** Outputs that are copied in the end, or added to what is there. */
  readonly copies: readonly { readonly from: Node; readonly to: string; readonly accumulate: boolean }[];
  /** True for what a kernel adds to its buffer. */
  accumulates(node: Node): boolean;
  /** True for such a value that is a gradient. */
  isGradient(node: Node): boolean;
}

/** Places of inputs and outputs. */
export function placeValues(graph: Graph, homes: Homes): Values {
  const places = new Map<Node, string>();
  for (const node of graph.inputs) places.set(node, required(homes(node.label, false), graph, node.label));
  const copies: { from: Node; to: string; accumulate: boolean }[] = [];
  const outputNames = new Map<Node, string>();
  const accumulated = new Set<Node>();
  const inPlace = outputsInPlace(graph);
  for (const { name, node, accumulate } of graph.outputs) {
    if (name.startsWith(discarded)) continue;
    const home = required(homes(name, true), graph, name);
    if (places.has(node) || !inPlace.has(node)) copies.push({ from: node, to: home, accumulate });
    else {
      places.set(node, home);
      outputNames.set(node, name);
      if (accumulate) accumulated.add(node);
    }
  }
  // A cache is written in place: the whole cache lies where the cache lay.
  for (const node of graph.nodes) if (node.primitive?.name === 'append') places.set(node, places.get(node.inputs[0]!)!);
  return {
    places,
    outputNames,
    copies,
    accumulates: node => accumulated.has(node),
    isGradient: node => accumulated.has(node) && outputNames.get(node)!.startsWith('gradient.'),
  };
}

/** How the growth of a group of buffers is spelt: its pointer in malc_run, and its count of positions. */
const growths: Readonly<Record<string, { pointer: string; positions: string }>> = {
  '': { pointer: 'run->fixed', positions: '1' },
  batch: { pointer: 'run->per_sequence', positions: 'run->batch' },
  time: { pointer: 'run->per_position', positions: 'run->time' },
  'batch*time': { pointer: 'run->per_token', positions: 'run->batch * run->time' },
};

/**
 * Declares a pointer for each intermediate value, and sets its place.
 * @param parameters those of the function, whose names are not taken again
 */
export function declareValues(
  writer: Writer,
  { places, outputNames }: Values,
  plan: Plan,
  parameters: string,
  typeOf: (node: Node) => string,
): void {
  const locals = new Names();
  for (const [name] of parameters.matchAll(/\w+(?=,|$)/g)) locals.unique(name);
  for (const [node, { growth, offset }] of plan.placements) {
    const { pointer, positions } = growths[growth]!;
    const name = locals.unique(valueName(node, outputNames));
    const shift = offset === 0 ? '' : positions === '1' ? ` + ${offset}` : ` + ${offset} * ${positions}`;
    const type = typeOf(node);
    const cast = type === 'float' ? '' : `(${type} *)`;
    writer.line(`${type} *const ${name} = ${cast}${cast === '' ? pointer + shift : `(${pointer}${shift})`};`);
    places.set(node, name);
  }
}

function required(home: string | null, graph: Graph, label: string): string {
  if (home === null) throw new Error(`${graph.name}: ${label} has no home\n${printGraph(graph)}`);
  return home;
}
