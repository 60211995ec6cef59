// Emits attention, forward and backward, from the frames in templates/cpu.
import type { Node } from '../../graph/graph.ts';
import type { AttentionKernel } from '../../kernels/kernel.ts';
import { type AttentionAttributes, type AttentionShape, scoreSlope } from '../../ops/attention.ts';
import type { AttentionGradientAttributes } from '../../ops/attention-gradient.ts';
import type { Scalar } from '../../scalar/expression.ts';
import { renderTemplate } from '../../template.ts';
import { attentionScratch, keyBlock, queryBlock } from './block-sizes.ts';
import type { Argument, KernelSource } from './kernel-source.ts';
import { floatLiteral, printCondition, printScalar, type Spelling } from './scalar.ts';
import { ownName } from './writer.ts';

export function emitAttention(kernel: AttentionKernel): KernelSource {
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionAttributes;
  const [query, key] = first.inputs as [Node, Node];
  const headDim = query.dimensions[3]!.size!;
  const fields = {
    name: ownName,
    comment: comment(first),
    heads: query.dimensions[2]!.size!,
    kv_heads: key.dimensions[2]!.size!,
    head_dim: headDim,
    scale: floatLiteral(shape.scale),
    causal: shape.causal,
    window: shape.window,
    ...pairFunctions(shape),
    query_block: queryBlock,
    key_block: keyBlock,
  };
  const scratch: Argument = { kind: 'scratch', floats: attentionScratch(headDim) };
  if (kernel.kind === 'attention-gradient')
    return {
      text: renderTemplate('cpu/attention_backward.c.hbs', fields),
      arguments: [...texts('run->batch', 'run->time'), ...first.inputs.map(input), ...gradients(kernel), scratch],
    };
  const cached = first.inputs.length === 4;
  return {
    text: renderTemplate('cpu/attention_forward.c.hbs', fields),
    arguments: [
      // Sequences and queries; keys and the first query's position; keys between two sequences.
      ...texts('run->batch', 'run->time'),
      ...(cached
        ? texts('run->start + run->time', 'run->start', 'run->context')
        : texts('run->time', '0', 'run->time')),
      ...first.inputs.slice(0, 3).map(input),
      memberOrNull(kernel, 'output'),
      memberOrNull(kernel, 'log_sum_exp'),
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

/** Bodies of the functions of a query and a key that the frames are given, in C; '' for what the kernel does without. */
export interface PairFunctions {
  readonly score: string;
  readonly slope: string;
  readonly mask: string;
  /** Whether there is any of them: only then does a block need to know its head. */
  readonly by_pair: boolean;
}

/** A shape's score, its derivative and its mask as bodies of C functions. */
export function pairFunctions(shape: AttentionShape): PairFunctions {
  const slope = scoreSlope(shape);
  return {
    score: shape.score ? functionBody(shape.score, printScalar) : '',
    slope: slope ? functionBody(slope, printScalar) : '',
    mask: shape.mask ? functionBody(shape.mask, printCondition) : '',
    by_pair: shape.score !== null || shape.mask !== null,
  };
}

const pairSpelling: Spelling = { operand: () => 'score', coordinate: name => name };

function functionBody(scalar: Scalar, print: typeof printScalar): string {
  const lines: string[] = [];
  const result = print(scalar, pairSpelling, text => {
    const name = `part_${lines.length}`;
    lines.push(`const float ${name} = ${text};`);
    return name;
  });
  return [...lines, `return ${result};`].join('\n  ');
}

const texts = (...list: string[]): Argument[] => list.map(text => ({ kind: 'text', text }));
const input = (node: Node): Argument => ({ kind: 'input', node, name: node.label });

function memberOrNull(kernel: AttentionKernel, result: AttentionAttributes['result']): Argument {
  const node = kernel.members.find(member => (member.attributes as AttentionAttributes).result === result);
  return node ? { kind: 'output', node, name: result } : { kind: 'text', text: 'NULL' };
}

function gradients(kernel: AttentionKernel): Argument[] {
  return (['query', 'key', 'value'] as const).map(of => {
    const node = kernel.members.find(member => (member.attributes as AttentionGradientAttributes).of === of);
    if (!node) throw new Error(`attention's gradient of its ${of} is not wanted; the kernel computes all three`);
    return { kind: 'output', node, name: of };
  });
}
