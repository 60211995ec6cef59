// Every primitive in the registry on the CPU: each case's kernel against the float64 reference. Names of primitives on the
// command line leave out the others.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node, type PrimitiveCase } from '../compiler/graph/graph.ts';
import { zeros } from '../compiler/graph/tensor.ts';
import { primitives } from '../compiler/ops/index.ts';
import { mapOver } from '../compiler/ops/map.ts';
import { operand } from '../compiler/scalar/expression.ts';
import { runOnCpu } from './cpu/run-graph.ts';
import { isDifferentiated, type PreparedCase, prepareCase } from './primitive-case.ts';

const test = suite('operations on the CPU');

/** The case's graph: its node and the gradients of its inputs. */
function graphOf({ builder, inputs, node }: PreparedCase, given: PrimitiveCase<unknown>): Graph {
  const { primitive } = node;
  // What is inline is computed by whatever reads it: by a map that hands it on.
  const own = primitive!.kernel === 'inline' ? mapOver(builder, node.dimensions, operand(0), [node]) : node;
  const differentiated = isDifferentiated(primitive!, given) && node.dtype === 'f32';
  const seed = builder.input('seed', node.dimensions);
  const wanted = differentiated ? inputs.filter(input => input.dtype === 'f32') : [];
  const gradients = differentiated ? differentiate(builder, [{ node, gradient: seed }], wanted) : new Map<Node, Node>();
  const results = new Set([own, ...wanted.flatMap(input => gradients.get(input) ?? [])]);
  const outputs = [...results].map((result, n) => ({ name: `result ${n}`, node: result, accumulate: false }));
  return makeGraph('case', outputs);
}

/** Relative L2 distance; absolute where the reference is all zeros. */
function distance(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}

const named = process.argv.slice(2);
// One kernel computes all of attention's gradients, and only together: attention's own cases hold them.
const walked = primitives
  .filter(({ name }) => name !== 'attention-gradient' && (named.length === 0 || named.includes(name)))
  .flatMap(primitive =>
    primitive.cases.map((given, n) => {
      const prepared = prepareCase(primitive, given, 1);
      const { node, values, sizes, random } = prepared;
      const seed = zeros(node.dimensions, sizes);
      values.set('seed', { ...seed, data: seed.data.map(() => Math.fround(2 * random() - 1)) });
      return { name: `${primitive.name}, case ${n}`, prepared, graph: graphOf(prepared, given) };
    }),
  );

const run = await runOnCpu(walked.map(({ graph }) => graph));

for (const { name, prepared, graph } of walked)
  test(name, () => {
    const { values, sizes } = prepared;
    const expected = evaluate(graph, values, sizes);
    const actual = run(graph, values, sizes);
    for (const [output, { data }] of expected) {
      const error = distance(actual.get(output)!.data, data);
      assert.ok(error < 1e-5, `${output}: relative L2 distance ${error}`);
    }
    for (const threads of [1, 3])
      assert.equal(run(graph, values, sizes, threads), actual, `the same bits with ${threads} threads`);
  });

test.run();
