// Mixtures of experts and decoding of latent attention on CUDA, in the emulator: each kernel against the float64 reference,
// and whole architectures against the oracle. cuda-experts-references.test.ts has what PyTorch computed.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, type Dimension, dimension, type Sizes, time } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { compile } from '../compiler/index.ts';
import { multiplyEach } from '../compiler/ops/contract-each.ts';
import { multiplyGrouped } from '../compiler/ops/grouped.ts';
import { groupedGradient } from '../compiler/ops/grouped-gradient.ts';
import { primitives } from '../compiler/ops/index.ts';
import { chooseGreatest } from '../compiler/ops/top-k.ts';
import { withinCapacity } from '../compiler/ops/within-capacity.ts';
import { openEmulated } from './cuda/build.ts';
import { cudaGraphs } from './cuda/graph-source.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { hold } from './held-against-oracle.ts';
import { isDifferentiated, prepareCase } from './primitive-case.ts';
import { randomModel } from './random-models.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda experts');

/** A graph, and calls of it: sizes, and the numbers of its inputs and of the buffers that it adds to. */
interface Case {
  readonly name: string;
  readonly graph: Graph;
  readonly calls: readonly { readonly sizes: Sizes; readonly values: ReadonlyMap<string, Tensor> }[];
}

// ---- Primitives ----

const kinds: ReadonlySet<string> = new Set([
  'top-k',
  'within-capacity',
  'grouped',
  'grouped-gradient',
  'contract-each',
]);

/** The cases of the primitives' own files, with the gradients of what is differentiated. */
const ofPrimitives: readonly Case[] = primitives
  .filter(({ name }) => kinds.has(name))
  .flatMap(primitive =>
    primitive.cases.map((given, n) => {
      const { builder, inputs, node, values, sizes, random } = prepareCase(primitive, given, 1);
      const differentiated = isDifferentiated(primitive, given) && primitive.name === 'grouped';
      const seed = zeros(node.dimensions, sizes);
      values.set('seed', { ...seed, data: seed.data.map(() => Math.fround(2 * random() - 1)) });
      const wanted = differentiated ? inputs.filter(input => input.dtype === 'f32') : [];
      const gradients = differentiated
        ? differentiate(builder, [{ node, gradient: builder.input('seed', node.dimensions) }], wanted)
        : new Map<Node, Node>();
      const results = [node, ...wanted.map(input => gradients.get(input)!)];
      const outputs = results.map((result, m) => ({ name: `result ${m}`, node: result, accumulate: false }));
      return { name: `${primitive.name}, case ${n}`, graph: makeGraph('case', outputs), calls: [{ sizes, values }] };
    }),
  );

// ---- Shapes on both sides of tiles, few rows and many, experts that nobody chose ----

interface Shape {
  readonly experts: number;
  readonly chosen: number;
  readonly inner: number;
  readonly outer: number;
  /** The weights are [experts, outer, inner], or else [experts, inner, outer]. */
  readonly outerFirst: boolean;
  /** All slots of a row read the same left operand. */
  readonly shared: boolean;
  readonly times: readonly number[];
}

const shapes: readonly Shape[] = [
  { experts: 3, chosen: 2, inner: 72, outer: 36, outerFirst: true, shared: true, times: [1, 4, 5, 90] },
  { experts: 2, chosen: 1, inner: 19, outer: 150, outerFirst: false, shared: false, times: [3, 70] },
  { experts: 40, chosen: 4, inner: 22, outer: 7, outerFirst: true, shared: false, times: [1, 33] },
  // Several blocks sort.
  { experts: 33, chosen: 3, inner: 6, outer: 8, outerFirst: false, shared: true, times: [190] },
];

function graphOf({ experts, chosen, inner, outer, outerFirst, shared }: Shape): Graph {
  const builder = new Builder();
  const [e, c] = [dimension('experts', experts), dimension('chosen', chosen)];
  const [i, o] = [dimension('inner', inner), dimension('outer', outer)];
  const matrices: readonly Dimension[] = outerFirst ? [e, o, i] : [e, i, o];
  const left = builder.input('left', [batch, time, ...(shared ? [] : [c]), i]);
  const weights = builder.input('weights', matrices);
  const index = builder.input('index', [batch, time, c], 'i32');
  const each = builder.input('each', [batch, time, e, i]);
  const gradient = builder.input('gradient', [batch, time, c, o]);
  const ofWeights = builder.apply(groupedGradient, [left, gradient, index], { dimensions: matrices });
  const fits = builder.apply(withinCapacity, [index], { experts, limit: 1.1 * (chosen / experts) });
  return makeGraph('grouped', [
    { name: 'product', node: multiplyGrouped(builder, left, weights, index), accumulate: false },
    { name: 'gradient.weights', node: ofWeights, accumulate: true },
    { name: 'each product', node: multiplyEach(builder, each, weights), accumulate: false },
    { name: 'fits', node: fits, accumulate: false },
  ]);
}

/** Numbers for a graph's inputs, and for the gradients that it adds to. The lowest experts are chosen most often. */
function valuesOf(graph: Graph, sizes: Sizes, experts: number): Map<string, Tensor> {
  const random = randomNumbers(7);
  const low = experts > 2 ? 1 : 0;
  const added = graph.outputs
    .filter(({ accumulate }) => accumulate)
    .map(({ name, node }) => ({ ...node, label: name }));
  return new Map(
    [...graph.inputs, ...added].map(({ label, dimensions, dtype }) => {
      const number = () =>
        dtype === 'i32' ? low + Math.floor(random() ** 2 * (experts - low)) : Math.fround(2 * random() - 1);
      const { data, ...rest } = zeros(dimensions, sizes);
      return [label, { ...rest, data: data.map(number) }] as const;
    }),
  );
}

const ofShapes: readonly Case[] = shapes.map(shape => {
  const graph = graphOf(shape);
  const calls = shape.times.map(positions => {
    const sizes = { batch: 2, time: positions };
    return { sizes, values: valuesOf(graph, sizes, shape.experts) };
  });
  return { name: JSON.stringify(shape), graph, calls };
});

/** Choices among as many experts as DeepSeek-V3 has, in groups or not. */
const ofChoices: readonly Case[] = [
  { candidates: 256, chosen: 8, groups: 8, top_groups: 4, group_score: 'top2' as const },
  { candidates: 100, chosen: 37, groups: 1, top_groups: 1, group_score: 'max' as const },
].map(({ candidates, chosen, ...rest }) => {
  const builder = new Builder();
  const scores = builder.input('scores', [batch, time, dimension('experts', candidates)]);
  const node = chooseGreatest(builder, scores, { chosen: dimension('chosen', chosen), ...rest });
  const graph = makeGraph('choice', [{ name: 'chosen', node, accumulate: false }]);
  const sizes = { batch: 3, time: 7 };
  const calls = [{ sizes, values: valuesOf(graph, sizes, 0) }];
  return { name: `${chosen} of ${candidates} in ${rest.groups}`, graph, calls };
});

const cases = [...ofPrimitives, ...ofShapes, ...ofChoices];
const compiled = (['f32', 'bf16'] as const).map(dtype => {
  const held = dtype === 'f32' ? cases : ofShapes.slice(0, -1);
  return {
    dtype,
    held,
    graphs: cudaGraphs(
      held.map(({ graph }) => graph),
      dtype,
    ),
  };
});

/** Relative L2 distance of `actual` and the sum of `expected` and `before`; absolute where that is all zeros. */
function distance(actual: Float64Array, expected: Float64Array, before: Float64Array | undefined): number {
  let difference = 0;
  let norm = 0;
  actual.forEach((value, n) => {
    const sum = expected[n]! + (before?.[n] ?? 0);
    difference += (value - sum) ** 2;
    norm += sum ** 2;
  });
  return Math.sqrt(difference / (norm || 1));
}

// ---- Architectures ----

const hasExperts = ({ blocks }: Model) => blocks.some(block => block.ffn?.moe);
const hasLatents = ({ blocks }: Model) => blocks.some(block => block.attention?.latent);
/** What has kernels of others only besides. */
const isHeld = ({ blocks, mtp }: Model) => mtp === null && blocks.every(block => block.ssm === null);
const models = fc.sample(randomModel, { seed: 23, numRuns: 300 }).filter(isHeld);

test('too many experts are refused by name', () => {
  const model = models.find(({ blocks: [block] }) => block!.ffn?.moe)!;
  const blocks = model.blocks.map(block => {
    const moe = block.ffn?.moe;
    return moe ? { ...block, ffn: { ...block.ffn!, moe: { ...moe, experts: 4100, groups: 1, top_groups: 1 } } } : block;
  });
  assert.throws(
    () => compile({ ...model, blocks }, { target: 'cuda' }),
    /random needs more than 4096 experts, which the target cuda does not have; use --target cpu/,
  );
});

if (await emulatorAvailable()) {
  const runs = await Promise.all(compiled.map(({ graphs }) => graphs.build()));
  for (const [n, { dtype, held }] of compiled.entries()) {
    const run = runs[n]!;
    for (const { name, graph, calls } of held)
      test(`${dtype}: ${name}`, () => {
        for (const { sizes, values } of calls) {
          const expected = evaluate(graph, values, sizes);
          for (const adds of [true, false])
            for (const [output, { data }] of run(graph, values, sizes, adds)) {
              const before = adds ? values.get(output)?.data : undefined;
              const error = distance(data, expected.get(output)!.data, before);
              const limit = output === 'fits' || /chosen/.test(output) ? 0 : dtype === 'f32' ? 1e-6 : 6e-3;
              assert.ok(error <= limit, `${output}, ${JSON.stringify(sizes)}: relative L2 distance ${error}`);
            }
        }
      });
  }

  const wanted: readonly [string, (model: Model) => boolean, boolean][] = [
    ['experts, without fusion', model => hasExperts(model) && !hasLatents(model), false],
    [
      'groups of experts with capacities, and latents',
      model =>
        hasLatents(model) && model.blocks.some(({ ffn }) => ffn?.moe && ffn.moe.groups > 1 && ffn.moe.capacity_factor),
      true,
    ],
  ];
  for (const [n, [name, predicate, fuse]] of wanted.entries())
    test(`a random model with ${name}: logits, loss, gradients, causality, decoding`, async () => {
      const model = models.find(predicate)!;
      const native = await openEmulated(model, { dtype: 'f32', fuse }, { batch: 2, time: 7 });
      await hold(native, model, 2, 7, n + 1);
      native.close();
    });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

for (const architecture of (await architectures()).slice(-1))
  test(`nvcc compiles all kernels for sm_${architecture} without a warning or a spill`, async () => {
    for (const { graphs } of compiled) {
      const kernels = await registersOf(graphs.source, architecture);
      assert.is(kernels.filter(({ name }) => name.includes('graph_')).length, graphs.kernels);
    }
  });

test.run();
