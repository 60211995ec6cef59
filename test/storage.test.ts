// What a program of bfloat16 products stores as bfloat16: operands and results of products and attention, and nothing that
// adds up along the stream or that a router chooses by.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, graphsOf } from '../compiler/build/program.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, dimension, time } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import { zeros } from '../compiler/graph/tensor.ts';
import { verify } from '../compiler/graph/verify.ts';
import { compile } from '../compiler/index.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import { isExact, multiplyMatrices } from '../compiler/ops/contract.ts';
import { mapOver } from '../compiler/ops/map.ts';
import { compose } from '../compiler/passes/compose.ts';
import { roundOperands } from '../compiler/plan/round.ts';
import { chooseStorage, type Scheduled, type Storage } from '../compiler/plan/storage.ts';
import { multiply, operand } from '../compiler/scalar/expression.ts';
import { cpuStoring } from '../compiler/targets/cpu/kernel-source.ts';
import { cudaStoring } from '../compiler/targets/cuda/kernel-source.ts';
import { type Target, targets } from '../compiler/targets/names.ts';
import { randomNumbers } from './random-numbers.ts';

const test = suite('storage');

/** The graphs of the first block kind, forward and backward, and how their values are stored. */
function blockOf(name: string, target: Target = 'cpu'): { graphs: Graph[]; storage: Storage } {
  const { model } = readModel(name);
  const program = buildProgram(model, formulaLibrary(model));
  const { forward, backward } = program.blocks[0]!;
  const graphs = graphsOf(program)
    .filter(graph => graph === forward || graph === backward)
    .map(compose);
  const scheduled = graphs.map((graph): Scheduled => ({ graph, schedule: fuse(graph, { fuse: true }) }));
  const storing = target === 'cuda' ? cudaStoring : cpuStoring;
  const rounded =
    target === 'cuda' ? roundOperands(scheduled, storing, { fuse: true }) : new Map<Scheduled, Scheduled>();
  const functions = scheduled.map(each => rounded.get(each) ?? each);
  return { graphs: functions.map(({ graph }) => graph), storage: chooseStorage(functions, storing) };
}

const savedAs = (name: string, wanted: 'f32' | 'bf16'): string[] => {
  const { graphs, storage } = blockOf(name);
  return graphs[0]!.outputs
    .filter(output => output.name.startsWith('saved.') && storage(output.node) === wanted)
    .map(output => output.name.slice('saved.'.length))
    .sort();
};

test('a llama block keeps the operands of its products as bfloat16, and its stream and statistics as float32', () => {
  assert.equal(savedAs('llama3-1b', 'bf16'), ['attention', 'gate', 'key', 'query', 'up', 'value']);
  assert.ok(
    savedAs('llama3-1b', 'f32').every(name => /stream|residual|log_sum_exp|sum|factor|_add|^x/.test(name)),
    savedAs('llama3-1b', 'f32').join(),
  );
});

test('what a forward function keeps, the backward one reads alike', () => {
  const names = ['gpt2-small', 'llama3-1b', 'mixtral-8x7b', 'deepseek-v2-lite', 'mamba-130m'];
  for (const [name, target] of names.flatMap(name => targets.map(target => [name, target] as const))) {
    const { graphs, storage } = blockOf(name, target);
    const kept = new Map(graphs[0]!.outputs.map(output => [output.name, storage(output.node)]));
    for (const node of graphs[1]!.inputs)
      if (node.label.startsWith('saved.')) assert.is(storage(node), kept.get(node.label), `${name} ${node.label}`);
  }
});

/** What products of bfloat16 read for each token, and how it is stored: `LABEL f32`. */
const operandsOf = (name: string, target: Target): string[] => {
  const { graphs, storage } = blockOf(name, target);
  const products = graphs.flatMap(({ nodes }) =>
    nodes.filter(({ primitive, attributes }) => {
      const { exact = false } = (attributes ?? {}) as { exact?: boolean };
      return ['contract', 'grouped', 'grouped-gradient'].includes(primitive?.name ?? '') && !exact;
    }),
  );
  const isPerToken = ({ dtype, dimensions }: Node) => dtype === 'f32' && dimensions[1]?.name === 'time';
  const read = new Set(products.flatMap(({ inputs }) => inputs.filter(isPerToken)));
  return [...read].map(node => `${node.label} ${storage(node)}`);
};

test('on CUDA, all that products read for each token is bfloat16, and on the CPU what nothing else reads', () => {
  assert.equal(
    operandsOf('llama3-1b', 'cpu').filter(operand => operand.endsWith('f32')),
    ['gradient.y f32', 'attention_residual_gradient f32'],
  );
  for (const name of ['gpt2-small', 'llama3-1b', 'olmo2-1b', 'mixtral-8x7b', 'deepseek-v2-lite', 'mamba-130m'])
    assert.equal(
      operandsOf(name, 'cuda').filter(operand => operand.endsWith('f32')),
      [],
      name,
    );
});

test('the gradient of the stream is rounded once, where it is made, and stays float32 besides', () => {
  const { graphs, storage } = blockOf('llama3-1b', 'cuda');
  const { kernels } = fuse(graphs[1]!, { fuse: true });
  const made = kernels.find(({ outputs }) => outputs.some(({ label }) => label === 'attention_residual_gradient'))!;
  assert.is(made.kind, 'row');
  const found = made.outputs.filter(({ label }) => label.startsWith('attention_residual_gradient'));
  assert.equal(
    found.map(node => `${node.label} ${storage(node)}`),
    ['attention_residual_gradient f32', 'attention_residual_gradient_rounded bf16'],
  );
  const rounded = graphs[1]!.nodes.filter(({ label }) => label === 'gradient.y_rounded');
  assert.is(rounded.length, 1);
});

test('copies are the same numbers, and a function that needs none is left as it is', () => {
  const builder = new Builder();
  const [hidden, out] = [dimension('hidden', 8), dimension('out', 3)];
  const x = builder.input('x', [batch, time, hidden]);
  const weight = builder.input('weight', [out, hidden]);
  const squares = mapOver(builder, x.dimensions, multiply(operand(0), operand(0)), [x]);
  const product = multiplyMatrices(builder, squares, weight, [batch, time, out]);
  const node = (name: string, of: Node) => ({ name, node: of, accumulate: false });
  const scheduled = (graph: Graph): Scheduled => ({ graph, schedule: fuse(graph, { fuse: true }) });
  // What is no stream has no other reader; a stream has.
  const alone = scheduled(makeGraph('alone', [node('product', product)]));
  const stream = scheduled(makeGraph('stream', [node('y', squares), node('product', product)]));
  assert.is(roundOperands([alone], cudaStoring, { fuse: true }).size, 0);
  const { graph, schedule } = roundOperands([stream], cudaStoring, { fuse: true }).get(stream)!;
  verify(graph);
  assert.equal(
    schedule.kernels.map(({ kind }) => kind),
    ['row', 'matmul'],
  );
  const random = randomNumbers(3);
  const sizes = { batch: 2, time: 3 };
  const values = new Map(
    [x, weight].map(({ label, dimensions }) => {
      const { data, ...rest } = zeros(dimensions, sizes);
      return [label, { ...rest, data: data.map(random) }];
    }),
  );
  assert.equal(evaluate(graph, values, sizes), evaluate(stream.graph, values, sizes));
});

test('a router reads float32', () => {
  const { graphs, storage } = blockOf('mixtral-8x7b', 'cuda');
  const routers = graphs.flatMap(({ nodes }) =>
    nodes.filter(node => node.primitive?.name === 'contract' && (node.attributes as { exact?: boolean }).exact),
  );
  assert.ok(routers.length > 0);
  for (const node of routers) assert.equal([node, ...node.inputs].map(storage), ['f32', 'f32', 'f32'], node.label);
});

test('where others round what they read, the products of routers have launches of their own', () => {
  const { model } = readModel('deepseek-v2-lite');
  const graph = compose(buildProgram(model, formulaLibrary(model)).blocks[1]!.backward!);
  const mixed = (exactApart: boolean): number => {
    const kinds = fuse(graph, { fuse: true, exactApart }).kernels.map(({ members }) => {
      const products = members.filter(({ primitive }) => primitive!.name === 'contract');
      return new Set(products.map(isExact)).size;
    });
    return kinds.filter(count => count > 1).length;
  };
  assert.is(mixed(false), 1);
  assert.is(mixed(true), 0);
});

test('a float32 program stores nothing as bfloat16', () => {
  assert.not.match(compile(readModel('gpt2-small').model, { dtype: 'f32' }).files['model.c']!, /malc_bf16/);
});

test.run();
