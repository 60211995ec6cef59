// Emits products of rows with one of several matrices (grouped, grouped-gradient, contract-each): calls of
// templates/cpu/grouped.h with the sizes, and the order of the weights, filled in.

import { countText } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { type Dimension, product } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { ProductKernel } from '../../kernels/kernel.ts';
import { eachShape } from '../../ops/contract-each.ts';
import { type GroupedShape, groupedShape } from '../../ops/grouped.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { blockDepth, blockRows, matmulScratch, panelColumns } from './block-sizes.ts';
import { type Argument, type KernelSource, parameterList, type Surroundings } from './kernel-source.ts';

/** The most floats of a matrix that a task packs for itself. */
const mostPacked = 2 ** 21;
/** A task with many columns takes this many, or fewer where the matrix is deep: but no fewer than pay for packing rows. */
const columnsWanted = 256;
const columnsLeast = 64;

type Emit = (writer: Writer, node: Node, nameOf: (node: Node) => string, accumulates: boolean) => readonly Argument[];

/** Names that the functions give to their own variables. */
const locals = ['experts', 'per_row', 'heads', 'inner', 'columns', 'at_once', 'slots', 'left', 'right', 'weights'];

export function emitGrouped(kernel: ProductKernel, surroundings: Surroundings): KernelSource {
  const names = new Names();
  for (const local of locals) names.unique(local);
  const [node] = kernel.members as [Node];
  const accumulates = surroundings.accumulates(node);
  if (accumulates && kernel.kind !== 'grouped-gradient')
    throw new Error(`${kernel.kind}: ${surroundings.nameOf(node)} cannot be added to what its buffer holds`);
  const named = new Map([...kernel.inputs, node].map(value => [value, names.unique(surroundings.nameOf(value))]));
  const writer = new Writer();
  writer.comment(surroundings.comment);
  const emit = emitters[kernel.kind as keyof typeof emitters];
  const list = emit(writer, node, value => named.get(value)!, accumulates);
  return { text: writer.toString(), arguments: list };
}

const grouped: Emit = (writer, node, nameOf) => {
  const [left, weights, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, weights, index);
  const [inner, columns] = [sizeOf(shape.inner), sizeOf(shape.outer)];
  const atOnce = columnsAtOnce(inner, columns);
  const scratch = packedCount(inner, atOnce) + matmulScratch + blockRows * (blockDepth + atOnce);
  const list = argumentsOf(node, nameOf, [sortingSpace(shape)], scratch);
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(
      `enum { ${sizes(shape)}, inner = ${inner}, columns = ${columns}, at_once = ${atOnce} }; /* columns of a task */`,
    );
    sortSlots(writer, shape, nameOf(index));
    writer.line(`const malc_slot_rows left = ${slotRows(nameOf(left), 'inner', shape.shared)};`);
    writer.line(`const malc_matrix weights = ${matrixText(nameOf(weights), shape.outerFirst)};`);
    writer.line(
      `malc_grouped(${nameOf(node)}, left, weights, slots, inner, columns, at_once, scratch, scratch_stride);`,
    );
  });
  return list;
};

const groupedGradient: Emit = (writer, node, nameOf, accumulates) => {
  const [left, gradient, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, node, index);
  const [inner, outer] = [sizeOf(shape.inner), sizeOf(shape.outer)];
  const atOnce = columnsAtOnce(blockDepth, shape.outerFirst ? inner : outer);
  const scratch = matmulScratch + blockDepth * (blockRows + atOnce);
  const list = argumentsOf(node, nameOf, [sortingSpace(shape)], scratch);
  const ofLeft = slotRows(nameOf(left), String(inner), shape.shared);
  const ofGradient = slotRows(nameOf(gradient), String(outer), false);
  const [rows, columns] = shape.outerFirst ? [ofGradient, ofLeft] : [ofLeft, ofGradient];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(`enum { ${sizes(shape)} };`);
    sortSlots(writer, shape, nameOf(index));
    writer.line(`const malc_slot_rows left = ${rows}, right = ${columns};`);
    writer.line(
      `malc_grouped_gradient(${nameOf(node)}, left, right, slots, ${accumulates}, ${atOnce}, scratch, scratch_stride);`,
    );
  });
  return list;
};

const contractEach: Emit = (writer, node, nameOf) => {
  const [left, right] = node.inputs as [Node, Node];
  const { rows, heads, inner, outer, outerFirst } = eachShape(left, right);
  const atOnce = columnsAtOnce(inner.size!, outer.size!);
  const list = argumentsOf(node, nameOf, [], packedCount(inner.size!, atOnce) + matmulScratch);
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(`enum { heads = ${heads.size}, inner = ${inner.size}, columns = ${outer.size} };`);
    writer.line(`const malc_matrix weights = ${matrixText(nameOf(right), outerFirst)};`);
    writer.line(
      `malc_each(${nameOf(node)}, ${nameOf(left)}, weights, ${countText(rows)}, heads, inner, columns, ${atOnce}, scratch, scratch_stride);`,
    );
  });
  return list;
};

const emitters = { grouped, 'grouped-gradient': groupedGradient, 'contract-each': contractEach };

function argumentsOf(
  node: Node,
  nameOf: (node: Node) => string,
  workspace: readonly Extent[][],
  scratch: number,
): readonly Argument[] {
  return [
    ...sizeArguments([...node.inputs, node].map(({ dimensions }) => dimensions)),
    ...[...new Set(node.inputs)].map(input => ({ kind: 'input' as const, node: input, name: nameOf(input) })),
    { kind: 'output', node, name: nameOf(node) },
    ...workspace.map(extents => ({ kind: 'workspace' as const, extents })),
    { kind: 'scratch', floats: scratch },
  ];
}

/** What malc_sort_slots needs: numbers of four bytes, like floats. */
const sortingSpace = ({ rows, chosen, experts }: GroupedShape): Extent[] => [
  extentOf([...rows, chosen]),
  { runtime: [], count: 2 * (experts.size! + 1) },
];

function sortSlots(writer: Writer, { rows }: GroupedShape, index: string): void {
  const slots = rows.length === 0 ? 'per_row' : `${countText(rows)} * per_row`;
  writer.line(`const malc_slots slots = malc_sort_slots(${index}, ${slots}, experts, (int32_t *)workspace);`);
}

const sizes = ({ experts, chosen }: GroupedShape) => `experts = ${experts.size}, per_row = ${chosen.size}`;

/** Rows that the slots read: all slots of a row the same one, or each its own. */
const slotRows = (name: string, row: string, shared: boolean) => `{ ${name}, ${row}, ${shared ? 'per_row' : '1'} }`;

/** The first of the matrices as [inner][columns], which is how a product takes it. */
const matrixText = (name: string, outerFirst: boolean) =>
  outerFirst ? `{ ${name}, 1, inner }` : `{ ${name}, columns, 1 }`;

const sizeOf = (dims: readonly Dimension[]) => product(dims.map(dim => dim.size!));

const packedCount = (inner: number, columns: number) => inner * Math.ceil(columns / panelColumns) * panelColumns;

/** Columns of a task: all if they are few. */
function columnsAtOnce(inner: number, columns: number): number {
  const fitting = Math.floor(mostPacked / inner / panelColumns) * panelColumns;
  const most = Math.min(columnsWanted, Math.max(columnsLeast, fitting));
  return columns <= most * 1.5 ? packedCount(1, columns) : most;
}
