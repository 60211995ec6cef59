// Emits products of rows with one of several matrices (grouped, grouped-gradient, contract-each): kernels that hand the
// sizes, and how the operands lie, to templates/cuda/grouped.h, whose tiles are those of other products.
import { countText, times } from '../../emission/index-text.ts';
import { addsArgument, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { constantCount } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { ProductKernel } from '../../kernels/kernel.ts';
import { eachShape } from '../../ops/contract-each.ts';
import { type GroupedShape, groupedShape } from '../../ops/grouped.ts';
import type { Extent } from '../../plan/extent.ts';
import { type Argument, type KernelSource, type Launch, parameterList, type Surroundings } from './kernel-source.ts';
import {
  assumedTokens,
  chooseTiling,
  isSmall,
  type ProductWork,
  roundingThreads,
  type TileShape,
  tileType,
} from './product-tiles.ts';
import { slotsText, sortingExtents, sortingLaunches } from './slots.ts';

/** Names that the kernels give to their own variables. */
const locals = ['left', 'right', 'slots', 'adds'];

export function emitGrouped(kernel: ProductKernel, surroundings: Surroundings): KernelSource {
  const emit = emitters[kernel.kind];
  if (!emit) throw new Error(`there is no kernel for ${kernel.kind}`);
  const names = new Names();
  for (const local of locals) names.unique(local);
  const [node] = kernel.members as [Node];
  if (surroundings.accumulates(node) && kernel.kind !== 'grouped-gradient')
    throw new Error(`${kernel.kind}: ${surroundings.nameOf(node)} cannot be added to what its buffer holds`);
  const named = new Map([...kernel.inputs, node].map(value => [value, names.unique(surroundings.nameOf(value))]));
  const writer = new Writer();
  const emitted = emit({ writer, node, name: value => named.get(value)!, surroundings });
  return { text: writer.toString(), ...emitted };
}

interface Site {
  readonly writer: Writer;
  readonly node: Node;
  name(value: Node): string;
  readonly surroundings: Surroundings;
}

type Emitted = Omit<KernelSource, 'text'>;

function grouped({ writer, node, name, surroundings }: Site): Emitted {
  const [left, weights, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, weights, index);
  const [experts, inner, columns] = [shape.experts.size!, constantCount(shape.inner), constantCount(shape.outer)];
  const tile = tileFor(surroundings, { rows: rowsOfExpert(shape), columns, inner, results: experts });
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts));
  const sorting = sortingLaunches(writer, list, { name: name(index), dimensions: index.dimensions }, experts);
  const streams = shape.outerFirst;
  const [slots, tokens] = [countText(index.dimensions), countText(shape.rows)];
  kernelFunction(writer, tile, list, surroundings, () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    slotRows(writer, 'left', name(left), 'inner', inner, shape);
    matrices(writer, name(weights), streams, inner, columns);
    const operands = `(${name(node)}, slots, left, right, ${inner});`;
    const sizes = [experts, columns, atOnce(columns)].join(', ');
    if (streams) {
      writer.block(`if (${tokens} <= malc_few_rows)`, () => {
        writer.line(`malc_grouped_few<${roundingThreads}, ${sizes}>${operands}`);
        writer.line('return;');
      });
    }
    writer.line(`malc_grouped<${tile.type}, ${sizes}>${operands}`);
  });
  const blocks = (rows: string | number, width: number) =>
    times(`malc_expert_tiles(${slots}, ${experts}, ${rows})`, String(Math.ceil(columns / width)));
  const many = blocks(tile.shape.rows, tile.shape.columns);
  const grid = streams ? `${tokens} <= malc_few_rows ? ${blocks('malc_few_rows', fewColumns)} : ${many}` : many;
  return { arguments: list, launches: [...sorting, launchOf(tile, grid)] };
}

function groupedGradient({ writer, node, name, surroundings }: Site): Emitted {
  const [left, gradient, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, node, index);
  const experts = shape.experts.size!;
  const [inner, outer] = [constantCount(shape.inner), constantCount(shape.outer)];
  const [rows, columns] = shape.outerFirst ? [outer, inner] : [inner, outer];
  const tile = tileFor(surroundings, { rows, columns, inner: rowsOfExpert(shape), results: experts });
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts));
  const sorting = sortingLaunches(writer, list, { name: name(index), dimensions: index.dimensions }, experts);
  kernelFunction(writer, tile, list, surroundings, () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    const ofLeft = shape.outerFirst ? 'right' : 'left';
    const ofGradient = shape.outerFirst ? 'left' : 'right';
    slotRows(writer, ofLeft, name(left), 'outer', inner, shape);
    slotRows(writer, ofGradient, name(gradient), 'outer', outer, { ...shape, shared: false });
    const adds = surroundings.isGradient(node) ? 'adds' : String(surroundings.accumulates(node));
    const sizes = [tile.type, experts, rows, columns, atOnce(columns)].join(', ');
    writer.line(`malc_grouped_gradient<${sizes}>(${name(node)}, slots, left, right, ${adds});`);
  });
  const grid = experts * Math.ceil(rows / tile.shape.rows) * Math.ceil(columns / tile.shape.columns);
  return { arguments: list, launches: [...sorting, launchOf(tile, String(grid))] };
}

function contractEach({ writer, node, name, surroundings }: Site): Emitted {
  const [left, right] = node.inputs as [Node, Node];
  const shape = eachShape(left, right);
  const [heads, inner, columns] = [shape.heads.size!, shape.inner.size!, shape.outer.size!];
  const rows = countText(shape.rows);
  const tile = tileFor(surroundings, { rows: assumedTokens, columns, inner, results: heads });
  const list = argumentsOf(node, name, surroundings, []);
  kernelFunction(writer, tile, list, surroundings, () => {
    const stride = heads * inner;
    writer.line(`const malc_operand<float, malc_side::inner, ${aligned(inner)}> left{{${name(left)}}, ${stride}};`);
    matrices(writer, name(right), shape.outerFirst, inner, columns);
    const sizes = [tile.type, roundingThreads, heads, inner, columns, atOnce(columns)].join(', ');
    writer.line(`malc_each<${sizes}>(${name(node)}, ${rows}, left, right);`);
  });
  const blocks = (height: string | number, width: string | number) =>
    `${heads} * malc_tiles(${rows}, ${columns}, ${height}, ${width}).count()`;
  const many = blocks(tile.shape.rows, tile.shape.columns);
  const few = blocks('malc_few_rows', fewColumns);
  const grid = shape.outerFirst ? `${rows} <= malc_few_rows ? ${few} : ${many}` : many;
  return { arguments: list, launches: [launchOf(tile, grid)] };
}

const emitters: Partial<Record<ProductKernel['kind'], (site: Site) => Emitted>> = {
  grouped,
  'grouped-gradient': groupedGradient,
  'contract-each': contractEach,
};

/** malc_few_columns of grouped.h. */
const fewColumns = 16;

interface Tile {
  readonly shape: TileShape;
  readonly type: string;
}

/** The cheapest tile: all read float32, so that operands come through registers. */
function tileFor({ dtype }: Surroundings, work: Pick<ProductWork, 'rows' | 'columns' | 'inner' | 'results'>): Tile {
  const { shape } = chooseTiling({ ...work, kind: dtype, beside: 1, step: 1, isDivisible: false })!;
  return { shape, type: tileType(shape, dtype, roundingThreads) };
}

/** Slots of an expert, where the choice is even. */
const rowsOfExpert = ({ rows, chosen, experts }: GroupedShape): number => {
  const tokens = rows.some(dim => dim.size === null) ? assumedTokens : constantCount(rows);
  return Math.max(1, Math.round((tokens * chosen.size!) / experts.size!));
};

function argumentsOf(
  node: Node,
  name: (node: Node) => string,
  surroundings: Surroundings,
  workspace: readonly Extent[],
): readonly Argument[] {
  const inputs = [...new Set(node.inputs)];
  for (const value of [...inputs, node])
    if (surroundings.storageOf(value) !== 'f32') throw new Error(`${name(value)}: experts' rows are float32`);
  return [
    ...sizeArguments([...inputs, node].map(({ dimensions }) => dimensions)),
    ...inputs.map(input => ({ kind: 'input' as const, node: input, name: name(input) })),
    { kind: 'output', node, name: name(node) },
    ...addsArgument([node], surroundings),
    ...(workspace.length > 0 ? [{ kind: 'workspace' as const, extents: workspace }] : []),
  ];
}

/** The kernel that multiplies. The comment that says what it computes is above it. */
function kernelFunction(
  writer: Writer,
  { shape }: Tile,
  list: readonly Argument[],
  { comment }: Surroundings,
  body: () => void,
): void {
  // As for other products: with small tiles, two blocks of a multiprocessor, or ptxas would save registers by spills.
  const bounds = `${roundingThreads}${isSmall(shape) ? ', 2' : ''}`;
  writer.comment(comment);
  writer.block(`static __global__ void __launch_bounds__(${bounds}) ${ownName}(${parameterList(list)})`, body);
}

const launchOf = ({ type }: Tile, grid: string): Launch => ({
  kernel: ownName,
  grid,
  block: String(roundingThreads),
  shared: `${type}::shared_bytes`,
});

/** Declares the rows that slots read: all slots of a row the same one, or each its own. */
function slotRows(
  writer: Writer,
  variable: string,
  data: string,
  run: 'inner' | 'outer',
  width: number,
  { shared, chosen }: GroupedShape,
): void {
  const type = ['float', `malc_side::${run}`, aligned(width), shared ? chosen.size : 1].join(', ');
  writer.line(`const malc_slot_rows<${type}> ${variable}{${data}, slots.order, ${width}, slots.count - 1};`);
}

/** Declares the first of the matrices: columns of `inner` elements where `outerFirst`, or else the reverse. */
function matrices(writer: Writer, data: string, outerFirst: boolean, inner: number, columns: number): void {
  const run = outerFirst ? 'inner' : 'outer';
  const width = outerFirst ? inner : columns;
  writer.line(`const malc_operand<float, malc_side::${run}, ${aligned(width)}> right{{${data}}, ${width}};`);
}

/** The largest power of two up to 8 that divides a run. */
const aligned = (width: number): number => [8, 4, 2].find(count => width % count === 0) ?? 1;

/** Columns that are finished at once. */
const atOnce = (columns: number): number => (columns % 4 === 0 ? 4 : 1);
