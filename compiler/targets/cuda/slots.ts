// Emits what is done with the choice of experts before anything is multiplied: top-k, within-capacity, and for grouped
// products (grouped.ts) the launches that sort slots by expert. The device code is in templates/cuda/top_k.h and slots.h.
import { countText } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { ownName, type Writer } from '../../emission/writer.ts';
import type { Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { TopKAttributes } from '../../ops/top-k.ts';
import type { CapacityAttributes } from '../../ops/within-capacity.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { type Storage, storedAsFloat } from '../../plan/storage.ts';
import { type Argument, type KernelSource, type Launch, overlappingParameterList } from './kernel-source.ts';

/** malc_sorting_threads and malc_slots_of_block of slots.h, and the threads of malc_top_k's rows. */
const sortingThreads = 256;
const slotsOfBlock = 1024;
const topKRows = 4;

/** One node to be emitted, and what its values are called. */
interface Site {
  readonly writer: Writer;
  readonly node: Node;
  name(value: Node): string;
}

type Emitted = Omit<KernelSource, 'text'>;

const kernelHead = (name: string, bounds: string, list: readonly Argument[], storageOf: Storage = storedAsFloat) =>
  `static __global__ void __launch_bounds__(${bounds}) ${name}(${overlappingParameterList(list, storageOf)})`;

/** All kernels here may overlap the launch before. */
function kernelFunction(writer: Writer, head: string, line: string): void {
  writer.block(head, () => {
    writer.line('malc_follow();');
    writer.line(line);
  });
}

/** Left alone, ptxas would save registers for more than these 4 blocks of a multiprocessor at the price of spills. */
const sortingBounds = `${sortingThreads}, 4`;

export function topK({ writer, node, name }: Site): Emitted {
  const { chosen, groups, top_groups, group_score } = node.attributes as TopKAttributes;
  const [scores] = node.inputs as [Node];
  const [from, to] = [name(scores), name(node)];
  const list: Argument[] = [
    ...sizeArguments([scores.dimensions]),
    { kind: 'input', node: scores, name: from },
    { kind: 'output', node, name: to },
  ];
  const rows = countText(scores.dimensions.slice(0, -1));
  const counted = group_score === 'top2' ? 2 : 1;
  const sizes = [scores.dimensions.at(-1)!.size, chosen.size, groups, top_groups, counted].join(', ');
  const threads = String(32 * topKRows);
  kernelFunction(writer, kernelHead(ownName, threads, list), `malc_top_k<${sizes}>(${to}, ${from}, ${rows});`);
  const grid = `(${rows} + ${topKRows - 1}) / ${topKRows}`;
  return { arguments: list, launches: [{ kernel: ownName, grid, block: threads, shared: '0', overlaps: true }] };
}

export function withinCapacity({ writer, node, name }: Site): Emitted {
  const { experts, limit } = node.attributes as CapacityAttributes;
  const [index] = node.inputs as [Node];
  const [from, to] = [name(index), name(node)];
  const list: Argument[] = [
    ...sizeArguments([node.dimensions]),
    { kind: 'input', node: index, name: from },
    { kind: 'output', node, name: to },
    { kind: 'workspace', extents: countsExtents(node.dimensions, experts) },
  ];
  const [slots, tokens] = [countText(node.dimensions), countText(node.dimensions.slice(0, -1))];
  const counting = countLaunch(
    writer,
    list,
    storedAsFloat,
    'reinterpret_cast<int32_t *>(workspace)',
    from,
    slots,
    experts,
  );
  const counts = 'reinterpret_cast<const int32_t *>(workspace)';
  const call = `malc_within_capacity<${experts}>(${to}, ${counts}, ${from}, ${slots}, ${limit}, ${tokens});`;
  kernelFunction(writer, kernelHead(ownName, sortingBounds, list), call);
  return { arguments: list, launches: [counting, sortingLaunch(ownName, slots, experts)] };
}

/**
 * The launches that leave slots sorted in the workspace, as malc_slots<experts> has them.
 * @param list what all launches of the kernel are handed, stored so
 * @param name what the choice is called there
 */
export function sortingLaunches(
  writer: Writer,
  list: readonly Argument[],
  storageOf: Storage,
  { dimensions }: Node,
  name: string,
  experts: number,
): readonly Launch[] {
  const slots = countText(dimensions);
  const declared = slotsText(dimensions, experts);
  const counting = countLaunch(writer, list, storageOf, `${declared}.counts`, name, slots, experts);
  const sort = `${ownName}_sort`;
  kernelFunction(writer, kernelHead(sort, sortingBounds, list, storageOf), `malc_sort_slots(${declared}, ${name});`);
  writer.line();
  return [counting, sortingLaunch(sort, slots, experts)];
}

/** Sorted slots, as C++ text: a value, or the declaration of a variable. */
export const slotsText = (index: readonly Dimension[], experts: number, variable = ''): string =>
  `malc_slots<${experts}>${variable && ` ${variable}`}(workspace, ${countText(index)})`;

/** What sorted slots need: numbers of four bytes, like floats. */
export const sortingExtents = (index: readonly Dimension[], experts: number): readonly Extent[] => [
  extentOf(index),
  { runtime: [], count: experts + 1 },
  ...countsExtents(index, experts),
];

/** Each block's counts: there is a block for each whole number of slots, and one for the rest. */
function countsExtents(index: readonly Dimension[], experts: number): readonly Extent[] {
  const { runtime, count } = extentOf(index);
  return [
    { runtime, count: Math.ceil((count * experts) / slotsOfBlock) },
    { runtime: [], count: experts },
  ];
}

function countLaunch(
  writer: Writer,
  list: readonly Argument[],
  storageOf: Storage,
  counts: string,
  index: string,
  slots: string,
  experts: number,
): Launch {
  const count = `${ownName}_count`;
  const call = `malc_count_slots<${experts}>(${counts}, ${index}, ${slots});`;
  kernelFunction(writer, kernelHead(count, sortingBounds, list, storageOf), call);
  writer.line();
  return sortingLaunch(count, slots, experts);
}

const sortingLaunch = (kernel: string, slots: string, experts: number): Launch => ({
  kernel,
  grid: `malc_sorting_blocks(${slots})`,
  block: String(sortingThreads),
  shared: `malc_sorting_bytes(${experts})`,
  overlaps: true,
});
