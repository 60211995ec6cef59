// How a group's elements are finished on Hopper GPUs (templates/cuda/product_sm90_finish.h): in registers where no element
// needs another column's sums, and which tensors then pass through shared memory, brought and left by TMA.
import { countText } from '../../emission/index-text.ts';
import { constantCount, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, stored } from '../../kernels/kernel.ts';
import { type ElementStorage, storedDimensions } from '../../plan/storage.ts';
import { finishedAtOnce } from './finish.ts';
import { elementType, type Surroundings, type TensorMap } from './kernel-source.ts';
import type { GroupPlan } from './product-plan.ts';
import { statisticType } from './statistics.ts';

export interface Passing {
  readonly node: Node;
  /**
   * - `brought`, `left`: it lies like the result, and has boxes of each slot
   * - `apart`: it is left from boxes that all slots have in common
   * - `summed`: one of sums over its rows, which a warp makes of its own
   * - `measured`: a warp measures its own rows for statistics
   */
  readonly way: 'brought' | 'left' | 'apart' | 'summed' | 'measured';
  readonly storage: ElementStorage;
  /** Its first box of a slot, or of those that are apart. One that is left may have those of one that is brought. */
  readonly box: number;
}

/** Rows of a box, and its bytes of a row. */
const [boxRows, boxBytes] = [64, 128];
/** Boxes of a slot at most, and of two that bring ahead: three stages of the largest tiles fit besides. */
const mostBoxes = 5;

const boxesOf = (storage: ElementStorage): number => (storage === 'f32' ? 2 : 1);

/**
 * The tensors that pass through shared memory while a group is finished in place; null where it cannot be: four elements
 * must lie side by side, of which a thread has two, and need no partner of other columns. Nor are random numbers drawn there:
 * those of many elements at once take more registers than there are.
 */
export function passingOf(plan: GroupPlan, surroundings: Surroundings): readonly Passing[] | null {
  const { group, way, atOnce } = plan;
  if (atOnce !== 4) return null;
  if (way === 'later') return [];
  const { epilogue, products, outputs } = group;
  const used = epilogue.flatMap(node => [node, ...node.inputs]);
  if (used.some(({ primitive }) => primitive?.name === 'pair' || primitive?.name === 'random')) return null;
  const made = new Set([...products, ...epilogue]);
  const read = new Set(epilogue.flatMap(node => node.inputs.flatMap(stored)).filter(node => !made.has(node)));
  const passes = (node: Node) => liesLikeResult(node, group, surroundings);
  const passing: Passing[] = [];
  let end = 0;
  for (const node of [...read].filter(passes)) {
    const storage = surroundings.storageOf(node);
    if (end + boxesOf(storage) > mostBoxes) continue;
    passing.push({ node, way: 'brought', storage, box: end });
    end += boxesOf(storage);
  }
  const free = [...passing];
  const alone: { node: Node; storage: ElementStorage; boxes: number }[] = [];
  for (const node of outputs.filter(output => !surroundings.accumulates(output) && passes(output))) {
    const storage = surroundings.storageOf(node);
    const place = free.findIndex(other => other.storage === storage);
    if (place < 0) alone.push({ node, storage, boxes: boxesOf(storage) });
    else passing.push({ node, way: 'left', storage, box: free.splice(place, 1)[0]!.box });
  }
  // Two slots, so that one is brought while the other is finished, may fit if what is only left has no place in them.
  const further = alone.reduce((sum, { boxes }) => sum + boxes, 0);
  const areApart = end > 0 && 2 * (end + further) > mostBoxes && 2 * end + further <= mostBoxes;
  let next = areApart ? 0 : end;
  for (const { node, storage, boxes } of alone) {
    if (next + boxes > mostBoxes) continue;
    passing.push({ node, way: areApart ? 'apart' : 'left', storage, box: next });
    next += boxes;
  }
  if (finishedAtOnce(group) === 4)
    for (const node of group.totals) passing.push({ node, way: 'summed', storage: 'f32', box: 0 });
  if (group.statistics) passing.push({ node: group.statistics.of, way: 'measured', storage: 'f32', box: 0 });
  return passing;
}

/** Whether a tensor is a matrix of the group's rows and columns, in runs of whole 16 bytes. */
function liesLikeResult(node: Node, { rows, columns }: MatmulGroup, { storageOf }: Surroundings): boolean {
  const storage = storageOf(node);
  const run = constantCount(storedDimensions(node, storage).slice(rows.length));
  const isMatrix = node.dtype === 'f32' && sameDimensions(node.dimensions, [...rows, ...columns]);
  return isMatrix && (run * (storage === 'f32' ? 4 : 2)) % 16 === 0;
}

/** Whether it passes through boxes. */
export const isBoxed = ({ way }: Passing): boolean => way === 'brought' || way === 'left' || way === 'apart';

/** Boxes of a slot that has them all, and of the slots that are worth having: what is brought, is best brought ahead. */
export function boxesFor(passing: readonly Passing[]): { readonly least: number; readonly best: number } {
  const boxes = (ways: readonly Passing['way'][]) =>
    Math.max(0, ...passing.filter(({ way }) => ways.includes(way)).map(({ box, storage }) => box + boxesOf(storage)));
  const [slot, apart] = [boxes(['brought', 'left']), boxes(['apart'])];
  const least = slot + apart;
  return { least, best: passing.some(({ way }) => way === 'brought') ? least + slot : least };
}

/** The tensor map of one. */
export function passingMap({ node, storage }: Passing, { rows, columns }: MatmulGroup, name: string, base: string) {
  const run = storedDimensions(node, storage).slice(rows.length);
  return {
    name,
    base,
    sizes: [countText(columns), countText(rows)],
    strides: [countText(run)],
    box: { columns: boxBytes / (storage === 'f32' ? 4 : 2), rows: boxRows },
  } satisfies TensorMap;
}

/** The C++ type of one of a group: malc_passing, malc_summed or malc_measured. */
export function passingType({ node, way, storage, box }: Passing, group: MatmulGroup): string {
  if (way === 'measured') return `malc_measured<${statisticType(group)}>`;
  if (way === 'summed') return 'malc_summed';
  return `malc_passing<${[`malc_way::${way}`, elementType(node, storage), box].join(', ')}>`;
}

/** The C++ parameter that is two of its elements. */
export const passingParameter = ({ node, way, storage }: Passing, name: string): string =>
  `${way === 'brought' ? 'const ' : ''}malc_two<${elementType(node, storage)}> &${name}`;
