// Emits the selective scan, forward and backward, from the frames in templates/cpu.

import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { ScanKernel } from '../../kernels/kernel.ts';
import { type ScanAttributes, scanOperands } from '../../ops/scan.ts';
import type { ScanGradientAttributes } from '../../ops/scan-gradient.ts';
import { renderTemplate } from '../../template.ts';
import type { Argument, KernelSource, Surroundings } from './kernel-source.ts';

/** Channels of one task, a vector lane each: two to eight vectors, which hide one another's latency. */
const lanes = 32;
/** Positions of which the backward pass holds the states at once: few enough for the first cache. */
const chunk = 64;

export function emitScan(kernel: ScanKernel, surroundings: Surroundings): KernelSource {
  const [first] = kernel.members as [Node];
  const rate = first.inputs[scanOperands.indexOf('a')]!;
  const [channels, states] = rate.dimensions.map(dim => dim.size!) as [number, number];
  const fields = { name: ownName, origin: first.origin, channels, states, lanes, chunk };
  const inputs = first.inputs.map((node): Argument => ({ kind: 'input', node, name: node.label }));
  const sizes = texts('run->batch', 'run->time');
  const made = (attribute: 'result' | 'of', value: string): Argument => {
    const node = kernel.members.find(
      member => (member.attributes as Partial<ScanAttributes & ScanGradientAttributes>)[attribute] === value,
    );
    return node ? { kind: 'output', node, name: value } : { kind: 'text', text: 'NULL' };
  };
  if (kernel.kind === 'scan')
    return {
      text: renderTemplate('cpu/scan_forward.c.hbs', fields),
      arguments: [
        ...(inputs.length > scanOperands.length ? texts('run->sequences', 'run->time') : sizes),
        ...inputs,
        ...(inputs.length > scanOperands.length ? [] : texts('NULL', 'NULL')),
        made('result', 'output'),
        made('result', 'state'),
        { kind: 'scratch', floats: 2 * states * lanes },
      ],
    };

  const blocks = Math.ceil(channels / lanes);
  // The gradient of a is the only one that can be a parameter's own.
  const added = kernel.members
    .filter(surroundings.accumulates)
    .map(node => (node.attributes as ScanGradientAttributes).of);
  if (added.some(of => of !== 'a')) throw new Error(`scan-gradient: the gradient of ${added} cannot be accumulated`);
  const runtime = ['batch', 'time'];
  return {
    text: renderTemplate('cpu/scan_backward.c.hbs', { ...fields, accumulates: added.length > 0 }),
    arguments: [
      ...sizes,
      ...inputs,
      ...scanOperands.map(of => made('of', of)),
      {
        kind: 'workspace',
        extents: [
          // Parts of the gradient of a for each sequence, of b and c for each block of channels.
          { runtime: ['batch'], count: channels * states },
          { runtime, count: 2 * blocks * states },
          // The states before every chunk of positions, of which the last may be part of one.
          { runtime, count: Math.ceil((blocks * states * lanes) / chunk) },
          { runtime: ['batch'], count: blocks * states * lanes },
        ],
      },
      { kind: 'scratch', floats: lanes * (4 * states + 8 * chunk + 1) },
    ],
  };
}

const texts = (...list: string[]): Argument[] => list.map(text => ({ kind: 'text', text }));
