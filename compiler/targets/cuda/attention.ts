// Emits attention, forward, in decoding and backward: which kernel, of what, with which arguments.
import {
  attentionComment,
  attentionGradients,
  attentionResult,
  attentionSizes,
} from '../../emission/attention-kernel.ts';
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { AttentionKernel } from '../../kernels/kernel.ts';
import { type AttentionShape, extraInputs } from '../../ops/attention.ts';
import { backwardSource, decodingSource, forwardSource, partsOf } from './attention-source.ts';
import { type Argument, elementType, type KernelSource, type Surroundings } from './kernel-source.ts';

/** @throws Error where the kernel is no kernel of attention as `ops/attention.ts` makes them */
export function emitAttention(kernel: AttentionKernel, { dtype, storageOf }: Surroundings): KernelSource {
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionShape;
  const [query, key, value] = first.inputs as [Node, Node, Node];
  const sizes = attentionSizes(query, key, value);
  const type = (node: Node) => elementType(node, storageOf(node));
  const common = first.inputs.slice(0, kernel.kind === 'attention' ? 3 : 6);
  const { starts, ends, sinks, slopes, noise, training } = extraInputs(first.inputs.slice(common.length), shape.extras);
  // In the frames' order.
  const further = [sinks, slopes, noise, training].filter(node => node !== undefined).map(input);
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
    const workspace: Argument = { kind: 'workspace', extents: [{ runtime: ['batch', 'time'], count: sizes.heads }] };
    return {
      ...backwardSource(ownName, attentionComment(first), sizes, shape, bySlope !== undefined, dtype, storage),
      arguments: [
        ...runtimeSizes('batch', 'time'),
        ...[...common.map(input), ...further, ...gradients.map(output)],
        ...(bySlope ? [workspace] : []),
      ],
    };
  }
  const outputs = (['output', 'log_sum_exp'] as const).map(result => attentionResult(kernel, result));
  const storage = { ...operands, output: outputs[0] ? type(outputs[0]) : 'float' };
  const rest = [...common.map(input), ...outputs.map(node => (node ? output(node) : nothing)), ...further];
  if (!starts)
    return {
      ...forwardSource(ownName, attentionComment(first), sizes, shape, dtype, storage),
      arguments: [...runtimeSizes('batch', 'time'), ...rest],
    };
  const workspace: Argument = {
    kind: 'workspace',
    extents: [{ runtime: ['sequences'], count: partsOf(sizes, shape) }],
  };
  return {
    ...decodingSource(ownName, attentionComment(first), sizes, shape, dtype, storage),
    arguments: [
      ...runtimeSizes('batch', 'time', 'sequences', 'context'),
      ...[starts, ends!].map(input),
      ...rest,
      workspace,
    ],
  };
}

const runtimeSizes = (...names: string[]): Argument[] => names.map(name => ({ kind: 'size', name }));
const input = (node: Node): Argument => ({ kind: 'input', node, name: node.label });
const output = (node: Node): Argument => ({ kind: 'output', node, name: node.label });
const nothing: Argument = { kind: 'text', text: 'nullptr', declaration: 'float *' };
