// Emits attention, forward and backward, from the frames in templates/cpu.
import type { Node } from '../../graph/graph.ts';
import type { AttentionKernel } from '../../kernels/kernel.ts';
import { type AttentionAttributes, type AttentionShape, extraInputs } from '../../ops/attention.ts';
import type { AttentionGradientAttributes } from '../../ops/attention-gradient.ts';
import { renderTemplate } from '../../template.ts';
import { type PairFunction, type PairFunctions, type PairPlace, pairFunctions } from './attention-pairs.ts';
import { attentionScratch, keyBlock, queryBlock } from './block-sizes.ts';
import type { Argument, KernelSource } from './kernel-source.ts';
import { floatLiteral } from './scalar.ts';
import { ownName } from './writer.ts';

/** Sizes that a kernel of attention is compiled for. */
export interface AttentionSizes {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a query and of a key. */
  readonly headDim: number;
  /** Elements of a value vector, used or not. */
  readonly valueWidth: number;
}

export function emitAttention(kernel: AttentionKernel): KernelSource {
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionShape;
  const [query, key, value] = first.inputs as [Node, Node, Node];
  const sizes = {
    heads: query.dimensions[2]!.size!,
    kvHeads: key.dimensions[2]!.size!,
    headDim: query.dimensions[3]!.size!,
    valueWidth: value.dimensions[3]!.size!,
  };
  const scratch: Argument = {
    kind: 'scratch',
    floats: attentionScratch(sizes.headDim, shape.value_dim, shape.dropout > 0),
  };
  const common = first.inputs.slice(0, kernel.kind === 'attention' ? 3 : 6);
  const extras = extraInputs(first.inputs.slice(common.length), shape.extras);
  const { sinks, slopes, noise, training } = extras;
  // In the frames' order.
  const further = [sinks, slopes, noise, training].filter(node => node !== undefined).map(input);
  if (kernel.kind === 'attention-gradient') {
    const gradients = gradientsOf(kernel);
    return {
      text: backwardSource(ownName, comment(first), sizes, shape, gradients.length > 3),
      arguments: [...texts('run->batch', 'run->time'), ...common.map(input), ...further, ...gradients, scratch],
    };
  }
  return {
    text: forwardSource(ownName, comment(first), sizes, shape),
    arguments: [
      // Sequences and queries; keys and the first query's position; keys between two sequences.
      ...texts('run->batch', 'run->time'),
      ...(extras.start
        ? texts('run->start + run->time', 'run->start', 'run->context')
        : texts('run->time', '0', 'run->time')),
      ...common.map(input),
      memberOrNull(kernel, 'output'),
      memberOrNull(kernel, 'log_sum_exp'),
      ...further,
      scratch,
    ],
  };
}

/** Names no values but the kernel's own, so that decoding shares the kernel with training. */
function comment({ origin, attributes }: Node): string {
  const { scale, causal, window, score, mask } = attributes as AttentionAttributes;
  const seen = `${causal ? ', causal' : ''}${window > 0 ? `, window ${window}` : ''}${mask ? ', masked' : ''}`;
  const scores = `${scale.toPrecision(4)} query keyᵀ`;
  const weights = `softmax(${score ? `score(${scores})` : scores}${seen})`;
  return `${origin === '' ? '' : `${origin}: `}output = ${weights} value`;
}

/**
 * The forward kernel.
 * @param origin what the comment above it says
 */
export function forwardSource(name: string, origin: string, sizes: AttentionSizes, shape: AttentionShape): string {
  const functions = pairFunctions(name, shape, []);
  const { score, sees, kept } = functions;
  const calls = (place: PairPlace) => ({
    score: score?.call(place) ?? '',
    sees: sees?.call(place) ?? '',
    kept: kept?.call(place) ?? '',
  });
  return renderTemplate('cpu/attention_forward.c.hbs', {
    ...frameFields(name, origin, sizes, shape, functions),
    kept: kept !== null,
    block: calls(inBlock),
    few: calls(inFew),
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
): string {
  const functions = pairFunctions(name, shape, slopeGradient ? ['product', 'slope'] : ['product']);
  const { score, byProduct, bySlope, sees, kept } = functions;
  const isRead = (place: 'query' | 'key') =>
    [score, byProduct, bySlope, sees].some(each => each?.reads.includes(place));
  return renderTemplate('cpu/attention_backward.c.hbs', {
    ...frameFields(name, origin, sizes, shape, functions),
    score: score?.call(inBackward) ?? inBackward.score,
    sees: sees?.call(inBackward) ?? '',
    kept: kept?.call(inBlock) ?? '',
    rise: byProduct?.call(inBackward) ?? '',
    tilt: bySlope?.call(inBackward) ?? '',
    reads_query: isRead('query'),
    reads_key: isRead('key'),
    product_gradient: byProduct ? `scale f' dS` : 'scale dS',
  });
}

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
) {
  const all = (Object.values(functions) as (PairFunction | null)[]).filter(each => each !== null);
  const reads = (parameter: keyof PairPlace) => all.some(({ reads }) => reads.includes(parameter));
  const hasNoise = extras.includes('noise');
  const perHead = (['sinks', 'slopes'] as const).filter(extra => extras.includes(extra));
  const pointers = perHead.map(extra => `const float *${extra}`);
  const needsHead = perHead.length > 0 || reads('head');
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
    query_block: queryBlock,
    key_block: keyBlock,
    functions: all.map(({ text }) => text).join('\n'),
    sinks: extras.includes('sinks'),
    slopes: reads('slope'),
    // What the kernel is given besides, and what a block is given of it.
    extras: [...pointers, ...(hasNoise ? ['const int32_t *noise, const float *training'] : [])].join(', '),
    extras_comment: notes.join(' '),
    parameters: [
      ...(needsHead ? ['int32_t head'] : []),
      ...pointers,
      ...(hasNoise ? ['const int32_t *noise, int64_t sequence'] : []),
    ].join(', '),
    arguments: [...(needsHead ? ['(int32_t)h'] : []), ...perHead, ...(hasNoise ? ['noise, b'] : [])].join(', '),
  };
}

const texts = (...list: string[]): Argument[] => list.map(text => ({ kind: 'text', text }));
const input = (node: Node): Argument => ({ kind: 'input', node, name: node.label });

function memberOrNull(kernel: AttentionKernel, result: AttentionAttributes['result']): Argument {
  const node = kernel.members.find(member => (member.attributes as AttentionAttributes).result === result);
  return node ? { kind: 'output', node, name: result } : { kind: 'text', text: 'NULL' };
}

/** The kernel's outputs: of query, key and value all, of the slopes where it is wanted. */
function gradientsOf(kernel: AttentionKernel): Argument[] {
  const find = (of: AttentionGradientAttributes['of']) =>
    kernel.members.find(member => (member.attributes as AttentionGradientAttributes).of === of);
  const needed = (['query', 'key', 'value'] as const).map((of): Argument => {
    const node = find(of);
    if (!node) throw new Error(`attention's gradient of its ${of} is not wanted; the kernel computes all three`);
    return { kind: 'output', node, name: of };
  });
  const slope = find('slope');
  return slope ? [...needed, { kind: 'output', node: slope, name: 'slope' }] : needed;
}
