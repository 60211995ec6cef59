// Emits attention, forward and backward, from the frames in templates/cpu.
import {
  type AttentionGradientStorage,
  type AttentionSizes,
  type AttentionStorage,
  attentionComment,
  attentionGradients,
  attentionResult,
  attentionSizes,
} from '../../emission/attention-kernel.ts';
import {
  type PairFunction,
  type PairFunctions,
  type PairPlace,
  pairFunctions,
} from '../../emission/attention-pairs.ts';
import { floatLiteral } from '../../emission/scalar.ts';
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { AttentionKernel } from '../../kernels/kernel.ts';
import { type AttentionShape, extraInputs } from '../../ops/attention.ts';
import { renderTemplate } from '../../template.ts';
import {
  type AttentionRoom,
  attentionGradientRoom,
  attentionRoom,
  attentionScores,
  keyBlock,
  wholePanels,
} from './block-sizes.ts';
import { type Argument, elementType, type KernelSource, type ProductType, type Surroundings } from './kernel-source.ts';

/** @throws Error where the kernel is no kernel of attention as `ops/attention.ts` makes them */
export function emitAttention(kernel: AttentionKernel, { dtype, storageOf }: Surroundings): KernelSource {
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionShape;
  const [query, key, value] = first.inputs as [Node, Node, Node];
  const sizes = attentionSizes(query, key, value);
  const type = (node: Node) => elementType(node, storageOf(node));
  const common = first.inputs.slice(0, kernel.kind === 'attention' ? 3 : 6);
  const extras = extraInputs(first.inputs.slice(common.length), shape.extras);
  const { starts, ends, sinks, slopes, noise, training, documents } = extras;
  // In the frames' order.
  const further = [sinks, slopes, noise, training, documents].filter(node => node !== undefined).map(input);
  const operands = { query: type(query), key: type(key), value: type(value) };
  if (kernel.kind === 'attention-gradient') {
    const gradients = attentionGradients(kernel);
    const [byQuery, byKey, byValue, bySlope] = gradients as [Node, Node, Node, Node?];
    const storage = {
      ...operands,
      output_gradient: type(first.inputs[4]!),
      query_gradient: type(byQuery),
      key_gradient: type(byKey),
      value_gradient: type(byValue),
    };
    const sums = summedWidth(sizes, storage);
    const workspace: Argument = {
      kind: 'workspace',
      extents: [{ runtime: ['batch', 'time'], count: sizes.kvHeads * sums }],
    };
    return {
      text: backwardSource(ownName, attentionComment(first), sizes, shape, bySlope !== undefined, dtype, storage),
      arguments: [
        ...texts('run->batch', 'run->time'),
        ...[...common.map(input), ...further, ...gradients.map(output)],
        ...(sums > 0 ? [workspace] : []),
        scratch(attentionGradientRoom(sizes.headDim, shape.value_dim, shape.dropout > 0)),
      ],
    };
  }
  const outputs = (['output', 'log_sum_exp'] as const).map(result => attentionResult(kernel, result));
  return {
    text: forwardSource(ownName, attentionComment(first), sizes, shape, dtype, {
      ...operands,
      output: outputs[0] ? type(outputs[0]) : 'float',
    }),
    arguments: [
      // Sequences, and queries of the longest; keys from one sequence to the next; positions and ends of queries.
      ...(starts
        ? [...texts('run->sequences', 'run->longest', 'run->context'), input(starts), input(ends!)]
        : texts('run->batch', 'run->time', 'run->time', 'NULL', 'NULL')),
      ...common.map(input),
      ...outputs.map(node => (node ? output(node) : nothing)),
      ...further,
      scratch(attentionRoom(sizes.headDim, shape.value_dim)),
    ],
  };
}

/**
 * The forward kernel.
 * @param origin what the comment above it says
 */
export function forwardSource(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  dtype: ProductType,
  storage: AttentionStorage,
): string {
  const functions = pairFunctions(name, shape, []);
  const { score, sees, kept } = functions;
  const { scale } = shape;
  const calls = (place: PairPlace) => ({
    score: score?.call(place) ?? '',
    sees: sees?.call(place) ?? '',
    kept: kept?.call(place) ?? '',
  });
  const fields = frameFields(name, origin, sizes, shape, functions, dtype);
  // The greatest product is the greatest score only where nothing turns their order.
  const scaled = `${fields.scale} * ${inBlock.score}`;
  const isPlain = score === null && scale > 0;
  return renderTemplate('cpu/attention_forward.c.hbs', {
    ...fields,
    ...storage,
    at_once: attentionRoom(sizes.headDim, shape.value_dim).blocks,
    kept: kept !== null,
    block: { ...calls(inBlock), score: score?.call({ ...inBlock, score: scaled }) ?? (isPlain ? '' : scaled) },
    factor: floatLiteral(isPlain ? scale * Math.LOG2E : Math.LOG2E),
    ln_2: floatLiteral(Math.LN2),
    // Keys and values of few queries are read in place.
    few: storage.key === 'float' && storage.value === 'float' ? calls(inFew) : null,
    narrow_query: storage.query !== 'float',
    narrow_output: storage.output !== 'float',
  });
}

/**
 * The backward kernel.
 * @param shape without sinks, which the log-sum-exp holds
 * @param slopeGradient whether it computes the slopes' gradient too
 */
export function backwardSource(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  slopeGradient: boolean,
  dtype: ProductType,
  storage: AttentionGradientStorage,
): string {
  const functions = pairFunctions(name, shape, slopeGradient ? ['product', 'slope'] : ['product']);
  const { score, byProduct, bySlope, sees, kept } = functions;
  const isRead = (place: keyof PairPlace) =>
    [score, byProduct, bySlope, sees].some(each => each?.reads.includes(place));
  const { kvHeads, headDim, valueWidth } = sizes;
  const [sumsKeys, sumsValues] = [storage.key_gradient !== 'float', storage.value_gradient !== 'float'];
  const log2e = floatLiteral(Math.LOG2E);
  return renderTemplate('cpu/attention_backward.c.hbs', {
    ...frameFields(name, origin, sizes, shape, functions, dtype),
    ...storage,
    at_once: attentionGradientRoom(headDim, shape.value_dim, kept !== null).blocks,
    rooms: attentionScores(kept !== null),
    power: score
      ? `${log2e} * ${score.call(inBackward)}`
      : `${floatLiteral(shape.scale * Math.LOG2E)} * weights[j * lanes + lane]`,
    reads_product: isRead('score'),
    sees: sees?.call(inBackward) ?? '',
    kept: kept?.call(inBlock) ?? '',
    rise: byProduct?.call(inBackward) ?? '',
    tilt: bySlope?.call(inBackward) ?? '',
    reads_query: isRead('query'),
    reads_key: isRead('key') || shape.extras.includes('documents'),
    product_gradient: byProduct ? `scale f' dS` : 'scale dS',
    // Gradients of keys and values have many terms, which are added up in float32.
    summed: sumsKeys || sumsValues,
    workspace_width: summedWidth(sizes, storage),
    narrow_key_gradient: sumsKeys,
    narrow_value_gradient: sumsValues,
    key_sum: sumsKeys ? 'own' : 'key_gradient + source * dim',
    key_sum_row: sumsKeys ? headDim : kvHeads * headDim,
    value_sum: sumsValues ? `own${sumsKeys ? ' + time * dim' : ''}` : 'value_gradient + source * value_width',
    unused: valueWidth - shape.value_dim,
    value_sum_row: sumsValues ? valueWidth : kvHeads * valueWidth,
  });
}

/** Floats of each position in which a key head's gradients are summed that are stored as bfloat16. */
const summedWidth = ({ headDim, valueWidth }: AttentionSizes, storage: AttentionGradientStorage): number =>
  (storage.key_gradient === 'float' ? 0 : headDim) + (storage.value_gradient === 'float' ? 0 : valueWidth);

/** In a block, where each lane is a query. */
const inBlock: PairPlace = {
  score: 'scores[j * lanes + lane]',
  slope: 'slope',
  query: '(int32_t)position + lane',
  key: '(int32_t)(start + j)',
  head: 'head',
  noise: 'noise',
  sequence: 'sequence',
};

/** In a block of the backward pass, which asks more than one function. */
const inBackward: PairPlace = { ...inBlock, score: 'product', query: 'query_position', key: 'key_position' };

/** In the path of few queries, where each lane is a key. */
const inFew: PairPlace = {
  ...inBlock,
  score: 'own[j]',
  query: '(int32_t)position',
  key: '(int32_t)start + j',
  head: 'head + (int32_t)h',
};

/** What both frames are rendered with. */
function frameFields(
  name: string,
  origin: string,
  { heads, kvHeads, headDim, valueWidth }: AttentionSizes,
  { scale, causal, window, value_dim: valueDim, extras }: AttentionShape,
  functions: PairFunctions,
  dtype: ProductType,
) {
  const all = (Object.values(functions) as (PairFunction | null)[]).filter(each => each !== null);
  const reads = (parameter: keyof PairPlace) => all.some(({ reads }) => reads.includes(parameter));
  const hasNoise = extras.includes('noise');
  const masksDocuments = extras.includes('documents');
  const perHead = (['sinks', 'slopes'] as const).filter(extra => extras.includes(extra));
  const pointers = perHead.map(extra => `const float *${extra}`);
  const needsHead = perHead.length > 0 || reads('head');
  const passHead = reads('head') || reads('slope');
  const ofHead = needsHead ? ['int32_t head'] : [];
  const ofNoise = hasNoise ? ['const int32_t *noise, int64_t sequence'] : [];
  const ofDocuments = masksDocuments ? ['const int32_t *documents'] : [];
  const ownDocuments = masksDocuments ? ['documents + 2 * b * time'] : [];
  const notes = [
    ...(perHead.length > 0 ? [`${perHead.join(', ')}: [${heads}].`] : []),
    ...(hasNoise ? ['noise: what dropout draws by; it does where training is not 0.'] : []),
  ];
  const values = valueDim === headDim ? '' : `, values of ${valueDim}`;
  return {
    name,
    comment: origin,
    title: `${heads} query heads of ${headDim} elements over ${kvHeads} key heads${values}`,
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    value_dim: valueDim,
    value_width: valueWidth,
    scale: floatLiteral(scale),
    causal,
    window,
    whole_dim: wholePanels(headDim),
    whole_value_dim: wholePanels(valueDim),
    key_block: keyBlock,
    bf16: dtype === 'bf16',
    log2_e: floatLiteral(Math.LOG2E),
    functions: all.map(({ text }) => text).join('\n'),
    sinks: extras.includes('sinks'),
    slopes: reads('slope'),
    documents: masksDocuments,
    // What the kernel is given besides, what a task is given of it, and what a pass of keys is, which has no sinks.
    extras: [...pointers, ...(hasNoise ? ['const int32_t *noise, const float *training'] : []), ...ofDocuments].join(
      ', ',
    ),
    extras_comment: [
      ...(notes.length > 0 ? [notes.join(' ')] : []),
      ...(masksDocuments ? ['documents: [batch][time][2], where the document of each position begins and ends.'] : []),
    ].join('\n * '),
    task_parameters: [...ofHead, ...pointers, ...ofNoise, ...ofDocuments].join(', '),
    task_arguments: [
      ...(needsHead ? ['(int32_t)(shared * group)'] : []),
      ...perHead,
      ...(hasNoise ? ['noise, b'] : []),
      ...ownDocuments,
    ].join(', '),
    few_arguments: [
      ...(needsHead ? ['(int32_t)h'] : []),
      ...perHead,
      ...(hasNoise ? ['noise, b'] : []),
      ...ownDocuments,
    ].join(', '),
    parameters: [
      ...(passHead ? ['int32_t head'] : []),
      ...(reads('slope') ? ['const float *slopes'] : []),
      ...ofNoise,
      ...ofDocuments,
    ].join(', '),
    arguments: [
      ...(passHead ? ['head + (int32_t)block->head'] : []),
      ...(reads('slope') ? ['slopes'] : []),
      ...(hasNoise ? ['noise, sequence'] : []),
      ...(masksDocuments ? ['documents'] : []),
    ].join(', '),
  };
}

const texts = (...list: string[]): Argument[] => list.map(text => ({ kind: 'text', text }));
const input = (node: Node): Argument => ({ kind: 'input', node, name: node.label });

const nothing: Argument = { kind: 'text', text: 'NULL' };
const output = (node: Node): Argument => ({ kind: 'output', node, name: node.label });
const scratch = ({ floats }: AttentionRoom): Argument => ({ kind: 'scratch', floats });
