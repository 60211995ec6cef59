// attention: softmax(score(scale q kᵀ)) v under a mask, with grouped queries, and the log-sum-exp of its scores.
// Vaswani et al. 2017; log-sum-exp for the backward pass as in FlashAttention (Dao et al. 2022); scores and masks as
// formulas of the pair, evaluated inside the kernel, as in FlexAttention (Dong et al. 2024); sinks as a logit of each
// head without a value (Xiao et al. 2023, arXiv:2309.17453, and gpt-oss).
import type { Builder } from '../graph/builder.ts';
import {
  batch,
  context,
  type Dimension,
  dimension,
  hasDimension,
  sameDimensions,
  sequences,
  showDimensions,
  time,
} from '../graph/dimension.ts';
import type { Node, Primitive, PrimitiveCase, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { differentiate } from '../scalar/differentiate.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  coordinatesOf,
  multiply,
  negate,
  operand,
  operandsOf,
  type Scalar,
  show,
  subtract,
} from '../scalar/expression.ts';
import { attentionGradient } from './attention-gradient.ts';
import { forEachRow } from './attention-rows.ts';
import { mapOver, sumMap, sumTo } from './map.ts';
import { isPerSequence } from './pieces.ts';
import { noiseWords } from './random.ts';
import { sum } from './reduce.ts';

/**
 * Inputs that may follow query, key and value.
 * - texts, i32 [sequences] and again: of each text that decoding goes on with, the position of its first query, and where
 *   its queries end among those of all. Keys and values are caches, filled up to each text's last query.
 * - sinks, f32 [heads]: a logit of each head that takes part in the softmax and has no value.
 * - slopes, f32 [heads]: operand 1 of the score.
 * - noise, i32 [noise], and after it `training`, f32 []: what dropout draws by, and whether it does: where not 0.
 * - documents, i32 [batch, time, bounds 2]: of each position, the first of its document and the first after it. A query sees
 *   no key of another document than its own.
 */
export type AttentionExtra = 'texts' | 'sinks' | 'slopes' | 'noise' | 'documents';

export interface AttentionShape {
  readonly scale: number;
  /** A query at p sees no key after p. False where there is a mask, which says it all. */
  readonly causal: boolean;
  /** A query at p sees no key before p - window + 1; 0 for all. With a mask, both must let it see the key. */
  readonly window: number;
  /**
   * What the softmax takes in place of the scaled score, which is operand 0; operand 1 is the head's slope. Null for
   * the scaled score itself.
   */
  readonly score: Scalar | null;
  /** Whether a query sees a key. One that sees none gets zeros. Null for no more than `causal` and `window`. */
  readonly mask: Scalar | null;
  /** Elements of a value vector that are used: the first ones. */
  readonly value_dim: number;
  /** Share of the probabilities that training drops; the others are divided by what is left. 0 without noise. */
  readonly dropout: number;
  /** The inputs that follow query, key and value, in order. */
  readonly extras: readonly AttentionExtra[];
}

/** Coordinates that scores and masks may read: positions of query and key in the text, and the query's head. */
export const pairCoordinates = ['query', 'key', 'head'] as const;

/** Head h's random numbers are those of site dropoutSite + h; the sites of a block's other dropouts are below. */
export const dropoutSite = 256;

/** Where a document begins, and where it ends. */
export const documentBounds: Dimension = dimension('bounds', 2);

/** d score / d scaled score, or d score / d slope. */
export const scoreDerivative = ({ score }: Pick<AttentionShape, 'score'>, by: 'product' | 'slope'): Scalar =>
  differentiate(score ?? operand(0), by === 'product' ? 0 : 1);

/** The inputs that each extra stands for. */
const inputsOf = {
  texts: ['starts', 'ends'],
  sinks: ['sinks'],
  slopes: ['slopes'],
  noise: ['noise', 'training'],
  documents: ['documents'],
} as const satisfies Record<AttentionExtra, readonly string[]>;

export type ExtraInputs<T> = Partial<Record<(typeof inputsOf)[AttentionExtra][number], T>>;

/** What follows the inputs that every attention has, by name. */
export function extraInputs<T>(further: readonly T[], extras: readonly AttentionExtra[]): ExtraInputs<T> {
  const names = extras.flatMap(extra => inputsOf[extra]);
  if (names.length !== further.length)
    throw new Error(`attention: ${further.length} further inputs, not ${names.join(', ')}`);
  return Object.fromEntries(names.map((name, n) => [name, further[n]!]));
}

export interface AttentionAttributes extends AttentionShape {
  /** The weighted values, or the log of the sum of exponentials of each query's scores. */
  readonly result: 'output' | 'log_sum_exp';
}

export const attention: Primitive<AttentionAttributes> = {
  name: 'attention',
  doc: 'softmax(score(scale q kᵀ)) v over the keys that the mask lets each query see; inputs q, k, v and extras.',
  kernel: 'attention',
  type(inputs, attributes) {
    const [query, key, value, ...further] = inputs as [Type, Type, Type, ...Type[]];
    const [, , queryHeads, queryDim] = query.dimensions;
    const [, , keyHeads, keyDim] = key.dimensions;
    const valueDim = value.dimensions[3];
    const { result, causal, score, mask, value_dim: width, dropout, extras } = attributes;
    const { starts, ends, sinks, slopes, noise, training, documents } = extraInputs(further, extras);
    const perHead = (input?: Type) => !input || sameDimensions(input.dimensions, [queryHeads!]);
    const fits =
      queryDim?.size === keyDim?.size &&
      (queryHeads?.size ?? 0) % (keyHeads?.size ?? 1) === 0 &&
      value.dimensions.length === 4 &&
      sameDimensions(value.dimensions.slice(0, 3), key.dimensions.slice(0, 3)) &&
      width <= (valueDim?.size ?? 0) &&
      hasDimension(key.dimensions, 'context') === (starts !== undefined) &&
      (!starts || (hasDimension(key.dimensions, 'sequences') && isPerSequence(starts) && isPerSequence(ends!))) &&
      perHead(sinks) &&
      perHead(slopes) &&
      (!noise || (sameDimensions(noise.dimensions, [noiseWords]) && training!.dimensions.length === 0)) &&
      (!documents ||
        (!starts && sameDimensions(documents.dimensions, [...query.dimensions.slice(0, 2), documentBounds])));
    if (!fits)
      throw new Error(
        `attention: ${inputs.map(input => showDimensions(input.dimensions)).join(', ')} (${extras.join(', ')})`,
      );
    if (causal && mask) throw new Error('attention: a mask takes the place of `causal`');
    if (dropout > 0 !== (noise !== undefined)) throw new Error('attention: dropout and noise go together');
    for (const [expression, operands] of [
      [score, slopes ? 2 : 1],
      [mask, 0],
    ] as const)
      if (expression && !readsOnly(expression, operands))
        throw new Error(`attention: a score or mask reads more than it is given: ${show(expression)}`);
    const rows = query.dimensions.slice(0, 3);
    const own: Dimension = width === queryDim!.size ? queryDim! : dimension('value_dim', width);
    return { dimensions: result === 'output' ? [...rows, own] : rows, dtype: 'f32' };
  },
  gradient({ builder, node, inputs, attributes: { result, ...shape }, gradient }) {
    const [query, key, value, ...further] = inputs as [Node, Node, Node, ...Node[]];
    const given = extraInputs(further, shape.extras);
    const { starts, sinks, slopes } = given;
    if (starts || result !== 'output')
      throw new Error('attention: only the output of attention without a cache is differentiated');
    const called = <T>(label: string, build: () => T): T => builder.within(label, node.origin, build);
    const logSumExp = called('log_sum_exp', () =>
      builder.apply(attention, inputs, { ...shape, result: 'log_sum_exp' }),
    );
    // delta = sum over a value's elements of output * gradient: the softmax gradient's row term (FlashAttention-2,
    // Dao 2023).
    const delta = called('delta', () => {
      const product = mapOver(builder, node.dimensions, multiply(operand(0), operand(1)), [node, gradient]);
      return sum(builder, product, [node.dimensions[3]!.name]);
    });
    // The sinks are in the log-sum-exp already.
    const extras = shape.extras.filter(extra => extra !== 'sinks');
    const rest = extras.flatMap(extra => inputsOf[extra].map(name => given[name]!));
    const gradientOf = (of: 'query' | 'key' | 'value' | 'slope') =>
      called(`attention_${of}_gradient`, () =>
        builder.apply(attentionGradient, [query, key, value, logSumExp, gradient, delta, ...rest], {
          ...shape,
          extras,
          of,
        }),
      );
    const sinkGradient = () =>
      called('sink_gradient', () => {
        const probability = apply('exp', subtract(operand(0), operand(1)));
        const expression = negate(multiply(probability, operand(2)));
        return sumMap(builder, logSumExp.dimensions, expression, [sinks!, logSumExp, delta], sinks!.dimensions);
      });
    const slopeGradient = () => called('slope_gradient', () => sumTo(builder, gradientOf('slope'), slopes!.dimensions));
    const gradients = { sinks: sinkGradient, slopes: slopeGradient };
    return [
      ...(['query', 'key', 'value'] as const).map(gradientOf),
      ...shape.extras.flatMap(extra =>
        extra === 'sinks' || extra === 'slopes' ? [gradients[extra]()] : inputsOf[extra].map(() => null),
      ),
    ];
  },
  reference(inputs, attributes, result, sizes) {
    const [query, key, value, ...further] = inputs as [Tensor, Tensor, Tensor, ...Tensor[]];
    const output = zeros(result.dimensions, sizes);
    const { value_dim: width, extras } = attributes;
    const stored = value.shape[3]!;
    forEachRow(query, key, extraInputs(further, extras), attributes, ({ place, pairs, logSumExp }) => {
      if (attributes.result === 'log_sum_exp') {
        output.data[place] = logSumExp;
        return;
      }
      for (const { source, score, kept } of pairs) {
        const weight = kept * Math.exp(score - logSumExp);
        for (let d = 0; d < width; d++) output.data[place * width + d]! += weight * value.data[source * stored + d]!;
      }
    });
    return output;
  },
  cases: attentionCases(),
};

/** Plain attention, windows, formulas of a pair, and each of the further inputs, alone and together. */
function attentionCases(): PrimitiveCase<AttentionAttributes>[] {
  const heads = dimension('heads', 4);
  const headDim = dimension('head_dim', 3);
  const vectors = (positions: Dimension, count: number, width: number): Type => ({
    dimensions: [
      positions === context ? sequences : batch,
      positions,
      dimension('kv_heads', count),
      dimension('head_dim', width),
    ],
    dtype: 'f32',
  });
  const query: Type = { dimensions: [batch, time, heads, headDim], dtype: 'f32' };
  const keys = vectors(time, 2, 3);
  const plain = [query, keys, keys];
  const perHead: Type = { dimensions: [heads], dtype: 'f32' };
  const noise = { dimensions: [noiseWords], dtype: 'i32', range: [0, 9] } satisfies PrimitiveCase<unknown>['inputs'][0];
  const training = { dimensions: [], dtype: 'f32', range: [1, 1] } satisfies PrimitiveCase<unknown>['inputs'][0];
  /** Of two sequences of six positions: documents of one, two, three and six. */
  const documents = {
    ...{ dimensions: [batch, time, documentBounds], dtype: 'i32' },
    values: [0, 2, 0, 2, 2, 3, 3, 6, 3, 6, 3, 6, ...Array.from({ length: 6 }, () => [0, 6]).flat()],
  } satisfies PrimitiveCase<unknown>['inputs'][0];
  const perText = (...values: number[]) => ({ dimensions: [sequences], dtype: 'i32', values }) as const;
  const usual: AttentionAttributes = {
    scale: 0.8,
    causal: true,
    window: 0,
    score: null,
    mask: null,
    value_dim: 3,
    dropout: 0,
    extras: [],
    result: 'output',
  };
  const [queryPosition, keyPosition, head] = pairCoordinates.map(coordinate) as [Scalar, Scalar, Scalar];
  const distance = subtract(queryPosition, keyPosition);
  /** 2 tanh((s - slope (query - key)) / 2). */
  const capped = (slope: Scalar) =>
    multiply(constant(2), apply('tanh', multiply(constant(0.5), subtract(operand(0), multiply(slope, distance)))));
  /** The past and, for the first heads, key 2. */
  const mask = apply(
    'or',
    apply('lessEqual', keyPosition, queryPosition),
    apply('and', apply('equal', keyPosition, constant(2)), apply('less', head, constant(2))),
  );
  /** Only what lies before: the first query sees nothing. */
  const past = apply('less', keyPosition, queryPosition);
  const score = capped(multiply(constant(0.3), add(head, constant(1))));
  const learned = subtract(operand(0), multiply(operand(1), distance));
  return [
    { inputs: plain, attributes: usual, sizes: { batch: 2, time: 4 } },
    { inputs: plain, attributes: { ...usual, window: 2 }, sizes: { batch: 1, time: 5 } },
    { inputs: plain, attributes: { ...usual, causal: false }, sizes: { batch: 1, time: 3 } },
    // A formula of everything that a score may read, and one of everything that a mask may.
    { inputs: plain, attributes: { ...usual, causal: false, window: 3, score, mask }, sizes: { batch: 2, time: 5 } },
    { inputs: plain, attributes: { ...usual, causal: false, mask: past }, sizes: { batch: 1, time: 3 } },
    // Values of another width than keys, narrower and wider, and of another than is used.
    {
      inputs: [query, keys, vectors(time, 2, 2)],
      attributes: { ...usual, value_dim: 2 },
      sizes: { batch: 2, time: 3 },
    },
    {
      inputs: [query, keys, vectors(time, 2, 5)],
      attributes: { ...usual, value_dim: 4 },
      sizes: { batch: 1, time: 9 },
    },
    { inputs: [...plain, perHead], attributes: { ...usual, extras: ['sinks'] }, sizes: { batch: 2, time: 4 } },
    {
      inputs: [...plain, perHead],
      attributes: { ...usual, causal: false, mask: past, extras: ['sinks'] },
      sizes: { batch: 1, time: 10 },
    },
    {
      inputs: [...plain, perHead],
      attributes: { ...usual, score: learned, extras: ['slopes'] },
      sizes: { batch: 2, time: 4 },
    },
    {
      inputs: [...plain, noise, training],
      attributes: { ...usual, dropout: 0.4, extras: ['noise'] },
      sizes: { batch: 2, time: 10 },
    },
    {
      inputs: [query, keys, vectors(time, 2, 4), perHead, perHead, noise, training],
      attributes: {
        ...usual,
        causal: false,
        window: 3,
        score: capped(operand(1)),
        mask,
        value_dim: 2,
        dropout: 0.25,
        extras: ['sinks', 'slopes', 'noise'],
      },
      sizes: { batch: 2, time: 6 },
    },
    { inputs: [...plain, documents], attributes: { ...usual, extras: ['documents'] }, sizes: { batch: 2, time: 6 } },
    // A mask that looks ahead stays within the document too.
    {
      inputs: [...plain, perHead, perHead, noise, training, documents],
      attributes: {
        ...usual,
        causal: false,
        window: 3,
        score: learned,
        mask,
        dropout: 0.25,
        extras: ['sinks', 'slopes', 'noise', 'documents'],
      },
      sizes: { batch: 2, time: 6 },
    },
    // Keys whose first elements are the values too, as in latent attention's decoding.
    {
      inputs: [
        ...[query, vectors(context, 1, 3), vectors(context, 1, 3)],
        ...[perText(3, 0, 5), perText(2, 2, 4), perHead],
      ],
      attributes: { ...usual, value_dim: 2, extras: ['texts', 'sinks'] },
      sizes: { batch: 1, time: 4, sequences: 3, context: 9 },
      decoding: true,
    },
    {
      inputs: [...[query, vectors(context, 2, 3), vectors(context, 2, 3)], ...[perText(3, 8), perText(9, 10), perHead]],
      attributes: { ...usual, score: learned, window: 6, extras: ['texts', 'slopes'] },
      sizes: { batch: 1, time: 10, sequences: 2, context: 12 },
      decoding: true,
    },
  ];
}

function readsOnly(expression: Scalar, operands: number): boolean {
  const known: readonly string[] = pairCoordinates;
  return (
    [...operandsOf(expression)].every(index => index < operands) &&
    [...coordinatesOf(expression)].every(name => known.includes(name))
  );
}

/** Attention over query, key, value and what the shape's extras say. */
export const attend = (builder: Builder, inputs: readonly Node[], shape: AttentionShape): Node =>
  builder.apply(attention, inputs, { ...shape, result: 'output' });
