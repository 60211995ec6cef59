// Emits attention, forward, in decoding and backward: which kernel, of what, with which arguments.
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { AttentionKernel } from '../../kernels/kernel.ts';
import { type AttentionAttributes, type AttentionShape, extraInputs } from '../../ops/attention.ts';
import type { AttentionGradientAttributes } from '../../ops/attention-gradient.ts';
import { backwardSource, decodingSource, forwardSource, partsOf } from './attention-source.ts';
import { type Argument, elementType, type KernelSource, type Surroundings } from './kernel-source.ts';

/** @throws Error where the kernel is no kernel of attention as `ops/attention.ts` makes them */
export function emitAttention(kernel: AttentionKernel, { dtype, storageOf }: Surroundings): KernelSource {
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionShape;
  const [query, key, value] = first.inputs as [Node, Node, Node];
  const sizes = {
    heads: query.dimensions[2]!.size!,
    kvHeads: key.dimensions[2]!.size!,
    headDim: query.dimensions[3]!.size!,
    valueWidth: value.dimensions[3]!.size!,
  };
  const type = (node: Node) => elementType(node, storageOf(node));
  const common = first.inputs.slice(0, kernel.kind === 'attention' ? 3 : 6);
  const { starts, ends, sinks, slopes, noise, training } = extraInputs(first.inputs.slice(common.length), shape.extras);
  // In the frames' order.
  const further = [sinks, slopes, noise, training].filter(node => node !== undefined).map(input);
  const operands = { query: type(query), key: type(key), value: type(value) };
  if (kernel.kind === 'attention-gradient') {
    const gradients = gradientsOf(kernel);
    const [byQuery, byKey, byValue, bySlope] = gradients as [Node, Node, Node, Node?];
    const storage = {
      ...operands,
      output_gradient: type(first.inputs[4]!),
      query_gradient: type(byQuery),
      key_gradient: type(byKey),
      value_gradient: type(byValue),
    };
    const workspace: Argument = { kind: 'workspace', extents: [{ runtime: ['batch', 'time'], count: sizes.heads }] };
    return {
      ...backwardSource(ownName, comment(first), sizes, shape, bySlope !== undefined, dtype, storage),
      arguments: [
        ...runtimeSizes('batch', 'time'),
        ...[...common.map(input), ...further, ...gradients.map(output)],
        ...(bySlope ? [workspace] : []),
      ],
    };
  }
  const outputs = (['output', 'log_sum_exp'] as const).map(result => memberOf(kernel, result));
  const storage = { ...operands, output: outputs[0] ? type(outputs[0]) : 'float' };
  const rest = [...common.map(input), ...outputs.map(node => (node ? output(node) : nothing)), ...further];
  if (!starts)
    return {
      ...forwardSource(ownName, comment(first), sizes, shape, dtype, storage),
      arguments: [...runtimeSizes('batch', 'time'), ...rest],
    };
  const workspace: Argument = {
    kind: 'workspace',
    extents: [{ runtime: ['sequences'], count: partsOf(sizes, shape) }],
  };
  return {
    ...decodingSource(ownName, comment(first), sizes, shape, dtype, storage),
    arguments: [
      ...runtimeSizes('batch', 'time', 'sequences', 'context'),
      ...[starts, ends!].map(input),
      ...rest,
      workspace,
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

const runtimeSizes = (...names: string[]): Argument[] => names.map(name => ({ kind: 'size', name }));
const input = (node: Node): Argument => ({ kind: 'input', node, name: node.label });
const output = (node: Node): Argument => ({ kind: 'output', node, name: node.label });
const nothing: Argument = { kind: 'text', text: 'nullptr', declaration: 'float *' };

const memberOf = (kernel: AttentionKernel, result: AttentionAttributes['result']): Node | undefined =>
  kernel.members.find(member => (member.attributes as AttentionAttributes).result === result);

/** The kernel's outputs: of query, key and value all, of the slopes where it is wanted. */
function gradientsOf(kernel: AttentionKernel): Node[] {
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
