// What a program of bfloat16 products stores as bfloat16: operands and results of products and attention, and nothing that
// adds up along the stream or that a router chooses by.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, graphsOf } from '../compiler/build/program.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import type { Graph } from '../compiler/graph/graph.ts';
import { compile } from '../compiler/index.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import { compose } from '../compiler/passes/compose.ts';
import { chooseStorage, type Storage } from '../compiler/plan/storage.ts';

const test = suite('storage');

/** The graphs of the first block kind, forward and backward, and how their values are stored. */
function blockOf(name: string): { graphs: Graph[]; storage: Storage } {
  const { model } = readModel(name);
  const program = buildProgram(model, formulaLibrary(model));
  const { forward, backward } = program.blocks[0]!;
  const graphs = graphsOf(program)
    .filter(graph => graph === forward || graph === backward)
    .map(compose);
  return { graphs, storage: chooseStorage(graphs.map(graph => ({ graph, schedule: fuse(graph, { fuse: true }) }))) };
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
  for (const name of ['gpt2-small', 'llama3-1b', 'mixtral-8x7b', 'deepseek-v2-lite', 'mamba-130m']) {
    const { graphs, storage } = blockOf(name);
    const kept = new Map(graphs[0]!.outputs.map(output => [output.name, storage(output.node)]));
    for (const node of graphs[1]!.inputs)
      if (node.label.startsWith('saved.')) assert.is(storage(node), kept.get(node.label), `${name} ${node.label}`);
  }
});

test('a router reads float32', () => {
  const { graphs, storage } = blockOf('mixtral-8x7b');
  const routers = graphs.flatMap(({ nodes }) =>
    nodes.filter(node => node.primitive?.name === 'contract' && (node.attributes as { exact?: boolean }).exact),
  );
  assert.ok(routers.length > 0);
  for (const node of routers) assert.equal([node, ...node.inputs].map(storage), ['f32', 'f32', 'f32'], node.label);
});

test('a float32 program stores nothing as bfloat16', () => {
  assert.not.match(compile(readModel('gpt2-small').model, { dtype: 'f32' }).files['model.c']!, /malc_bf16/);
});

test.run();
