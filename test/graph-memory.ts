// The memory that a graph of a test runs in, on any target: its inputs, outputs and intermediate values in one array of
// floats, with gaps between them that nothing may write to.
import type { Homes } from '../compiler/emission/places.ts';
import { product, type Sizes, sizeOf } from '../compiler/graph/dimension.ts';
import type { Graph, Node } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import type { Extent } from '../compiler/plan/extent.ts';

/** Floats between two buffers: they hold NaN, and must still hold it after a run. */
const gap = 16;

const growths = { fixed: '', per_sequence: 'batch', per_position: 'time', per_token: 'batch*time' } as const;

/** What lies before the inputs and outputs, in order: pointers of malc_run. */
export const regions: readonly string[] = [...Object.keys(growths), 'workspace', 'scratch'];

/** What a graph's function needs besides its inputs and outputs. */
export interface GraphNeeds {
  /** The memory of intermediate values, by what it grows with. */
  readonly totals: ReadonlyMap<string, number>;
  readonly workspaces: readonly (readonly Extent[])[];
  /** Floats of all threads. */
  readonly scratch: number;
}

/** Where each buffer begins, and where it ends, counted in floats. */
export interface Buffers {
  readonly places: Int32Array;
  readonly ends: Int32Array;
}

/** Inputs are `run->given[N]`, outputs `run->results[N]`. */
export const homesOfGraph =
  (graph: Graph): Homes =>
  (label, isOutput) => {
    const list = isOutput ? graph.outputs : graph.inputs.map(node => ({ name: node.label, node }));
    const index = list.findIndex(({ name }) => name === label);
    const cast = list[index]!.node.dtype === 'i32' ? '(int32_t *)' : '';
    return `${cast}run->${isOutput ? 'results' : 'given'}[${index}]`;
  };

/**
 * Lays a graph's values out, calls it and reads its outputs.
 * @param given the graph's inputs, by label; and, by name, what the buffers of outputs that accumulate hold before, where
 * that is not zeros
 * @param call runs it: sizes are batch, time, sequences, context; buffers are those of the regions, inputs and outputs
 * @returns the outputs, by name
 * @throws where something was written outside the memory that it was given
 */
export function runInMemory(
  graph: Graph,
  { totals, workspaces, scratch }: GraphNeeds,
  given: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  call: (sizes: readonly number[], buffers: Buffers, memory: Float32Array) => void,
): Map<string, Tensor> {
  const { batch = 1, time = 1, sequences = 0, context = 0 } = sizes;
  const runtime: Sizes = { batch, time, sequences, context };
  const countOf = ({ runtime: names, count }: Extent) => product(names.map(name => runtime[name]!)) * count;
  const memory = new Layout();
  for (const growth of Object.values(growths)) {
    const positions = product(growth === '' ? [] : growth.split('*').map(name => runtime[name]!));
    memory.add((totals.get(growth) ?? 0) * positions);
  }
  memory.add(Math.max(0, ...workspaces.map(extents => extents.map(countOf).reduce((a, b) => a + b, 0))));
  memory.add(scratch);
  const inputs = graph.inputs.map(node => givenFor(given, node.label));
  const inputPlaces = inputs.map(({ data }) => memory.add(data.length));
  const outputPlaces = graph.outputs.map(({ node }) => memory.add(product(node.dimensions.map(d => sizeOf(d, sizes)))));

  const floats = memory.allocate();
  const integers = new Int32Array(floats.buffer);
  const viewOf = (node: Node) => (node.dtype === 'i32' ? integers : floats);
  graph.inputs.forEach((node, n) => {
    viewOf(node).set(inputs[n]!.data, inputPlaces[n]!);
  });
  graph.outputs.forEach(({ name, node, accumulate }, n) => {
    if (accumulate) floats.set(given.get(name)?.data ?? zeros(node.dimensions, sizes).data, outputPlaces[n]!);
  });
  call([batch, time, sequences, context], memory.buffers(), floats);
  memory.check(floats, graph.name);

  return new Map(
    graph.outputs.map(({ name, node }, n) => {
      const cache = cacheOf(node);
      const place = cache ? inputPlaces[graph.inputs.indexOf(cache)]! : outputPlaces[n]!;
      const result = zeros(node.dimensions, sizes);
      result.data.set(viewOf(node).subarray(place, place + result.data.length));
      return [name, result] as const;
    }),
  );
}

/** Where a node is a cache that is written in place, the input that it was; null for any other node. */
function cacheOf(node: Node): Node | null {
  if (node.primitive?.name !== 'append') return null;
  const [cache] = node.inputs as [Node];
  return cacheOf(cache) ?? cache;
}

function givenFor(given: ReadonlyMap<string, Tensor>, label: string): Tensor {
  const value = given.get(label);
  if (!value) throw new Error(`the input ${label} was not given`);
  return value;
}

/** Buffers one after the other, a gap after each. */
class Layout {
  private readonly places: number[] = [];
  private readonly ends: number[] = [];

  /** Returns where the buffer begins. */
  add(count: number): number {
    const place = this.ends.length === 0 ? 0 : Math.ceil((this.ends.at(-1)! + gap) / gap) * gap;
    this.places.push(place);
    this.ends.push(place + count);
    return place;
  }

  buffers(): Buffers {
    return { places: Int32Array.from(this.places), ends: Int32Array.from(this.ends) };
  }

  /** Memory that holds nothing but NaN. */
  allocate(): Float32Array {
    return new Float32Array(this.ends.at(-1)! + gap).fill(Number.NaN);
  }

  check(floats: Float32Array, name: string): void {
    this.ends.forEach((end, n) => {
      const written = floats.subarray(end, end + gap).findIndex(value => !Number.isNaN(value));
      if (written >= 0) throw new Error(`${name}: buffer ${n} is written ${written + 1} floats after its end`);
    });
  }
}
