// Emits products of rows with one of several matrices (grouped, grouped-gradient, contract-each): kernels that hand the
// sizes, and how the operands lie, to templates/cuda/grouped.h, whose tiles are those of other products.
import { countText, times } from '../../emission/index-text.ts';
import { addsArgument, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { ProductKernel } from '../../kernels/kernel.ts';
import { eachShape } from '../../ops/contract-each.ts';
import { type GroupedShape, groupedShape } from '../../ops/grouped.ts';
import type { Extent } from '../../plan/extent.ts';
import { storedDimensions } from '../../plan/storage.ts';
import {
  hopperBounds,
  launchedOnHopper,
  matricesMap,
  type Runs,
  scheduleOfGradient,
  scheduleOfSlots,
  scheduleText,
  tileRows,
} from './hopper-grouped.ts';
import { usualCircumstances } from './hopper-schedule.ts';
import {
  type Argument,
  type KernelSource,
  type Launch,
  parameterList,
  type Surroundings,
  type TensorMap,
} from './kernel-source.ts';
import {
  assumedTokens,
  chooseTiling,
  copyingThreads,
  isSmall,
  type ProductWork,
  roundingThreads,
  type TileShape,
  tileType,
} from './product-tiles.ts';
import { slotsText, sortingExtents, sortingLaunches } from './slots.ts';
import { copyName, type WeightCopy, weightCopy } from './weight-copies.ts';

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
  const nameOf = (value: Node): string => {
    const own = surroundings.nameOf(value);
    return kernel.kind === 'grouped' && surroundings.hasCopy(value) ? copyName(own) : own;
  };
  const named = new Map([...kernel.inputs, node].map(value => [value, names.unique(nameOf(value))]));
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
  const run = shape.outerFirst ? shape.inner : shape.outer;
  const copy = surroundings.hasCopy(weights) ? weightCopy(weights, run) : null;
  const rows = runsOf(left, shape.inner, surroundings);
  const matrices: Runs = copy
    ? { storage: 'bf16', stride: copy.stride, aligned: 8 }
    : runsOf(weights, run, surroundings);
  const work = { rows: rowsOfExpert(shape, assumedTokens), columns, inner, results: experts };
  const tile = tileFor(surroundings, [rows, matrices], work);
  const ofExpert = rowsOfExpert(shape, usualCircumstances.tokens);
  const schedule = scheduleOfSlots(surroundings, [rows, matrices], { columns, inner, experts, rows: ofExpert });
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts), copy);
  const sorting = sortingLaunches(writer, list, surroundings.storageOf, index, name(index), experts);
  // As for other products: only training, whose rows are many, has those in bfloat16.
  const streams = shape.outerFirst && [left, node].every(value => surroundings.storageOf(value) === 'f32');
  const [slots, tokens] = [countText(index.dimensions), countText(shape.rows)];
  const sharing = sharingOf(shape);
  kernelFunction(writer, boundsOf(tile), list, surroundings, schedule !== null, () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    slotRows(writer, 'left', name(left), 'inner', rows, sharing);
    firstMatrix(writer, name(weights), shape.outerFirst, matrices);
    const operands = `(${name(node)}, slots, left, right, ${inner});`;
    const sizes = [experts, columns, atOnce(columns)].join(', ');
    if (streams) {
      writer.block(`if (${tokens} <= malc_few_rows)`, () => {
        writer.line(`malc_grouped_few<${tile.threads}, ${sizes}>${operands}`);
        writer.line('return;');
      });
    }
    writer.line(`malc_grouped<${tile.type}, ${sizes}>${operands}`);
  });
  const blocks = (height: string | number, width: number) =>
    times(`malc_expert_tiles(${slots}, ${experts}, ${height})`, String(Math.ceil(columns / width)));
  const many = blocks(tile.shape.rows, tile.shape.columns);
  const grid = streams ? `${tokens} <= malc_few_rows ? ${blocks('malc_few_rows', fewColumns)} : ${many}` : many;
  const source = { arguments: list, launches: [...sorting, launchOf(tile, grid)] };
  if (!schedule) return source;
  const [width, high] = shape.outerFirst ? [inner, columns] : [columns, inner];
  const map = matricesMap(`${name(weights)}_map`, name(weights), { width, rows: high, experts }, matrices);
  hopperFunction(writer, list, surroundings, [map], () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    gatheredRows(writer, 'left', name(left), 'inner', rows, inner, sharing);
    const run = shape.outerFirst ? 'inner' : 'outer';
    writer.line(`const malc_mapped_matrices<malc_side::${run}> right{&${map.name}, 0};`);
    const sizes = [scheduleText(schedule), experts, columns, atOnce(columns)].join(', ');
    writer.line(`malc_grouped_on_hopper<${sizes}>(${name(node)}, slots, left, right, ${inner});`);
  });
  const tiles = blocks(tileRows(schedule), schedule.columns);
  return { ...source, hopper: launchedOnHopper(hopperName, [map], sorting, schedule, tiles) };
}

function groupedGradient({ writer, node, name, surroundings }: Site): Emitted {
  const [left, gradient, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, node, index);
  const experts = shape.experts.size!;
  const [inner, outer] = [constantCount(shape.inner), constantCount(shape.outer)];
  const [rows, columns] = shape.outerFirst ? [outer, inner] : [inner, outer];
  const ofLeft = runsOf(left, shape.inner, surroundings);
  const ofGradient = runsOf(gradient, shape.outer, surroundings);
  const work = { rows, columns, inner: rowsOfExpert(shape, assumedTokens), results: experts };
  const tile = tileFor(surroundings, [ofLeft, ofGradient], work);
  const ofExpert = rowsOfExpert(shape, usualCircumstances.tokens);
  const schedule = scheduleOfGradient(surroundings, [ofLeft, ofGradient], { rows, columns, inner: ofExpert, experts });
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts));
  const sorting = sortingLaunches(writer, list, surroundings.storageOf, index, name(index), experts);
  const [first, second] = shape.outerFirst ? ['right', 'left'] : ['left', 'right'];
  const adds = surroundings.isGradient(node) ? 'adds' : String(surroundings.accumulates(node));
  const sizes = [experts, rows, columns, atOnce(columns)].join(', ');
  const operands = `(${name(node)}, slots, left, right, ${adds});`;
  kernelFunction(writer, boundsOf(tile), list, surroundings, schedule !== null, () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    slotRows(writer, first!, name(left), 'outer', ofLeft, sharingOf(shape));
    slotRows(writer, second!, name(gradient), 'outer', ofGradient, 1);
    writer.line(`malc_grouped_gradient<${tile.type}, ${sizes}>${operands}`);
  });
  const tiles = (high: number, wide: number) =>
    String(experts * Math.ceil(rows / high) * Math.ceil(columns / wide));
  const source = { arguments: list, launches: [...sorting, launchOf(tile, tiles(tile.shape.rows, tile.shape.columns))] };
  if (!schedule) return source;
  hopperFunction(writer, list, surroundings, [], () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    gatheredRows(writer, first!, name(left), 'outer', ofLeft, inner, sharingOf(shape));
    gatheredRows(writer, second!, name(gradient), 'outer', ofGradient, outer, 1);
    writer.line(`malc_grouped_gradient_on_hopper<${scheduleText(schedule)}, ${sizes}>${operands}`);
  });
  const most = tiles(tileRows(schedule), schedule.columns);
  return { ...source, hopper: launchedOnHopper(hopperName, [], sorting, schedule, most) };
}

function contractEach({ writer, node, name, surroundings }: Site): Emitted {
  const [left, right] = node.inputs as [Node, Node];
  const shape = eachShape(left, right);
  const [heads, inner, columns] = [shape.heads.size!, shape.inner.size!, shape.outer.size!];
  const rows = countText(shape.rows);
  const vectors = runsOf(left, [shape.inner], surroundings);
  const matrices = runsOf(right, [shape.outerFirst ? shape.inner : shape.outer], surroundings);
  const tile = tileFor(surroundings, [vectors, matrices], { rows: assumedTokens, columns, inner, results: heads });
  const list = argumentsOf(node, name, surroundings, []);
  kernelFunction(writer, boundsOf(tile), list, surroundings, false, () => {
    const type = operandText(vectors, 'inner');
    writer.line(`const malc_operand<${type}> left{{${name(left)}}, ${heads * inner}};`);
    firstMatrix(writer, name(right), shape.outerFirst, matrices);
    const sizes = [tile.type, tile.threads, heads, inner, columns, atOnce(columns)].join(', ');
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
  readonly threads: number;
}

/** The runs of a tensor whose last dimensions these are. */
function runsOf(node: Node, run: readonly Dimension[], { storageOf }: Surroundings): Runs {
  const storage = storageOf(node);
  const stride = constantCount(storedDimensions(node, storage).slice(-run.length));
  return { storage, stride, aligned: [8, 4, 2].find(count => stride % count === 0) ?? 1 };
}

/** What declares operands of these runs for the device code: the elements' type, which positions are runs, alignment. */
const operandText = ({ storage, aligned }: Runs, run: 'inner' | 'outer'): string =>
  [storage === 'bf16' ? '__nv_bfloat16' : 'float', `malc_side::${run}`, aligned].join(', ');

/** The cheapest tile. Operands that do not all come by asynchronous copies need more threads. */
function tileFor(
  { dtype }: Surroundings,
  operands: readonly Runs[],
  work: Pick<ProductWork, 'rows' | 'columns' | 'inner' | 'results'>,
): Tile {
  const { shape } = chooseTiling({ ...work, kind: dtype, beside: 1, step: 1, isDivisible: false })!;
  const areCopied = operands.every(({ storage, aligned }) => storage === 'bf16' && aligned >= 2);
  const threads = areCopied ? copyingThreads : roundingThreads;
  return { shape, type: tileType(shape, dtype, threads), threads };
}

/** Slots that read the same row. */
const sharingOf = ({ shared, chosen }: GroupedShape): number => (shared ? chosen.size! : 1);

/** Slots of an expert, where the choice is even. */
const rowsOfExpert = ({ rows, chosen, experts }: GroupedShape, assumed: number): number => {
  const tokens = rows.some(dim => dim.size === null) ? assumed : constantCount(rows);
  return Math.max(1, Math.round((tokens * chosen.size!) / experts.size!));
};

/** @param copy the copy that is read of the second operand, where one is */
function argumentsOf(
  node: Node,
  name: (node: Node) => string,
  surroundings: Surroundings,
  workspace: readonly Extent[],
  copy: WeightCopy | null = null,
): readonly Argument[] {
  const inputs = [...new Set(node.inputs)];
  return [
    ...sizeArguments([...inputs, node].map(({ dimensions }) => dimensions)),
    ...inputs.map((input): Argument => {
      const argument = { node: input, name: name(input) };
      return copy && input === node.inputs[1] ? { kind: 'copy', ...argument, copy } : { kind: 'input', ...argument };
    }),
    { kind: 'output', node, name: name(node) },
    ...addsArgument([node], surroundings),
    ...(workspace.length > 0 ? [{ kind: 'workspace' as const, extents: workspace }] : []),
  ];
}

/** The kernel that multiplies. The comment that says what it computes is above it. */
function kernelFunction(
  writer: Writer,
  bounds: string,
  list: readonly Argument[],
  { comment, storageOf }: Surroundings,
  hasHopper: boolean,
  body: () => void,
): void {
  const parameters = parameterList(list, storageOf);
  writer.comment(comment);
  writer.block(`static __global__ void __launch_bounds__(${bounds}) ${ownName}(${parameters})`, () => {
    if (hasHopper) writer.block('if constexpr (!malc_code_for_hopper)', body);
    else body();
  });
}

/** As for other products: with small tiles, two blocks of a multiprocessor, or ptxas would save registers by spills. */
const boundsOf = ({ shape, threads }: Tile): string => `${threads}, ${isSmall(shape) ? 2 : 1}`;

const hopperName = `${ownName}_on_hopper`;

/** The kernel that takes its place on Hopper GPUs. */
function hopperFunction(
  writer: Writer,
  list: readonly Argument[],
  { storageOf }: Surroundings,
  maps: readonly TensorMap[],
  body: () => void,
): void {
  const own = maps.map(map => `const __grid_constant__ CUtensorMap ${map.name}`);
  const parameters = [...own, parameterList(list, storageOf)].join(', ');
  writer.line();
  writer.block(`static __global__ void __launch_bounds__(${hopperBounds}) ${hopperName}(${parameters})`, body);
}

const launchOf = ({ type, threads }: Tile, grid: string): Launch => ({
  kernel: ownName,
  grid,
  block: String(threads),
  shared: `${type}::shared_bytes`,
});

/** Declares the rows that slots read: all slots of a row the same one, or each its own. */
function slotRows(
  writer: Writer,
  variable: string,
  data: string,
  run: 'inner' | 'outer',
  rows: Runs,
  sharing: number,
): void {
  const type = `${operandText(rows, run)}, ${sharing}`;
  writer.line(`const malc_slot_rows<${type}> ${variable}{${data}, slots.order, ${rows.stride}, slots.count - 1};`);
}

/** Declares the same rows for Hopper GPUs, of which `width` elements count. */
function gatheredRows(
  writer: Writer,
  variable: string,
  data: string,
  run: 'inner' | 'outer',
  { stride }: Runs,
  width: number,
  sharing: number,
): void {
  const values = [data, 'slots.order', stride, width, 'slots.count'].join(', ');
  writer.line(`const malc_gathered_rows<malc_side::${run}, ${sharing}> ${variable}{${values}};`);
}

/** Declares the first of the matrices, which lie by columns where the result's dimensions come first. */
function firstMatrix(writer: Writer, data: string, outerFirst: boolean, runs: Runs): void {
  const type = operandText(runs, outerFirst ? 'inner' : 'outer');
  writer.line(`const malc_operand<${type}> right{{${data}}, ${runs.stride}};`);
}

/** Columns that are finished at once. */
const atOnce = (columns: number): number => (columns % 4 === 0 ? 4 : 1);
