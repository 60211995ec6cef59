// Products that cuBLASLt multiplies where a machine has it (templates/cuda/cublas.h): which kernels can have it so, and what
// it is told. It leaves a result where it belongs, or, where an epilogue follows, sums for a launch of our own to finish.
import { countText, plus, times } from '../../emission/index-text.ts';
import { constantCount, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { MatmulGroup } from '../../kernels/kernel.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { storedDimensions } from '../../plan/storage.ts';
import { finishedAtOnce } from './finish.ts';
import type { LibraryOperand, LibraryProduct, Surroundings } from './kernel-source.ts';
import { columnCount, type GroupPlan, type Operand, workspaceAt } from './product-plan.ts';

/** Floats of the workspace that are the library's own, before the sums: malc_cublas_floats of cublas.h. */
const ownFloats = (32 * 2 ** 20) / Float32Array.BYTES_PER_ELEMENT;

export interface LibraryPlan {
  /** What the second launch finishes: groups whose sums go to the workspace. */
  readonly later: readonly GroupPlan[];
  readonly products: readonly LibraryProduct[];
  readonly workspace: readonly Extent[];
}

/**
 * How a kernel's products are handed to the library; null where it cannot have them all: operands are of bfloat16 in
 * memory, and they and the results lie in rows of whole pieces of 16 bytes.
 * @param plans those that the kernels for all GPUs follow
 * @param nameOf the argument that an operand is, or an output
 */
export function planForLibrary(
  plans: readonly GroupPlan[],
  surroundings: Surroundings,
  nameOf: { operand(operand: Operand): string; output(node: Node): string },
): LibraryPlan | null {
  const all = plans.flatMap(({ products }) => products);
  const areBrought = all.every(
    ({ kind, left, right }) =>
      kind === 'bf16' && [left, right].every(({ storage, aligned }) => storage === 'bf16' && aligned === 8),
  );
  if (!areBrought) return null;
  const later = plans.filter(({ group }) => !isPlain(group)).map(asLater);
  const ofPlain = plans.filter(({ group }) => isPlain(group)).map(({ group }) => plainResult(group, surroundings));
  if (ofPlain.includes(null) || later.some(({ group }) => columnCount(group) % 4 !== 0)) return null;
  const side = (operand: Operand): LibraryOperand => {
    const { run, stride } = operand;
    return { base: nameOf.operand(operand), stride, run };
  };
  const products = plans.flatMap(plan => {
    const { group, sums } = plan;
    const [rows, columns] = [countText(group.rows), countText(group.columns)];
    const before = workspaceAt(later, later.find(each => each.group === group) ?? plan);
    return plan.products.map(({ node, left, right, inner }): LibraryProduct => {
      // Products that are added to others have no sums of their own.
      const number = sums.get(node) ?? null;
      const offset = plus([before, times(String(number ?? 0), times(rows, columns))]);
      const toSums = { output: null, offset, stride: columns, narrow: false, adds: String(number === null) };
      const plain = isPlain(group) ? plainResult(group, surroundings)! : null;
      return {
        sizes: [rows, columns, countText(inner)],
        left: side(left),
        right: side(right),
        result: plain ? { ...plain, output: nameOf.output(node) } : toSums,
      };
    });
  });
  const sums = later.map(({ group, products: { length } }): Extent => {
    const { runtime, count } = extentOf([...group.rows, ...group.columns]);
    return { runtime, count: length * count };
  });
  return { later, products, workspace: [{ runtime: [], count: ownFloats }, ...sums] };
}

/** A group as one whose sums are all in the workspace. */
const asLater = (plan: GroupPlan): GroupPlan => ({
  ...plan,
  way: 'later',
  tiling: { ...plan.tiling, parts: 1 },
  fewColumns: null,
  atOnce: finishedAtOnce(plan.group),
});

/** Whether a group is one product and nothing more. */
const isPlain = ({ products, outputs }: MatmulGroup): boolean =>
  products.length === 1 && outputs.length === 1 && outputs[0] === products[0];

/** How the library leaves a plain result; null where its rows do not begin where pieces of 16 bytes do. */
function plainResult({ rows, columns, products }: MatmulGroup, surroundings: Surroundings) {
  const node = products[0]!;
  const storage = surroundings.storageOf(node);
  const lying = storedDimensions(node, storage).slice(rows.length);
  const piece = storage === 'bf16' ? 8 : 4;
  if (!sameDimensions(node.dimensions, [...rows, ...columns]) || constantCount(lying) % piece !== 0) return null;
  const adds = surroundings.isGradient(node) ? 'adds' : String(surroundings.accumulates(node));
  return { offset: '0', stride: countText(lying), narrow: storage === 'bf16', adds };
}

/** What is enough for either of two workspaces. */
export function largerWorkspaces(a: readonly Extent[], b: readonly Extent[]): Extent[] {
  const growth = ({ runtime }: Extent) => runtime.join('*');
  const counted = (extents: readonly Extent[], key: string) =>
    extents.filter(each => growth(each) === key).reduce((sum, { count }) => sum + count, 0);
  const distinct = new Map([...a, ...b].map(extent => [growth(extent), extent]));
  return [...distinct].map(([key, { runtime }]) => ({ runtime, count: Math.max(counted(a, key), counted(b, key)) }));
}
