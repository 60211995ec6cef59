// Emits convolutions along time and the gradient of their weights, from the frames in templates/cpu.

import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { ProductKernel } from '../../kernels/kernel.ts';
import type { ConvolutionAttributes } from '../../ops/convolution.ts';
import { renderTemplate } from '../../template.ts';
import type { Argument, KernelSource, Surroundings } from './kernel-source.ts';

/** Channels of one task: some cache lines of each position. */
const lanes = 64;

export function emitConvolution(kernel: ProductKernel, surroundings: Surroundings): KernelSource {
  const [node] = kernel.members as [Node];
  const isGradient = kernel.kind === 'convolution-gradient';
  const weight = isGradient ? node : node.inputs[1]!;
  const [channels, taps] = weight.dimensions.map(dim => dim.size!) as [number, number];
  const fields = { name: ownName, origin: node.origin, channels, kernel: taps, memory: taps - 1, lanes };
  const inputs = node.inputs.map((input): Argument => ({ kind: 'input', node: input, name: input.label }));
  const sizes = texts('run->batch', 'run->time');
  const output: Argument = { kind: 'output', node, name: node.label };
  if (isGradient)
    return {
      text: renderTemplate('cpu/convolution_gradient.c.hbs', {
        ...fields,
        accumulates: surroundings.accumulates(node),
      }),
      arguments: [
        ...sizes,
        ...inputs,
        output,
        { kind: 'workspace', extents: [{ runtime: ['batch'], count: channels * taps }] },
      ],
    };
  const { reverse } = node.attributes as ConvolutionAttributes;
  const hasState = node.inputs.length > 2;
  return {
    text: renderTemplate('cpu/convolution.c.hbs', { ...fields, reverse }),
    arguments: [
      ...(hasState ? texts('run->sequences', 'run->time') : sizes),
      ...inputs,
      ...(hasState || reverse ? [] : texts('NULL', 'NULL')),
      output,
    ],
  };
}

const texts = (...list: string[]): Argument[] => list.map(text => ({ kind: 'text', text }));
