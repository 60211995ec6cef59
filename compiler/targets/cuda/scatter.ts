// Emits scatter-add: the launches that order updates by their places, and those that add them. The device code is in
// templates/cuda/scatter.h.
import { countText } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { ownName, type Writer } from '../../emission/writer.ts';
import { constantCount } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { type Argument, type KernelSource, type Launch, overlappingParameterList } from './kernel-source.ts';

/** malc_updates_of_block of scatter.h; malc_slots_of_block and malc_sorting_threads of slots.h. */
const updatesOfBlock = 32;
const slotsOfBlock = 1024;
const sortingThreads = 256;
/** Bits of a place that one pass sorts by at most: each has a counter for each warp and value in shared memory. */
const mostBits = 9;
/** Left alone, ptxas would save registers for more than these 4 blocks of a multiprocessor at the price of spills. */
const sortingBounds = `${sortingThreads}, 4`;

interface Site {
  readonly writer: Writer;
  readonly node: Node;
  name(value: Node): string;
  /** Whether it is added to what the table holds. */
  readonly accumulates: boolean;
}

export function scatter({ writer, node, name, accumulates }: Site): Omit<KernelSource, 'text'> {
  const [indices, updates] = node.inputs as [Node, Node];
  const [index, from, to] = [name(indices), name(updates), name(node)];
  const rows = constantCount(node.dimensions.slice(0, 1));
  const width = constantCount(node.dimensions.slice(1));
  const count = countText(indices.dimensions);
  const { passes, bits } = passesOver(rows);
  const list: Argument[] = [
    ...sizeArguments([indices.dimensions]),
    { kind: 'input', node: indices, name: index },
    { kind: 'input', node: updates, name: from },
    { kind: 'output', node, name: to },
    { kind: 'workspace', extents: workspaceOf(indices, bits, width) },
  ];
  const launches: Launch[] = [];
  const kernel = (suffix: string, bounds: string, lines: readonly string[], launch: Omit<Launch, 'kernel'>) => {
    if (launches.length > 0) writer.line();
    const own = `${ownName}${suffix}`;
    writer.block(
      `static __global__ void __launch_bounds__(${bounds}) ${own}(${overlappingParameterList(list)})`,
      () => {
        for (const line of ['malc_follow();', ...lines]) writer.line(line);
      },
    );
    launches.push({ kernel: own, ...launch, overlaps: true });
  };
  const all = `malc_updates<${bits}, ${width}>(workspace, ${count})`;
  const perUpdate = { grid: `(${count} + 255) / 256`, block: '256', shared: '0' };
  const sorting = {
    grid: `malc_sorting_blocks(${count})`,
    block: String(sortingThreads),
    shared: `malc_sorting_bytes(${2 ** bits})`,
  };
  const threads = String(Math.min(256, Math.max(64, Math.ceil(width / (width % 4 === 0 ? 4 : 1) / 32) * 32)));
  const adding = { grid: `malc_scatter_blocks(${count})`, block: threads, shared: '0' };
  const order = `${all}.orders[${(passes - 1) % 2}]`;

  kernel('_digits', '256', [`malc_first_digits(${all}, ${index});`], perUpdate);
  for (let pass = 0; pass < passes; pass++) {
    kernel(`_count_${pass}`, sortingBounds, [`malc_count_digits<${pass}>(${all});`], sorting);
    kernel(`_order_${pass}`, sortingBounds, [`malc_order_by_digit<${pass}>(${all}, ${index});`], sorting);
  }
  if (!accumulates) {
    const each = 'const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;';
    kernel('_clear', '256', [each, `if (i < ${rows * width}) ${to}[i] = 0.0f;`], {
      ...perUpdate,
      grid: `${Math.ceil((rows * width) / 256)}`,
    });
  }
  kernel('', threads, [`malc_add_updates(${to}, ${all}, ${order}, ${index}, ${from});`], adding);
  kernel('_join', threads, [`malc_add_partials(${to}, ${all}, ${order}, ${index});`], adding);
  return { arguments: list, launches };
}

/** As few passes as there may be over the bits of a table's places, each by as many of them. */
function passesOver(rows: number): { readonly passes: number; readonly bits: number } {
  const all = Math.max(1, Math.ceil(Math.log2(rows)));
  const passes = Math.ceil(all / mostBits);
  return { passes, bits: Math.ceil(all / passes) };
}

/** malc_updates of scatter.h; a part of a block counts as one. */
function workspaceOf(indices: Node, bits: number, width: number): readonly Extent[] {
  const { runtime, count } = extentOf(indices.dimensions);
  return [
    { runtime, count: Math.ceil((count * width) / updatesOfBlock) + 4 * count },
    { runtime, count: Math.ceil((count * 2 ** bits) / slotsOfBlock) },
    { runtime: [], count: width + 2 ** bits },
  ];
}
