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
import { type AttentionSchedule, attentionSchedules, describeAttentionSchedule, onHopper } from './hopper-attention.ts';
import { type Argument, elementType, type KernelSource, type Surroundings } from './kernel-source.ts';

/**
 * The schedules that a backward pass can have on Hopper GPUs, best first; none where it runs there as on others.
 * @param anyOrder whether sums may be added up in the order in which they come
 */
export function attentionGradientSchedules(
  kernel: AttentionKernel,
  surroundings: Surroundings,
  anyOrder: boolean,
): readonly AttentionSchedule[] {
  const { sizes, shape, storage } = gradientOf(kernel, surroundings);
  return onHopper(sizes, shape, storage) ? attentionSchedules(sizes, shape, anyOrder) : [];
}

/**
 * @param schedule of a backward pass on Hopper GPUs; the first that `attentionGradientSchedules` returns where none is given
 * @throws Error where the kernel is no kernel of attention as `ops/attention.ts` makes them
 */
export function emitAttention(
  kernel: AttentionKernel,
  surroundings: Surroundings,
  schedule?: AttentionSchedule,
): KernelSource {
  const { dtype, storageOf } = surroundings;
  const [first] = kernel.members as [Node];
  const shape = first.attributes as AttentionShape;
  const [query, key, value] = first.inputs as [Node, Node, Node];
  const sizes = attentionSizes(query, key, value);
  const type = (node: Node) => elementType(node, storageOf(node));
  const [logSumExp, outputGradient, delta] = kernel.kind === 'attention' ? [] : first.inputs.slice(3);
  const common = inputs({ query, key, value, log_sum_exp: logSumExp, output_gradient: outputGradient, delta });
  const { starts, ends, ...rest } = extraInputs(first.inputs.slice(common.length), shape.extras);
  // In the frames' order.
  const { sinks, slopes, noise, training, documents } = rest;
  const further = inputs({ sinks, slopes, noise, training, documents });
  const operands = { query: type(query), key: type(key), value: type(value) };
  if (kernel.kind === 'attention-gradient') {
    const { gradients, storage } = gradientOf(kernel, surroundings);
    const [byQuery, byKey, byValue, bySlope] = gradients;
    const chosen = schedule ?? attentionGradientSchedules(kernel, surroundings, false)[0];
    const learned = bySlope !== undefined;
    const comment = attentionComment(first);
    const { workspace, ...source } = backwardSource(
      ...([ownName, comment, sizes, shape, learned, dtype, storage, chosen] as const),
    );
    return {
      ...source,
      ...(chosen ? { schedule: describeAttentionSchedule(chosen) } : {}),
      arguments: [
        ...runtimeSizes('batch', 'time'),
        ...[...common, ...further, output('query_gradient', byQuery), output('key_gradient', byKey)],
        output('value_gradient', byValue),
        ...(bySlope ? [output('slope_gradient', bySlope)] : []),
        ...(workspace.length > 0 ? [{ kind: 'workspace', extents: workspace } satisfies Argument] : []),
      ],
    };
  }
  const outputs = (['output', 'log_sum_exp'] as const).map(result => ({
    result,
    node: attentionResult(kernel, result),
  }));
  const storage = { ...operands, output: outputs[0]!.node ? type(outputs[0]!.node) : 'float' };
  const given = [...common, ...outputs.map(({ result, node }) => (node ? output(result, node) : nothing(result)))];
  if (!starts)
    return {
      ...forwardSource(ownName, attentionComment(first), sizes, shape, dtype, storage),
      arguments: [...runtimeSizes('batch', 'time'), ...given, ...further],
    };
  const workspace: Argument = {
    kind: 'workspace',
    extents: [{ runtime: ['sequences'], count: partsOf(sizes, shape) }],
  };
  return {
    ...decodingSource(ownName, attentionComment(first), sizes, shape, dtype, storage),
    arguments: [
      ...runtimeSizes('batch', 'time', 'sequences', 'context'),
      ...inputs({ starts, ends }),
      ...[...given, ...further, workspace],
    ],
  };
}

/** What a backward pass makes, of what sizes, and the C++ types of all vectors. */
function gradientOf(kernel: AttentionKernel, { storageOf }: Surroundings) {
  const [first] = kernel.members as [Node];
  const [query, key, value, , outputGradient] = first.inputs as [Node, Node, Node, Node, Node];
  const gradients = attentionGradients(kernel) as [Node, Node, Node, Node?];
  const [byQuery, byKey, byValue] = gradients;
  const type = (node: Node) => elementType(node, storageOf(node));
  return {
    gradients,
    sizes: attentionSizes(query, key, value),
    shape: first.attributes as AttentionShape,
    storage: {
      ...{ query: type(query), key: type(key), value: type(value), output_gradient: type(outputGradient) },
      ...{ query_gradient: type(byQuery), key_gradient: type(byKey), value_gradient: type(byValue) },
    },
  };
}

const runtimeSizes = (...names: string[]): Argument[] => names.map(name => ({ kind: 'size', name }));
/** Those of these inputs that there are, by the frames' names. */
const inputs = (named: Readonly<Record<string, Node | undefined>>): Argument[] =>
  Object.entries(named).flatMap(([name, node]) => (node ? [{ kind: 'input', node, name }] : []));
const output = (name: string, node: Node): Argument => ({ kind: 'output', node, name });
const nothing = (name: string): Argument => ({ kind: 'text', text: 'nullptr', declaration: `float *${name}` });
