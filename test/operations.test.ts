// Every primitive in the registry: its type rule against its reference, its gradient against central differences.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { makeGraph } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { verify } from '../compiler/graph/verify.ts';
import { primitives } from '../compiler/ops/index.ts';
import { isDifferentiated, prepareCase } from './primitive-case.ts';

const test = suite('operations');

for (const primitive of primitives)
  primitive.cases.forEach((given, n) => {
    test(`${primitive.name}, case ${n}: the reference gives the type's shape`, () => {
      const { values, node, sizes } = prepareCase(primitive, given, 1);
      const graph = makeGraph('case', [{ name: 'result', node, accumulate: false }]);
      verify(graph);
      const result = evaluate(graph, values, sizes).get('result')!;
      assert.equal(result.shape, zeros(node.dimensions, sizes).shape);
      assert.ok(result.data.every(Number.isFinite));
    });

    if (!isDifferentiated(primitive, given)) return;
    test(`${primitive.name}, case ${n}: gradient against central differences`, () => {
      const { builder, inputs, values, node, sizes, random } = prepareCase(primitive, given, 2);
      const wanted = inputs.filter(input => input.dtype === 'f32');
      const seed = builder.input('seed', node.dimensions);
      const gradients = differentiate(builder, [{ node, gradient: seed }], wanted);
      const direction = zeros(node.dimensions, sizes);
      for (let i = 0; i < direction.data.length; i++) direction.data[i] = 2 * random() - 1;
      const graph = makeGraph('case', [
        { name: 'result', node, accumulate: false },
        ...[...gradients].map(([of, gradient]) => ({ name: of.label, node: gradient, accumulate: false })),
      ]);
      verify(graph);
      const at = (tensors: ReadonlyMap<string, Tensor>) =>
        evaluate(graph, new Map([...tensors, ['seed', direction]]), sizes);
      const value = (tensors: ReadonlyMap<string, Tensor>) =>
        at(tensors)
          .get('result')!
          .data.reduce((sum, x, i) => sum + x * direction.data[i]!, 0);
      const computed = at(values);
      for (const input of wanted) {
        const tensor = values.get(input.label)!;
        for (let i = 0; i < tensor.data.length; i++) {
          const moved = (by: number) => {
            const data = tensor.data.slice();
            data[i]! += by;
            return value(new Map([...values, [input.label, { ...tensor, data }]]));
          };
          const numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
          // What has no gradient, the result must not depend on.
          const got = computed.get(input.label)?.data[i] ?? 0;
          assert.ok(
            Math.abs(numeric - got) < 1e-7 * (1 + Math.abs(numeric)),
            `d/d ${input.label}[${i}]: ${got}, differences say ${numeric}`,
          );
        }
      }
    });
  });

test.run();
