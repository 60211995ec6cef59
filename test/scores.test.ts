// What attention does to a score before the softmax, and which pairs it looks at: ALiBi, soft-caps and formulas, and the
// order in which they compose.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { maskOf, scoreOf } from '../compiler/build/scores.ts';
import { Site } from '../compiler/build/site.ts';
import type { Attention, Model } from '../compiler/check/model.ts';
import { pairFunctions } from '../compiler/emission/attention-pairs.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { type AttentionShape, attention, scoreDerivative } from '../compiler/ops/attention.ts';
import { evaluator } from '../compiler/scalar/evaluate.ts';
import { constant, operand, type Scalar } from '../compiler/scalar/expression.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { FormulaDefinition } from '../compiler/syntax/syntax.ts';
import { plainAttention } from './fixtures/plain-attention.ts';

const test = suite('scores');

const formulas = parse(
  `function twice(s, q, k, head) = 2 * s + head - head + (q - q) * k
  function soften(s) = s / (1 + abs(s))
  function softened(s, q, k, head) = soften(s) * (k + 1) / (q + head + 1)
  function prefix(q, k) = (k <= q || k < 64) ? 1 : 0
  function reduced(s, q, k, head) = mean(s) + q + k + head`,
  'scores.mal',
).syntax.definitions.filter((definition): definition is FormulaDefinition => 'body' in definition);
const library = new Map(formulas.map(formula => [formula.name, formula]));
const site = new Site(library, { init: { std: 0.02, residual_scale: true }, layers: [0] } as unknown as Model);

const plain = plainAttention(8, 8, 4);
const alibi = (heads: number, slopes: 'fixed' | 'learned' = 'fixed'): Attention => ({
  ...plain,
  num_heads: heads,
  position_encoding: { kind: 'alibi', slopes },
});
const at = (scalar: Scalar | null, score: number, query: number, key: number, head = 0) =>
  evaluator(scalar!)([score], { query, key, head });
const near = (got: number, expected: number) => assert.ok(Math.abs(got - expected) < 1e-12, `${got}, not ${expected}`);

/** What a head takes from a score for each position of distance. */
const slopes = (heads: number) =>
  Array.from({ length: heads }, (_, head) => -at(scoreOf(site, alibi(heads)), 0, 5, 4, head));

test('without a rule, the score is the scaled product', () => {
  assert.is(scoreOf(site, plain), null);
  assert.is(maskOf(site, plain), null);
});

test("ALiBi's slopes are the published ones", () => {
  const halves = [1, 2, 3, 4, 5, 6, 7, 8].map(n => 2 ** -n);
  slopes(8).forEach((slope, head) => void near(slope, halves[head]!));
  slopes(16).forEach((slope, head) => void near(slope, 2 ** (-(head + 1) / 2)));
  // As the authors' code gives them: those of 8 heads, then every second one of 16.
  const twelve = [...halves, ...[0.5, 1.5, 2.5, 3.5].map(n => 2 ** -n)];
  slopes(12).forEach((slope, head) => void near(slope, twelve[head]!));
  near(slopes(1)[0]!, 2 ** -8);
  near(at(scoreOf(site, alibi(8)), 0.25, 9, 2, 1), 0.25 - 7 / 4);
});

test('ALiBi, then the soft-cap, then the formula', () => {
  const all = scoreOf(site, { ...alibi(2), softcap: 3, score: 'twice' });
  near(at(all, 1.5, 7, 3, 1), 2 * 3 * Math.tanh((1.5 - 4 / 256) / 3));
  const softened = scoreOf(site, { ...plain, score: 'softened' });
  near(at(softened, -2, 3, 5, 1), ((-2 / 3) * 6) / 5);
});

test('a mask is a condition of query and key', () => {
  const mask = maskOf(site, { ...plain, mask: 'prefix' });
  assert.equal(
    [
      [3, 4],
      [70, 69],
      [70, 71],
      [0, 63],
      [0, 64],
    ].map(([query, key]) => at(mask, 0, query!, key!)),
    [1, 1, 0, 1, 0],
  );
});

test('a score that reduces is refused', () => {
  assert.throws(() => scoreOf(site, { ...plain, score: 'reduced' }), /reduces/);
});

const shapeOf = (score: Scalar | null): AttentionShape => ({
  scale: 1,
  causal: true,
  window: 0,
  score,
  mask: null,
  value_dim: 3,
  dropout: 0,
  extras: [],
});

test('a distance alone has a derivative of 1, and kernels do without one', () => {
  const shape = shapeOf(scoreOf(site, alibi(4)));
  assert.equal(scoreDerivative(shape, 'product'), constant(1));
  const { score, byProduct, bySlope, sees, kept } = pairFunctions('own', shape, ['product']);
  assert.match(score!.text, /^ {2}return score - .*\(\(float\)query - \(float\)key\);$/m);
  assert.equal(score!.reads, ['score', 'query', 'key', 'head']);
  assert.equal([byProduct, bySlope, sees, kept], [null, null, null, null]);
});

test("a head's learned slope is the score's second operand", () => {
  const shape: AttentionShape = { ...shapeOf(scoreOf(site, alibi(4, 'learned'))), extras: ['slopes'] };
  const coordinates = { query: 7, key: 3, head: 1 };
  assert.is(evaluator(shape.score!)([2, 0.25], coordinates), 1);
  assert.is(evaluator(scoreDerivative(shape, 'slope'))([2, 0.25], coordinates), -4);
  const { score, bySlope } = pairFunctions('own', shape, ['product', 'slope']);
  const place = { score: 's', slope: 'm', query: 'q', key: 'k', head: 'h', noise: 'n', sequence: 'b' };
  assert.is(score!.call(place), 'own_score(s, m, q, k)');
  assert.is(bySlope!.call(place), 'own_score_by_slope(q, k)');
});

test('attention refuses a mask beside `causal`, and a score of what it is not given', () => {
  const vectors = attention.cases[0]!.inputs[1]!;
  const builder = new Builder();
  const inputs = ['query', 'key', 'value'].map(name => builder.input(name, vectors.dimensions));
  const shape = { ...shapeOf(null), result: 'output' as const };
  const applied = (attributes: Partial<AttentionShape>) => () =>
    void builder.apply(attention, inputs, { ...shape, ...attributes });
  applied({})();
  assert.throws(applied({ mask: constant(1) }), /mask/);
  assert.throws(applied({ score: operand(1) }), /reads more/);
  assert.throws(applied({ value_dim: 4 }), /attention: \[/);
  assert.throws(applied({ extras: ['sinks'] }), /0 further inputs, not sinks/);
  assert.throws(applied({ dropout: 0.1 }), /noise/);
});

test.run();
