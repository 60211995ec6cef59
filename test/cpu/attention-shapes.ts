// The shapes of attention that test/cpu-attention.test.ts compiles: each as C functions of one signature.
import {
  type AttentionExtra,
  type AttentionShape as CompiledShape,
  pairCoordinates,
} from '../../compiler/ops/attention.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  multiply,
  operand,
  type Scalar,
  subtract,
} from '../../compiler/scalar/expression.ts';
import { backwardSource, forwardSource } from '../../compiler/targets/cpu/attention.ts';
import { attentionGradientRoom, attentionRoom } from '../../compiler/targets/cpu/block-sizes.ts';
import { randomNumbers } from '../random-numbers.ts';
import type { AttentionShape, PairRule } from './attention-reference.ts';
import type { Driver } from './build-kernels.ts';

const [query, key, head] = pairCoordinates.map(coordinate) as [Scalar, Scalar, Scalar];
const distance = subtract(query, key);
const capped = (slope: Scalar) =>
  multiply(constant(3), apply('tanh', multiply(constant(1 / 3), subtract(operand(0), multiply(slope, distance)))));

interface Rule {
  readonly rule: PairRule;
  readonly score: Scalar;
  readonly mask: Scalar | null;
}

// 3 tanh((s - 0.02 (head + 1) (query - key)) / 3) over the keys before the query and, in head 1, the first 40. Query 0
// of the other heads sees nothing.
const cappedRule: Rule = {
  rule: {
    learned: false,
    score: (s, _, q, k, h) => 3 * Math.tanh((s - 0.02 * (h + 1) * (q - k)) / 3),
    byProduct: (s, _, q, k, h) => 1 - Math.tanh((s - 0.02 * (h + 1) * (q - k)) / 3) ** 2,
    bySlope: () => 0,
    sees: (q, k, h) => k < q || (h === 1 && k < 40),
  },
  score: capped(multiply(constant(0.02), add(head, constant(1)))),
  mask: apply(
    'or',
    apply('less', key, query),
    apply('and', apply('equal', head, constant(1)), apply('less', key, constant(40))),
  ),
};

/** s - slope (query - key). */
const learnedRule: Rule = {
  rule: {
    learned: true,
    score: (s, slope, q, k) => s - slope * (q - k),
    byProduct: () => 1,
    bySlope: (_, __, q, k) => k - q,
    sees: () => true,
  },
  score: subtract(operand(0), multiply(operand(1), distance)),
  mask: null,
};

/** 3 tanh((s - slope (query - key)) / 3) over every key but the query's own. */
const learnedCappedRule: Rule = {
  rule: {
    learned: true,
    score: (s, slope, q, k) => 3 * Math.tanh((s - slope * (q - k)) / 3),
    byProduct: (s, slope, q, k) => 1 - Math.tanh((s - slope * (q - k)) / 3) ** 2,
    bySlope: (s, slope, q, k) => (k - q) * (1 - Math.tanh((s - slope * (q - k)) / 3) ** 2),
    sees: (q, k) => k !== q,
  },
  score: capped(operand(1)),
  mask: apply('not', apply('equal', key, query)),
};

const rules = [cappedRule, learnedRule, learnedCappedRule];

type Usual = 'pair' | 'sinks' | 'dropout' | 'documents' | 'valueDim' | 'valueWidth' | 'window' | 'causal';

function shape(given: Omit<AttentionShape, Usual> & Partial<AttentionShape>): AttentionShape {
  const valueDim = given.valueDim ?? given.dim;
  const usual = { causal: true, window: 0, pair: null, sinks: false, dropout: 0, documents: false };
  return { ...usual, valueDim, valueWidth: valueDim, ...given };
}

/** A shape of any sizes, with any of what attention may have. */
function randomShape(random: () => number): AttentionShape {
  const upTo = (most: number) => 1 + Math.floor(random() * most);
  const often = (share: number) => random() < share;
  const kvHeads = upTo(2);
  const valueDim = upTo(70);
  const { rule } = rules[upTo(rules.length) - 1]!;
  const pair = often(0.6) ? rule : null;
  return shape({
    heads: kvHeads * upTo(3),
    kvHeads,
    dim: upTo(70),
    valueDim,
    valueWidth: often(0.5) ? valueDim + upTo(40) : valueDim,
    window: often(0.4) ? 2 + upTo(120) : 0,
    causal: often(0.5) && (pair === null || pair === learnedRule.rule),
    pair,
    sinks: often(0.5),
    dropout: often(0.5) ? 0.9 * random() : 0,
  });
}

const random = randomNumbers(21);

/** The shapes of attention that the driver holds: forward_N and backward_N are of shape N. */
export const shapes: readonly AttentionShape[] = [
  shape({ heads: 4, kvHeads: 2, dim: 16 }),
  shape({ heads: 3, kvHeads: 1, dim: 40, window: 70 }),
  shape({ heads: 2, kvHeads: 2, dim: 7, causal: false }),
  shape({ heads: 6, kvHeads: 1, dim: 33, window: 5 }),
  shape({ heads: 2, kvHeads: 1, dim: 3, causal: false, window: 20 }),
  shape({ heads: 1, kvHeads: 1, dim: 256 }),
  shape({ heads: 4, kvHeads: 2, dim: 12, causal: false, pair: cappedRule.rule }),
  shape({ heads: 3, kvHeads: 3, dim: 8, causal: false, window: 30, pair: cappedRule.rule }),
  // Latent attention's: keys and values of different widths in training, keys that hold the values in decoding.
  shape({ heads: 2, kvHeads: 2, dim: 192, valueDim: 128 }),
  shape({ heads: 5, kvHeads: 1, dim: 576, valueDim: 512, valueWidth: 576 }),
  shape({ heads: 4, kvHeads: 1, dim: 24, pair: learnedRule.rule, sinks: true }),
  shape({ heads: 2, kvHeads: 1, dim: 16, dropout: 0.25, sinks: true }),
  ...Array.from({ length: 4 }, () => randomShape(random)),
  shape({ heads: 4, kvHeads: 2, dim: 16, documents: true }),
  shape({
    heads: 3,
    kvHeads: 1,
    dim: 12,
    window: 50,
    pair: learnedRule.rule,
    sinks: true,
    dropout: 0.25,
    documents: true,
  }),
  shape({ heads: 2, kvHeads: 1, dim: 9, causal: false, window: 30, pair: cappedRule.rule, documents: true }),
];

/** The scale of a shape's scores, as float32 has it. */
export const scaleOf = (shape: AttentionShape) => Math.fround(1 / Math.sqrt(shape.dim));

export const scratchOf = ({ dim, valueDim, dropout }: AttentionShape) =>
  Math.max(attentionRoom(dim, valueDim).floats, attentionGradientRoom(dim, valueDim, dropout > 0).floats);

/** Floats for each token in which gradients of keys and values are summed. */
export const workspaceOf = ({ kvHeads, dim, valueWidth }: AttentionShape) => kvHeads * (dim + valueWidth);

/**
 * Programs that a shape is compiled for: of float32 products; of bfloat16 ones, with vectors stored as float32, as
 * bfloat16, or keys and values as float32 and the rest as bfloat16.
 */
export const programs = ['f32', 'wide', 'narrow', 'mixed'] as const;
export type Program = (typeof programs)[number];

/** Whether a program stores as bfloat16 what is a query's own, or keys and values. */
export const isNarrow = (program: Program, own: boolean): boolean =>
  program === 'narrow' || (program === 'mixed' && own);

/** The shape as the compiler is asked for it. */
export function compiledShape(shape: AttentionShape): CompiledShape {
  const rule = rules.find(({ rule }) => rule === shape.pair);
  const extras: AttentionExtra[] = [];
  if (shape.sinks) extras.push('sinks');
  if (shape.pair?.learned) extras.push('slopes');
  if (shape.dropout > 0) extras.push('noise');
  if (shape.documents) extras.push('documents');
  return {
    scale: scaleOf(shape),
    causal: shape.causal,
    window: shape.window,
    score: rule?.score ?? null,
    mask: rule?.mask ?? null,
    value_dim: shape.valueDim,
    dropout: shape.dropout,
    extras,
  };
}

const sizes = 'int64_t batch, int64_t time';
const vectors = 'const void *query, const void *key, const void *value';
const further =
  'const float *sinks, const float *slopes, const int32_t *noise, const float *training, const int32_t *documents';
const forwardParameters =
  `int threads, ${sizes}, int64_t start, int64_t stride, ${vectors}, ` +
  `void *output, float *log_sum_exp, ${further}, float *scratch`;
const backwardParameters =
  `int threads, ${sizes}, ${vectors}, const float *log_sum_exp, const void *output_gradient, const float *delta, ` +
  `${further}, void *query_gradient, void *key_gradient, void *value_gradient, float *slope_gradient, ` +
  'float *workspace, float *scratch';

const headers = ['<stdbool.h>', '<stdint.h>', '<string.h>', '<omp.h>', '"math.h"', '"matmul.h"', '"random.h"'];

const agreement =
  '_Static_assert(MALC_QUERIES == QUERY_BLOCK && KEY_BLOCK % MALC_PANEL == 0, "block-sizes.ts agrees with attention.h");\n';

/**
 * The kernels of shapes in some programs, each behind a function that takes the number of threads first.
 * @param numbers of the shapes; all if not said
 */
export function attentionKernels(wanted: readonly Program[], numbers = shapes.map((_, n) => n)): Driver {
  const included = [...headers, '"sequences.h"', '"matmul_bf16.h"', '"attention.h"'];
  const sources = wanted.flatMap(program => numbers.map(n => sourceOf(shapes[n]!, n, program)));
  return {
    name: `attention-${wanted.join('-')}.c`,
    source: [...included.map(header => `#include ${header}\n`), agreement, ...sources].join(''),
    prototypes: Object.fromEntries(
      wanted.flatMap(program =>
        numbers.flatMap(n => [
          [`forward_${program}_${n}`, `void forward_${program}_${n}(${forwardParameters})`],
          [`backward_${program}_${n}`, `void backward_${program}_${n}(${backwardParameters})`],
        ]),
      ),
    ),
  };
}

function sourceOf(shape: AttentionShape, n: number, program: Program): string {
  const { heads, kvHeads, dim, valueWidth } = shape;
  const dimensions = { heads, kvHeads, headDim: dim, valueWidth };
  const compiled = compiledShape(shape);
  const has = (extra: AttentionExtra, text: string) => (compiled.extras.includes(extra) ? [text] : []);
  const extras = [...has('slopes', 'slopes'), ...has('noise', 'noise, training'), ...has('documents', 'documents')];
  const forward = [
    'batch, time, stride, decodes ? starts : NULL, decodes ? ends : NULL',
    'query, key, value, output, log_sum_exp',
    ...has('sinks', 'sinks'),
    ...extras,
    `scratch, ${scratchOf(shape)}`,
  ];
  const backward = [
    'batch, time, query, key, value, log_sum_exp, output_gradient, delta',
    ...extras,
    'query_gradient, key_gradient, value_gradient',
    ...has('slopes', 'slope_gradient'),
    ...(program === 'narrow' ? ['workspace'] : []),
    `scratch, ${scratchOf(shape)}`,
  ];
  const title = `Shape ${n} of the test.`;
  const withoutSinks = { ...compiled, extras: compiled.extras.filter(extra => extra !== 'sinks') };
  const learned = compiled.extras.includes('slopes');
  const dtype = program === 'f32' ? 'f32' : 'bf16';
  const [own, shared] = [true, false].map(isOwn => (isNarrow(program, isOwn) ? 'malc_bf16' : 'float')) as [
    string,
    string,
  ];
  const operands = { query: own, key: shared, value: shared };
  const gradients = { output_gradient: own, query_gradient: own, key_gradient: shared, value_gradient: shared };
  const name = `${program}_${n}`;
  return `${forwardSource(name, title, dimensions, compiled, dtype, { ...operands, output: own })}
${backwardSource(`${name}_gradient`, title, dimensions, withoutSinks, learned, dtype, { ...operands, ...gradients })}
void forward_${name}(${forwardParameters}) {
  (void)sinks, (void)slopes, (void)noise, (void)training, (void)documents;
  omp_set_num_threads(threads);
  int32_t starts[8], ends[8];
  for (int64_t b = 0; b < batch; b++) {
    starts[b] = (int32_t)start;
    ends[b] = (int32_t)((b + 1) * time);
  }
  const bool decodes = ${shared === 'float'} && (start > 0 || stride > time);
  ${name}(${forward.join(', ')});
}
void backward_${name}(${backwardParameters}) {
  (void)sinks, (void)slopes, (void)noise, (void)training, (void)documents, (void)slope_gradient, (void)workspace;
  omp_set_num_threads(threads);
  ${name}_gradient(${backward.join(', ')});
}
`;
}
