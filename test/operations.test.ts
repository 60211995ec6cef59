// Every primitive in the registry: its type rule against its reference, its gradient against central differences.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { makeGraph, type Node, type Primitive, type PrimitiveCase } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { verify } from '../compiler/graph/verify.ts';
import { primitives } from '../compiler/ops/index.ts';
import { randomNumbers } from './random-numbers.ts';

const test = suite('operations');

/** The case's inputs, as a graph's inputs and as random tensors. */
function prepare(primitive: Primitive, given: PrimitiveCase<unknown>, seed: number) {
  const builder = new Builder();
  const random = randomNumbers(seed);
  const sizes = given.sizes ?? {};
  const inputs = given.inputs.map((type, n) => builder.input(`input ${n}`, type.dimensions, type.dtype));
  const values = new Map<string, Tensor>();
  given.inputs.forEach((type, n) => {
    const [low, high] = type.range ?? [-1, 1];
    const tensor = zeros(type.dimensions, sizes);
    for (let i = 0; i < tensor.data.length; i++)
      tensor.data[i] =
        type.dtype === 'i32' ? low + Math.floor(random() * (high - low + 1)) : low + (high - low) * random();
    values.set(`input ${n}`, tensor);
  });
  const node = builder.apply(primitive, inputs, given.attributes);
  return { builder, random, sizes, inputs, values, node };
}

for (const primitive of primitives)
  primitive.cases.forEach((given, n) => {
    test(`${primitive.name}, case ${n}: the reference gives the type's shape`, () => {
      const { inputs, values, node, sizes } = prepare(primitive, given, 1);
      const graph = makeGraph('case', inputs, [{ name: 'result', node, accumulate: false }]);
      verify(graph);
      const result = evaluate(graph, values, sizes).get('result')!;
      assert.equal(result.shape, zeros(node.dimensions, sizes).shape);
      assert.ok(result.data.every(Number.isFinite));
    });

    if (primitive.name === 'append' || primitive.name === 'attention-gradient') return;
    test(`${primitive.name}, case ${n}: gradient against central differences`, () => {
      const { builder, inputs, values, node, sizes, random } = prepare(primitive, given, 2);
      const wanted = inputs.filter(input => input.dtype === 'f32');
      const seed = builder.input('seed', node.dimensions);
      const gradients = differentiate(builder, [{ node, gradient: seed }], wanted);
      const direction = zeros(node.dimensions, sizes);
      for (let i = 0; i < direction.data.length; i++) direction.data[i] = 2 * random() - 1;
      const graph = makeGraph(
        'case',
        [...inputs, seed],
        [node, ...wanted.map(input => gradients.get(input) as Node)].map((result, k) => ({
          name: `${k}`,
          node: result,
          accumulate: false,
        })),
      );
      verify(graph);
      const at = (tensors: ReadonlyMap<string, Tensor>) =>
        evaluate(graph, new Map([...tensors, ['seed', direction]]), sizes);
      const value = (tensors: ReadonlyMap<string, Tensor>) =>
        at(tensors)
          .get('0')!
          .data.reduce((sum, x, i) => sum + x * direction.data[i]!, 0);
      const computed = at(values);
      wanted.forEach((input, k) => {
        const tensor = values.get(input.label)!;
        for (let i = 0; i < tensor.data.length; i++) {
          const moved = (by: number) => {
            const data = tensor.data.slice();
            data[i]! += by;
            return value(new Map([...values, [input.label, { ...tensor, data }]]));
          };
          const numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
          const got = computed.get(`${k + 1}`)!.data[i]!;
          assert.ok(
            Math.abs(numeric - got) < 1e-7 * (1 + Math.abs(numeric)),
            `d/d ${input.label}[${i}]: ${got}, differences say ${numeric}`,
          );
        }
      });
    });
  });

test.run();
