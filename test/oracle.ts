// The float64 oracle of a whole program: every stage evaluated by its primitives' references.
import type { Program } from '../compiler/build/program.ts';
import type { Stage } from '../compiler/build/stage.ts';
import { product } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import type { Graph } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { philox } from '../compiler/scalar/philox.ts';

export interface OracleResult {
  readonly logits: Float64Array;
  /** Mean over the scored positions. */
  readonly loss: number;
  /** What routers add to the loss. */
  readonly auxiliary: number;
  /** By global parameter name; of a bias that balances experts, their loads. */
  readonly gradients: ReadonlyMap<string, Float64Array>;
}

/**
 * Evaluates a training step's forward and backward pass on tokens and labels [batch][time].
 * @param seed of what training drops, in the step of number 0; with null nothing is dropped
 * @param roles role of each token's message
 * @param separator the token that ends a document, where the program masks documents
 */
export function oracle(
  program: Program,
  parameters: ReadonlyMap<string, ArrayLike<number>>,
  tokens: ArrayLike<number>,
  labels: ArrayLike<number>,
  batch: number,
  time: number,
  seed: number | null = null,
  roles: ArrayLike<number> = new Float64Array(batch * time),
  separator: number | null = null,
): OracleResult {
  const sizes = { batch, time };
  const bounds = documentsOf(tokens, batch, time, separator);
  const scored = Array.from(labels).filter(label => label >= 0).length;
  const shared = new Map<string, Tensor>([
    ['tokens', matrix(tokens, batch, time)],
    ['labels', matrix(labels, batch, time)],
    ['positions', { names: ['time'], shape: [time], data: Float64Array.from({ length: time }, (_, t) => t) }],
    ['loss_scale', scalar(1 / scored)],
    ['roles', matrix(roles, batch, time)],
    ['documents', { names: ['batch', 'time', 'bounds'], shape: [batch, time, 2], data: bounds }],
    ['training', scalar(seed === null ? 0 : 1)],
    ['auxiliary_scale', scalar(1)],
    ['token_share', scalar(1 / (batch * time))],
  ]);
  const gradients = new Map<string, Float64Array>();
  let auxiliary = 0;

  const run = (graph: Graph, stage: Stage, layer: number | null, given: ReadonlyMap<string, Tensor>) => {
    const key = philox([0, 0, 0, 0], [seed ?? 0, 0]).slice(0, 2);
    // The embedding's number is one that no block has, of the modules either.
    const { layers, mtp } = program.model;
    const words = Float64Array.from([...key, 0, layer ?? layers.length + (mtp?.depth ?? 0)]);
    const noise = { names: ['noise'], shape: [4], data: words };
    const inputs = new Map([...shared, ['noise', noise] as const, ...given]);
    const isGlobal = (name: string) => layer === null || /^(model|lm_head)\./.test(name);
    const global = (name: string) => (isGlobal(name) ? name : `model.layers.${layer}.${name}`);
    for (const node of graph.inputs) {
      // A stage may call the stream's dimension otherwise.
      const known = inputs.get(node.label);
      if (known) inputs.set(node.label, { ...known, names: node.dimensions.map(dim => dim.name) });
      if (!stage.parameters.some(parameter => parameter.name === node.label)) continue;
      const values = parameters.get(global(node.label));
      if (!values) throw new Error(`no parameter ${global(node.label)}`);
      inputs.set(node.label, { ...zeros(node.dimensions, sizes), data: Float64Array.from(values) });
    }
    const outputs = evaluate(graph, inputs, sizes);
    for (const { name, accumulate } of graph.outputs) {
      if (name === 'auxiliary') auxiliary += outputs.get(name)!.data[0]!;
      if (!accumulate || name === 'auxiliary') continue;
      const parameter = global(name.slice('gradient.'.length));
      const sum = gradients.get(parameter) ?? new Float64Array(product(outputs.get(name)!.shape));
      gradients.set(
        parameter,
        sum.map((value, i) => value + outputs.get(name)!.data[i]!),
      );
    }
    return outputs;
  };

  const embedded = run(program.embedding.forward, program.embedding, null, new Map());
  for (const [name, tensor] of embedded) if (name.startsWith('rotary_')) shared.set(name, tensor);
  const stream = [embedded.get('y')!];
  const kept: Map<string, Tensor>[] = [];
  program.model.layers.forEach((kind, layer) => {
    const block = program.blocks[kind]!;
    const outputs = run(block.forward, block, layer, new Map([['x', stream[layer]!]]));
    kept.push(new Map([...outputs].filter(([name]) => name.startsWith('saved.'))));
    stream.push(outputs.get('y')!);
  });
  const last = new Map([['x', stream.at(-1)!]]);
  const logits = run(program.head.logits, program.head, null, last).get('logits')!.data;
  const head = run(program.head.train, program.head, null, last);
  let gradient = head.get('gradient.x')!;
  const ahead = runModules();
  if (ahead) gradient = sum(gradient, ahead);
  for (let layer = program.model.layers.length - 1; layer >= 0; layer--) {
    const block = program.blocks[program.model.layers[layer]!]!;
    const given = new Map([...kept[layer]!, ['x', stream[layer]!] as const, ['gradient.y', gradient] as const]);
    gradient = run(block.backward!, block, layer, given).get('gradient.x')!;
  }
  run(program.embedding.backward!, program.embedding, null, new Map([['gradient.y', gradient]]));

  /** Forward and backward through the modules that predict further ahead: the gradient of the stream that they read. */
  function runModules(): Tensor | null {
    const { modules, model, blocks } = program;
    if (modules === null || model.mtp === null) return null;
    const { depth, weight } = model.mtp;
    const block = blocks[model.layers.at(-1)!]!;
    const layers = model.layers.length;
    const shifted = (values: ArrayLike<number>, by: number, beyond: number) =>
      matrix(
        Array.from(values, (_, n) => ((n % time) + by < bounds[2 * n + 1]! ? values[n + by]! : beyond)),
        batch,
        time,
      );
    const saved = (outputs: Map<string, Tensor>) => [...outputs].filter(([name]) => name.startsWith('saved.'));
    const given = (n: number): [string, Tensor][] => [
      ['tokens', shifted(tokens, n + 1, 0)],
      ['labels', shifted(labels, n + 1, -1)],
      ['loss_scale', scalar(weight / depth / scored)],
    ];
    const passes = [];
    for (let n = 0, x = stream.at(-1)!; n < depth; n++) {
      const joined = run(modules.join.forward, modules.join, layers + n, new Map([...given(n), ['x', x]]));
      const outputs = run(block.forward, block, layers + n, new Map([['x', joined.get('y')!]]));
      passes.push({ x, joined, outputs });
      x = outputs.get('y')!;
    }
    let below: Tensor | null = null;
    for (let n = depth - 1; n >= 0; n--) {
      const { x, joined, outputs } = passes[n]!;
      const y = outputs.get('y')!;
      const trained = run(modules.head.train, modules.head, layers + n, new Map([...given(n), ['x', y]]));
      auxiliary += (trained.get('loss')!.data[0]! * weight) / depth / scored;
      const own = trained.get('gradient.x')!;
      const fromBlock = run(
        block.backward!,
        block,
        layers + n,
        new Map([...saved(outputs), ['x', joined.get('y')!], ['gradient.y', below ? sum(own, below) : own]]),
      );
      const join = new Map([...given(n), ...saved(joined), ['x', x] as const]);
      below = run(
        modules.join.backward,
        modules.join,
        layers + n,
        join.set('gradient.y', fromBlock.get('gradient.x')!),
      ).get('gradient.x')!;
    }
    return below;
  }

  return { logits, loss: head.get('loss')!.data[0]! / scored, auxiliary, gradients };
}

/** Where each position's document begins and ends: [batch][time][2]. It ends after the separator, or with its sequence. */
function documentsOf(tokens: ArrayLike<number>, batch: number, time: number, separator: number | null): Float64Array {
  const bounds = new Float64Array(2 * batch * time);
  for (let n = 0; n < batch * time; n++) {
    const row = n - (n % time);
    let [first, last] = [n, n];
    while (first > row && tokens[first - 1] !== separator) first--;
    while (last < row + time - 1 && tokens[last] !== separator) last++;
    bounds.set([first - row, last + 1 - row], 2 * n);
  }
  return bounds;
}

const sum = (a: Tensor, b: Tensor): Tensor => ({ ...a, data: a.data.map((value, i) => value + b.data[i]!) });
const scalar = (value: number): Tensor => ({ names: [], shape: [], data: Float64Array.of(value) });
const matrix = (values: ArrayLike<number>, batch: number, time: number): Tensor => ({
  names: ['batch', 'time'],
  shape: [batch, time],
  data: Float64Array.from(values),
});

/** |got - expected| / |expected|, as vectors. */
export function relativeError(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (got[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(size, 1e-30));
}
