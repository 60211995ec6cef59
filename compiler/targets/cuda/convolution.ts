// Emits convolutions along time and the gradient of their weights, from the frames in templates/cuda.
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { ProductKernel } from '../../kernels/kernel.ts';
import type { ConvolutionAttributes } from '../../ops/convolution.ts';
import { renderTemplate } from '../../template.ts';
import { type Argument, absent, elementType, type KernelSource, type Surroundings } from './kernel-source.ts';

/** Channels of a block at most, a thread each. */
const most = 128;
/** Positions of a thread, and taps of a filter that it holds at most: as in templates/cuda/convolution.h. */
const positions = 8;
const heldTaps = 16;
/** Parts of a sum over all positions at most: malc_parts of templates/cuda/rows.h. */
const mostParts = 256;

export function emitConvolution(kernel: ProductKernel, surroundings: Surroundings): KernelSource {
  const [node] = kernel.members as [Node];
  const isGradient = kernel.kind === 'convolution-gradient';
  const weight = isGradient ? node : node.inputs[1]!;
  const [channels, taps] = weight.dimensions.map(dim => dim.size!) as [number, number];
  const threads = Math.min(most, 32 * Math.ceil(channels / 32));
  const typeOf = (value: Node) => elementType(value, surroundings.storageOf(value));
  const types = { x_type: typeOf(node.inputs[0]!), y_type: typeOf(isGradient ? node.inputs[1]! : node) };
  const fields = { ...types, name: ownName, origin: node.origin, channels, taps, memory: taps - 1, threads };
  const blocks = Math.ceil(channels / threads);
  const common = { block: String(threads), shared: '0' };
  const sizes = [
    { kind: 'size', name: 'batch' },
    { kind: 'size', name: 'time' },
  ] as const;
  const inputs = node.inputs.map((input): Argument => ({ kind: 'input', node: input, name: input.label }));
  const output: Argument = { kind: 'output', node, name: node.label };
  if (isGradient) {
    const grid = `dim3(malc_parts(batch * time), ${blocks}, ${Math.ceil(taps / heldTaps)})`;
    const second = { kernel: `${ownName}_second`, grid: String(Math.ceil((channels * taps) / 256)), block: '256' };
    const accumulates = surroundings.accumulates(node);
    return {
      text: renderTemplate('cuda/convolution_gradient.cu.hbs', { ...fields, accumulates }),
      arguments: [
        ...sizes,
        ...inputs,
        output,
        { kind: 'workspace', extents: [{ runtime: [], count: mostParts * channels * taps }] },
      ],
      launches: [
        { ...common, kernel: ownName, grid },
        { ...second, shared: '0' },
      ],
    };
  }
  const { reverse } = node.attributes as ConvolutionAttributes;
  const noState = [absent('const float *state'), absent('const int32_t *ends')];
  const grid = `dim3((batch * time + ${positions - 1}) / ${positions}, ${blocks})`;
  return {
    text: renderTemplate('cuda/convolution.cu.hbs', { ...fields, reverse }),
    arguments: [...sizes, ...inputs, ...(node.inputs.length > 2 ? [] : noState), output],
    launches: [{ ...common, kernel: ownName, grid }],
  };
}
