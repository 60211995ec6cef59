// What a kernel of attention is made of, for the emitters of every target: its sizes, its results, and what its comment says.
import type { Node } from '../graph/graph.ts';
import type { AttentionKernel } from '../kernels/kernel.ts';
import type { AttentionAttributes } from '../ops/attention.ts';
import type { AttentionGradientAttributes } from '../ops/attention-gradient.ts';

/** Sizes that a kernel of attention is compiled for. */
export interface AttentionSizes {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a query and of a key. */
  readonly headDim: number;
  /** Elements of a value vector, used or not. */
  readonly valueWidth: number;
}

/** How the vectors that a kernel of attention reads and leaves are stored: the types of their elements. */
export type AttentionStorage = Readonly<Record<'query' | 'key' | 'value' | 'output', string>>;
export type AttentionGradientStorage = Readonly<
  Record<'query' | 'key' | 'value' | 'output_gradient' | 'query_gradient' | 'key_gradient' | 'value_gradient', string>
>;

export function attentionSizes(query: Node, key: Node, value: Node): AttentionSizes {
  return {
    heads: query.dimensions[2]!.size!,
    kvHeads: key.dimensions[2]!.size!,
    headDim: query.dimensions[3]!.size!,
    valueWidth: value.dimensions[3]!.size!,
  };
}

/** Names no values but the kernel's own, so that decoding shares the kernel with training. */
export function attentionComment({ origin, attributes }: Node): string {
  const { scale, causal, window, score, mask, extras } = attributes as AttentionAttributes;
  const within = extras.includes('documents') ? ', within documents' : '';
  const seen = `${causal ? ', causal' : ''}${window > 0 ? `, window ${window}` : ''}${mask ? ', masked' : ''}${within}`;
  const scores = `${scale.toPrecision(4)} query keyᵀ`;
  const weights = `softmax(${score ? `score(${scores})` : scores}${seen})`;
  return `${origin === '' ? '' : `${origin}: `}output = ${weights} value`;
}

export const attentionResult = (kernel: AttentionKernel, result: AttentionAttributes['result']): Node | undefined =>
  kernel.members.find(member => (member.attributes as AttentionAttributes).result === result);

/**
 * The outputs of a backward kernel: of query, key and value all, of the slopes where it is wanted.
 * @throws Error where one of the three is not wanted
 */
export function attentionGradients(kernel: AttentionKernel): Node[] {
  const find = (of: AttentionGradientAttributes['of']) =>
    kernel.members.find(member => (member.attributes as AttentionGradientAttributes).of === of);
  const needed = (['query', 'key', 'value'] as const).map(of => {
    const node = find(of);
    if (!node) throw new Error(`attention's gradient of its ${of} is not wanted; the kernel computes all three`);
    return node;
  });
  const slope = find('slope');
  return slope ? [...needed, slope] : needed;
}
