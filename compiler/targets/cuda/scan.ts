// Emits the selective scan, forward and backward, from the frames in templates/cuda: how its work is shared out to threads.
import { UserError } from '../../diagnostic.ts';
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { ScanKernel } from '../../kernels/kernel.ts';
import { type ScanAttributes, scanOperands } from '../../ops/scan.ts';
import type { ScanGradientAttributes } from '../../ops/scan-gradient.ts';
import { renderTemplate } from '../../template.ts';
import { type Argument, absent, type KernelSource, type Surroundings } from './kernel-source.ts';

/** Numbers of a state that one thread should have: enough to share what is computed for its channel. */
const fewNumbers = 4;
/** Threads of a block, and positions that are in shared memory at once, in order of preference. */
const choices = [
  [128, 16],
  [128, 8],
  [128, 4],
  [64, 4],
  [32, 4],
  [32, 2],
  [32, 1],
] as const;
/** Shared memory of a block: several run on a multiprocessor at once, or at least one does (163 KiB on sm_80). */
const wantedBytes = 64 * 1024;
const mostBytes = 160 * 1024;

const powerOfTwo = (least: number): number => 2 ** Math.ceil(Math.log2(least));

/**
 * How a scan of these sizes is shared out: see scan_layout in templates/cuda/scan.h.
 * @throws UserError where one position of one channel does not fit into shared memory
 */
function layoutOf(channels: number, states: number) {
  const lanes = Math.min(32, powerOfTwo(Math.ceil(states / fewNumbers)));
  const own = Math.ceil(states / lanes);
  const rows = lanes * own;
  const layouts = choices.map(([threads, chunk]) => {
    const width = threads / lanes;
    const tile = (signals: number) => 2 * chunk * (signals * width + 2 * rows);
    const backward = tile(3) + chunk * own * threads + (threads / 32) * chunk * 2 * rows;
    return {
      threads,
      chunk,
      blocks: Math.ceil(channels / width),
      forward_bytes: 4 * tile(2),
      backward_bytes: 4 * backward,
    };
  });
  const fits = (most: number) => layouts.find(({ backward_bytes }) => backward_bytes <= most);
  const layout = fits(wantedBytes) ?? fits(mostBytes);
  if (!layout)
    throw new UserError(
      `the target cuda has no room for a state of ${states} numbers for each channel (state_dim); use --target cpu`,
    );
  return { channels, states, lanes, own, values: powerOfTwo(2 * own), one_lane: lanes === 1, ...layout };
}

export function emitScan(kernel: ScanKernel, surroundings: Surroundings): KernelSource {
  const [first] = kernel.members as [Node];
  const rate = first.inputs[scanOperands.indexOf('a')]!;
  const [channels, states] = rate.dimensions.map(dim => dim.size!) as [number, number];
  const layout = layoutOf(channels, states);
  const fields = { name: ownName, origin: first.origin, ...layout };
  const inputs = first.inputs.map((node): Argument => ({ kind: 'input', node, name: node.label }));
  const made = (attribute: 'result' | 'of', value: string): Argument => {
    const node = kernel.members.find(
      member => (member.attributes as Partial<ScanAttributes & ScanGradientAttributes>)[attribute] === value,
    );
    return node ? { kind: 'output', node, name: value } : absent(`float *${value}`);
  };
  const launch = (sequences: string, bytes: number) => ({
    kernel: ownName,
    grid: `dim3(${sequences}, ${layout.blocks})`,
    block: String(layout.threads),
    shared: String(bytes),
  });
  const [batch, time]: Argument[] = [
    { kind: 'size', name: 'batch' },
    { kind: 'size', name: 'time' },
  ];
  if (kernel.kind === 'scan') {
    const decodes = inputs.length > scanOperands.length;
    const noStart = [absent('const float *start'), absent('const int32_t *ends')];
    return {
      text: renderTemplate('cuda/scan_forward.cu.hbs', fields),
      arguments: [time!, ...inputs, ...(decodes ? [] : noStart), made('result', 'output'), made('result', 'state')],
      launches: [launch(decodes ? 'sequences' : 'batch', layout.forward_bytes)],
    };
  }

  // The gradient of a is the only one that can be a parameter's own.
  const added = kernel.members
    .filter(surroundings.accumulates)
    .map(node => (node.attributes as ScanGradientAttributes).of);
  if (added.some(of => of !== 'a')) throw new Error(`scan-gradient: the gradient of ${added} cannot be accumulated`);
  const { blocks, threads, chunk, own } = layout;
  const runtime = ['batch', 'time'];
  const sums = `${channels * states} + 2 * batch * time * ${states}`;
  return {
    text: renderTemplate('cuda/scan_backward.cu.hbs', { ...fields, accumulates: added.length > 0 }),
    arguments: [
      batch!,
      time!,
      ...inputs,
      ...scanOperands.map(of => made('of', of)),
      {
        kind: 'workspace',
        extents: [
          // Parts of the gradient of a for each sequence, of b and c for each block of channels.
          { runtime: ['batch'], count: channels * states },
          { runtime, count: 2 * blocks * states },
          // The states before every chunk of positions, of which the last may be part of one.
          { runtime, count: Math.ceil((blocks * threads * own) / chunk) },
          { runtime: ['batch'], count: blocks * threads * own },
        ],
      },
    ],
    launches: [
      launch('batch', layout.backward_bytes),
      { kernel: `${ownName}_second`, grid: `(${sums} + 255) / 256`, block: '256', shared: '0' },
    ],
  };
}
