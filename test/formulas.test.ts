// Every formula of mal/std (activations, norms, losses, functions): its derived gradient against central differences, and
// known values. A new formula is tested before its author writes a test.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildFormula, learnedNames } from '../compiler/build/formula.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { dimension } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { makeGraph, type Node } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { verify } from '../compiler/graph/verify.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { FormulaDefinition } from '../compiler/syntax/syntax.ts';
import { randomNumbers } from './random-numbers.ts';

const test = suite('formulas');
const rows = dimension('rows', 3);
const hidden = dimension('hidden', 5);
const library = standardLibrary();

/** The formula over random inputs, its gradient against a random direction, and the means to evaluate both. */
function prepare(formula: FormulaDefinition) {
  const builder = new Builder();
  const random = randomNumbers(7);
  const inputs: Node[] = [];
  const values = new Map<string, Tensor>();
  const give = (label: string, dims: Node['dimensions'], dtype: Node['dtype'], draw: () => number) => {
    const known = inputs.find(input => input.label === label);
    if (known) return known;
    const node = builder.input(label, dims, dtype);
    const tensor = zeros(dims, {});
    for (let i = 0; i < tensor.data.length; i++) tensor.data[i] = draw();
    inputs.push(node);
    values.set(label, tensor);
    return node;
  };
  const args = formula.parameters.map(name =>
    name === 'label'
      ? give(name, [rows], 'i32', () => Math.floor(random() * 5))
      : give(name, [rows, hidden], 'f32', () => 4 * random() - 2),
  );
  const result = buildFormula(formula, args, {
    builder,
    library,
    over: [hidden],
    constants: {},
    learned: name => give(name, [hidden], 'f32', () => 0.5 + random()),
  });
  const seed = give('seed', result.dimensions, 'f32', () => 2 * random() - 1);
  const wanted = inputs.filter(input => input.dtype === 'f32' && input !== seed);
  const gradients = differentiate(builder, [{ node: result, gradient: seed }], wanted);
  const graph = makeGraph(formula.name, [
    { name: 'result', node: result, accumulate: false },
    ...[...gradients].map(([of, node]) => ({ name: of.label, node, accumulate: false })),
  ]);
  verify(graph);
  return { graph, values, wanted };
}

// By intent the gradient of `stable` is not its derivative: the shift is detached. softmax and logsumexp are held instead.
for (const formula of [...library.values()].filter(({ name }) => name !== 'stable'))
  test(`${formula.kind} ${formula.name}: gradient against central differences`, () => {
    const { graph, values, wanted } = prepare(formula);
    const weighted = (tensors: ReadonlyMap<string, Tensor>) => {
      const { data } = evaluate(graph, tensors, {}).get('result')!;
      return data.reduce((sum, value, i) => sum + value * values.get('seed')!.data[i]!, 0);
    };
    const computed = evaluate(graph, values, {});
    assert.ok(wanted.length > learnedNames(formula).length, 'every argument has a gradient');
    for (const { label } of wanted) {
      const tensor = values.get(label)!;
      for (let i = 0; i < tensor.data.length; i++) {
        const moved = (by: number) => {
          const data = tensor.data.slice();
          data[i]! += by;
          return weighted(new Map([...values, [label, { ...tensor, data }]]));
        };
        const numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        const got = computed.get(label)!.data[i]!;
        assert.ok(
          Math.abs(numeric - got) < 1e-6 * (1 + Math.abs(numeric)),
          `d/d ${label}[${i}]: ${got}, differences say ${numeric}`,
        );
      }
    }
  });

/** Values at x = -1.5, 0.3 and 2, computed from the published definitions with another language's mathematics library. */
const known: Readonly<Record<string, readonly [number, number, number]>> = {
  silu: [-0.27363829, 0.17233276, 1.76159416],
  gelu: [-0.1002108, 0.18537343, 1.95449974],
  gelu_tanh: [-0.10042842, 0.18537092, 1.95459769],
  relu: [0, 0.3, 2],
  mish: [-0.29809974, 0.20800137, 1.94395896],
  elu: [-0.77686984, 0.3, 2],
  selu: [-1.36581435, 0.3152103, 2.10140197],
  hardswish: [-0.375, 0.165, 1.66666667],
  leaky_relu: [-0.015, 0.3, 2],
};

for (const [name, expected] of Object.entries(known))
  test(`activation ${name}: values`, () => {
    const builder = new Builder();
    const points = dimension('points', 3);
    const x = builder.input('x', [points]);
    const fail = (): never => {
      throw new Error('an activation has no trained parameters');
    };
    const node = buildFormula(library.get(name)!, [x], { builder, library, over: [], constants: {}, learned: fail });
    const graph = makeGraph(name, [{ name: 'y', node, accumulate: false }]);
    const given = { names: ['points'], shape: [3], data: Float64Array.of(-1.5, 0.3, 2) };
    const { data } = evaluate(graph, new Map([['x', given]]), {}).get('y')!;
    for (const [n, value] of expected.entries())
      assert.ok(Math.abs(data[n]! - value) < 2e-8, `${name}: ${data[n]}, expected ${value}`);
  });

/** `body`, a norm's, at x[row][i] = row + i with every weight 2, over three rows of five. */
function normValue(body: string): number[] {
  const formula = parse(`norm sample(x) = ${body}`, 'sample.mal').syntax.definitions[0] as FormulaDefinition;
  const { graph, values } = prepare(formula);
  const x = values.get('x')!;
  const given = new Map([...values, ['x', { ...x, data: x.data.map((_, i) => Math.floor(i / 5) + (i % 5)) }]]);
  const weight = values.get('weight');
  if (weight) given.set('weight', { ...weight, data: weight.data.map(() => 2) });
  return [...evaluate(graph, given, {}).get('result')!.data];
}

for (const [body, expected] of [
  ['x - x + sum(1)', 5],
  ['x - x + mean(mean(x)) - mean(x)', 0],
  ['x - x + max(sum(x)) - sum(x)', 0],
  ['x - x + sum(weight)', 10],
  ['x - x + sum(weight * mean(x)) - 10 * mean(x)', 0],
  ['x - x + at(mean(x), 3) - mean(x)', 0],
] as const)
  test(`reductions of what does not vary: ${body}`, () => {
    assert.equal(normValue(body), new Array(15).fill(expected));
  });

/** Where a formula is smooth or has a kink at 0, its derivative there is that of one of the two sides. */
for (const formula of [...library.values()].filter(({ kind, name }) => kind === 'activation' || name === 'softplus'))
  test(`${formula.kind} ${formula.name}: derivative at exactly 0`, () => {
    const { graph, values } = prepare(formula);
    const x = values.get('x')!;
    const at = (value: number) =>
      evaluate(graph, new Map([...values, ['x', { ...x, data: x.data.map(() => value) }]]), {});
    const step = 1e-6;
    const [below, here, above] = [-step, 0, step].map(value => at(value).get('result')!.data[0]!);
    const slope = at(0).get('x')!.data[0]! / values.get('seed')!.data[0]!;
    const sides = [(here! - below!) / step, (above! - here!) / step];
    assert.ok(
      sides.some(side => Math.abs(side - slope) < 1e-5),
      `${slope}, differences say ${sides.join(' and ')}`,
    );
  });

test.run();
