// Fusion, counted (DESIGN, section 1): the launches of a llama block fall out of its graph, and without fusion each node
// is a kernel of its own.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, graphsOf } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, dimension, time } from '../compiler/graph/dimension.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import { verify } from '../compiler/graph/verify.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import { attention } from '../compiler/ops/attention.ts';
import { map } from '../compiler/ops/map.ts';
import { packagePath } from '../compiler/package-files.ts';
import { compose } from '../compiler/passes/compose.ts';
import { add, multiply, operand } from '../compiler/scalar/expression.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { randomModel } from './random-models.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('fusion');

function graphsAt(path: string): Graph[] {
  const { model } = check(parse(readFileSync(packagePath(path), 'utf8'), path).syntax);
  return graphsOf(buildProgram(model!, standardLibrary())).map(compose);
}

const launchesOf = (path: string): Map<string, number> =>
  new Map(graphsAt(path).map(graph => [graph.name, fuse(graph, { fuse: true }).kernels.length]));

for (const name of ['llama_small', 'llama_7b', 'lil_39m'])
  test(`${name}: 7 launches forward and at most 12 backward in a block`, () => {
    const launches = launchesOf(`well-known/models/${name}.mal`);
    assert.is(launches.get('block_forward'), 7);
    assert.ok(launches.get('block_backward')! <= 12, `${launches.get('block_backward')} backward`);
    // Besides: the cache takes keys and values.
    assert.is(launches.get('block_decode'), 9);
    assert.is(launches.get('head_logits'), 2);
    assert.ok(launches.get('head_train')! <= 5, `${launches.get('head_train')} in the head`);
  });

test('gpt2_small: no more launches than a llama block', () => {
  const launches = launchesOf('well-known/models/gpt2_small.mal');
  assert.ok(launches.get('block_forward')! <= 7, `${launches.get('block_forward')} forward`);
  assert.ok(launches.get('block_backward')! <= 12, `${launches.get('block_backward')} backward`);
});

test('a product that makes a gradient sums it up for the bias, where the target asks for it', () => {
  const backward = graphsAt('well-known/models/gpt2_small.mal').find(({ name }) => name === 'block_backward')!;
  const [apart, together] = [{ fuse: true }, { fuse: true, totals: true }].map(
    options => fuse(backward, options).kernels,
  );
  const totalsOf = (kernels: typeof apart) =>
    kernels!.flatMap(kernel => (kernel.kind === 'matmul' ? kernel.groups.flatMap(({ totals }) => totals) : []));
  assert.is(totalsOf(apart).length, 0);
  assert.equal(
    totalsOf(together).map(({ dimensions }) => dimensions.map(({ name }) => name)),
    [['ffn']],
  );
  assert.is(together!.length, apart!.length - 1, 'a pass less over the gradient');
});

// One of the backward launches multiplies by the first norm's output, which is computed again beside the gradient of x.
test('experts with latent attention: at most 18 launches forward, 30 backward, 23 in decoding', () => {
  const launches = launchesOf('mal/examples/03-experts.mal');
  const counts = ['forward', 'backward', 'decode'].map(part => launches.get(`block_other_${part}`)!);
  assert.ok(
    counts.every((count, n) => count <= [18, 30, 23][n]!),
    `${counts}`,
  );
});

test('what products read and maps make of kept values is computed again, in launches that are there anyway', () => {
  for (const [name, product] of [
    ['llama_small', 'gated'],
    ['gpt2_small', 'activated'],
  ] as const) {
    const path = `well-known/models/${name}.mal`;
    const { model } = check(parse(readFileSync(packagePath(path), 'utf8'), path).syntax);
    const [block] = buildProgram(model!, standardLibrary()).blocks;
    const kept = block!.forward.outputs.map(output => output.name);
    for (const again of ['attention_norm', 'feed_forward_norm', product])
      assert.not.ok(kept.includes(`saved.${again}`), again);
    const { kernels } = fuse(compose(block!.backward!), { fuse: true });
    for (const again of ['attention_norm', 'feed_forward_norm', product])
      assert.ok(
        kernels.some(({ outputs }) => outputs.length > 1 && outputs.some(({ label }) => label === again)),
        again,
      );
  }
});

test('what only repeats its operand is not written out for maps', () => {
  const builder = new Builder();
  const [rows, columns] = [dimension('rows', 3), dimension('columns', 4)];
  const [row, wide] = [builder.input('row', [rows]), builder.input('wide', [rows, columns])];
  const repeated = builder.apply(map, [row], { expression: operand(0), dimensions: [rows, columns] });
  const outputs = [add, multiply].map((apply, n) => ({
    name: `output_${n}`,
    node: builder.apply(map, [repeated, wide], {
      expression: apply(operand(0), operand(1)),
      dimensions: [rows, columns],
    }),
    accumulate: false,
  }));
  const composed = compose(makeGraph('repeated', outputs));
  verify(composed);
  assert.equal(
    composed.outputs.map(({ node }) => node.inputs.map(({ label }) => label)),
    [
      ['row', 'wide'],
      ['row', 'wide'],
    ],
  );
});

test('two attentions over the same tensors with different scales are two launches', () => {
  const builder = new Builder();
  const dims = [batch, time, dimension('heads', 2), dimension('head_dim', 4)];
  const inputs = ['query', 'key', 'value'].map(label => builder.input(label, dims));
  const outputs = [0.5, 1].map((scale, n) => ({
    name: `output_${n}`,
    node: builder.apply(attention, inputs, {
      scale,
      causal: true,
      window: 0,
      score: null,
      mask: null,
      value_dim: 4,
      dropout: 0,
      extras: [],
      result: 'output' as const,
    }),
    accumulate: false,
  }));
  assert.is(fuse(makeGraph('two', outputs), { fuse: true }).kernels.length, 2);
});

/** What is inline is part of each kernel that reads it. */
const isComputed = (node: Node) => node.primitive !== null && node.primitive.kernel !== 'inline';

/**
 * Every computed node is in one kernel, each kernel reads what earlier ones made, and what no other one reads comes right
 * after what it reads itself.
 */
function holdSchedule(graph: Graph, fused: boolean): number {
  const { kernels } = fuse(graph, { fuse: fused });
  const ready = new Set(graph.inputs);
  for (const kernel of kernels) {
    for (const node of kernel.inputs)
      assert.ok(ready.has(node), `${graph.name}: ${node.label} is read before it is made`);
    for (const node of kernel.outputs) ready.add(node);
  }
  const isEnd = kernels.map(kernel =>
    kernels.every(other => other === kernel || !other.inputs.some(node => kernel.outputs.includes(node))),
  );
  kernels.forEach(({ inputs, outputs }, n) => {
    if (!isEnd[n]) return;
    const before = kernels.findLastIndex((other, m) => m < n && other.outputs.some(node => inputs.includes(node)));
    const label = outputs[0]!.label;
    assert.ok(isEnd.slice(before + 1, n).every(Boolean), `${graph.name}: ${label} is made later than it can be`);
  });
  const members = kernels.flatMap(kernel => kernel.members);
  const computed = graph.nodes.filter(isComputed);
  assert.equal(
    members.map(node => node.id).sort((a, b) => a - b),
    computed.map(node => node.id),
  );
  return kernels.length;
}

test('schedules compute every node once, in order; without fusion each in a kernel of its own', () => {
  fc.assert(
    fc.property(randomModel, model => {
      for (const graph of graphsOf(buildProgram(model, standardLibrary()))) {
        const composed = compose(graph);
        verify(composed);
        const fused = holdSchedule(composed, true);
        const apart = holdSchedule(graph, false);
        // Attention and its log-sum-exp, a scan and its state, and the gradients of each are one launch in any case.
        const count = (kernel: string) => graph.nodes.filter(node => node.primitive?.kernel === kernel).length;
        const joined = ['attention', 'attention-gradient', 'scan', 'scan-gradient'].map(kernel => count(kernel) - 1);
        const together = joined.reduce((total, further) => total + Math.max(0, further), 0);
        assert.is(apart, graph.nodes.filter(isComputed).length - together);
        assert.ok(fused <= apart);
      }
    }),
    { numRuns: 25, seed: 3 },
  );
});

test.run();
