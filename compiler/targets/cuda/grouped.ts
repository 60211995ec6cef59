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
import {
  firstMatrix,
  gatheredRows,
  matricesMap,
  operandText,
  type Runs,
  runsOf,
  type Side,
  type SlotRows,
  slotRows,
} from './grouped-operands.ts';
import { hopperBounds, launchedOnHopper, rankGradient, rankSlots, scheduleText, tileRows } from './hopper-grouped.ts';
import { type Circumstances, describeSchedule, type HopperSchedule, usualCircumstances } from './hopper-schedule.ts';
import {
  type Argument,
  type KernelSource,
  type Launch,
  overlappingParameterList,
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

/** @param schedule on Hopper GPUs, one of those that `groupedSchedules` returns; the first where none is given */
export function emitGrouped(
  kernel: ProductKernel,
  surroundings: Surroundings,
  schedule: HopperSchedule | undefined = groupedSchedules(kernel, surroundings)[0]?.schedule,
): KernelSource {
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
  const emitted = emit({ writer, names, node, name: value => named.get(value)!, surroundings, schedule });
  return { text: writer.toString(), ...emitted, ...(schedule ? { schedule: describeSchedule(schedule) } : {}) };
}

/** The schedules that a kernel can have on Hopper GPUs, best first; none where it runs there as on others. */
export function groupedSchedules(
  { kind, members }: ProductKernel,
  surroundings: Surroundings,
  circumstances: Circumstances = usualCircumstances,
) {
  const [node] = members as [Node];
  if (kind === 'grouped') return planSlots(node, surroundings, circumstances).schedules;
  return kind === 'grouped-gradient' ? planGradient(node, surroundings, circumstances).schedules : [];
}

interface Site {
  readonly writer: Writer;
  readonly names: Names;
  readonly node: Node;
  name(value: Node): string;
  readonly surroundings: Surroundings;
  /** On Hopper GPUs; undefined where these run the same kernel as others. */
  readonly schedule: HopperSchedule | undefined;
}

type Emitted = Omit<KernelSource, 'text'>;

/** A product whose rows are slots: how its operands lie, in which tiles it is computed, and by which schedules. */
function planSlots(node: Node, surroundings: Surroundings, circumstances: Circumstances = usualCircumstances) {
  const [left, weights, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, weights, index);
  const [experts, inner, columns] = [shape.experts.size!, constantCount(shape.inner), constantCount(shape.outer)];
  const run: Side = shape.outerFirst ? 'inner' : 'outer';
  const copy = surroundings.hasCopy(weights) ? weightCopy(weights, shape[run]) : null;
  const ofLeft = runsOf(left, shape.inner, surroundings);
  const rows: SlotRows = { ...ofLeft, run: 'inner', sharing: sharingOf(shape), width: inner };
  const ofCopy: Runs | null = copy && { storage: 'bf16', stride: copy.stride, aligned: 8 };
  const matrices = { ...(ofCopy ?? runsOf(weights, shape[run], surroundings)), run };
  const operands = [rows, matrices];
  const tile = tileFor(surroundings, operands, {
    rows: rowsOfExpert(shape, assumedTokens),
    columns,
    inner,
    results: experts,
  });
  const many = { rows: rowsOfExpert(shape, circumstances.tokens), columns, inner, experts };
  const schedules = rankSlots(surroundings, operands, many, circumstances);
  return { shape, experts, inner, columns, copy, rows, matrices, tile, schedules };
}

function grouped({ writer, names, node, name, surroundings, schedule }: Site): Emitted {
  const [left, weights, index] = node.inputs as [Node, Node, Node];
  const { shape, experts, inner, columns, copy, rows, matrices, tile } = planSlots(node, surroundings);
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts), copy);
  const sorting = sortingLaunches(writer, list, surroundings.storageOf, index, name(index), experts);
  // As for other products: only training, whose rows are many, has those in bfloat16.
  const streams = shape.outerFirst && [left, node].every(value => surroundings.storageOf(value) === 'f32');
  const [slots, tokens] = [countText(index.dimensions), countText(shape.rows)];
  const operands = `(${name(node)}, slots, left, right, ${inner});`;
  const sizes = [experts, columns, atOnce(columns)].join(', ');
  kernelFunction(writer, tile, list, surroundings, schedule, () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    slotRows(writer, 'left', name(left), rows);
    firstMatrix(writer, name(weights), matrices.run, matrices);
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
  const runs = matrices.run === 'inner' ? ([columns, inner] as const) : ([inner, columns] as const);
  const map = matricesMap(names.unique(`${name(weights)}_map`), name(weights), matrices, [experts, ...runs]);
  hopperFunction(writer, list, surroundings, [map], () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    gatheredRows(writer, 'left', name(left), rows);
    writer.line(`const malc_mapped_matrices<malc_side::${matrices.run}> right{&${map.name}, 0};`);
    writer.line(`malc_grouped_on_hopper<${scheduleText(schedule)}, ${sizes}>${operands}`);
  });
  const most = blocks(tileRows(schedule), schedule.columns);
  return { ...source, hopper: launchedOnHopper(hopperName, [map], sorting, schedule, most) };
}

/** The gradient of the matrices, whose inner positions are slots: likewise. */
function planGradient(node: Node, surroundings: Surroundings, circumstances: Circumstances = usualCircumstances) {
  const [left, gradient, index] = node.inputs as [Node, Node, Node];
  const shape = groupedShape(left, node, index);
  const experts = shape.experts.size!;
  const [inner, outer] = [constantCount(shape.inner), constantCount(shape.outer)];
  const ofLeft = runsOf(left, shape.inner, surroundings);
  const ofGradient = runsOf(gradient, shape.outer, surroundings);
  const operands: readonly [Node, SlotRows][] = [
    [left, { ...ofLeft, run: 'outer', sharing: sharingOf(shape), width: inner }],
    [gradient, { ...ofGradient, run: 'outer', sharing: 1, width: outer }],
  ];
  const sides = shape.outerFirst ? operands.toReversed() : operands;
  const [rows, columns] = sides.map(([, { width }]) => width) as [number, number];
  const runs = [ofLeft, ofGradient];
  const tile = tileFor(surroundings, runs, {
    rows,
    columns,
    inner: rowsOfExpert(shape, assumedTokens),
    results: experts,
  });
  const many = { rows, columns, inner: rowsOfExpert(shape, circumstances.tokens), experts };
  const schedules = rankGradient(surroundings, runs, many, circumstances);
  return { experts, rows, columns, sides, tile, schedules };
}

function groupedGradient({ writer, node, name, surroundings, schedule }: Site): Emitted {
  const index = node.inputs[2]!;
  const { experts, rows, columns, sides, tile } = planGradient(node, surroundings);
  const list = argumentsOf(node, name, surroundings, sortingExtents(index.dimensions, experts));
  const sorting = sortingLaunches(writer, list, surroundings.storageOf, index, name(index), experts);
  const adds = surroundings.isGradient(node) ? 'adds' : String(surroundings.accumulates(node));
  const sizes = [experts, rows, columns, atOnce(columns)].join(', ');
  const print = (declare: typeof slotRows, product: string) => () => {
    writer.line(`const ${slotsText(index.dimensions, experts, 'slots')};`);
    sides.forEach(([operand, own], n) => {
      declare(writer, n === 0 ? 'left' : 'right', name(operand), own);
    });
    writer.line(`${product}, ${sizes}>(${name(node)}, slots, left, right, ${adds});`);
  };
  kernelFunction(writer, tile, list, surroundings, schedule, print(slotRows, `malc_grouped_gradient<${tile.type}`));
  const tiles = (height: number, width: number) =>
    String(experts * Math.ceil(rows / height) * Math.ceil(columns / width));
  const grid = tiles(tile.shape.rows, tile.shape.columns);
  const source = { arguments: list, launches: [...sorting, launchOf(tile, grid)] };
  if (!schedule) return source;
  const product = `malc_grouped_gradient_on_hopper<${scheduleText(schedule)}`;
  hopperFunction(writer, list, surroundings, [], print(gatheredRows, product));
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
  kernelFunction(writer, tile, list, surroundings, undefined, () => {
    const type = operandText(vectors, 'inner');
    writer.line(`const malc_operand<${type}> left{{${name(left)}}, ${heads * inner}};`);
    firstMatrix(writer, name(right), shape.outerFirst ? 'inner' : 'outer', matrices);
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
  { shape, threads }: Tile,
  list: readonly Argument[],
  { comment, storageOf }: Surroundings,
  schedule: HopperSchedule | undefined,
  body: () => void,
): void {
  // As for other products: with small tiles, two blocks of a multiprocessor, or ptxas would save registers by spills.
  const bounds = `${threads}, ${isSmall(shape) ? 2 : 1}`;
  const parameters = parameterList(list, storageOf);
  writer.comment(comment);
  writer.block(`static __global__ void __launch_bounds__(${bounds}) ${ownName}(${parameters})`, () => {
    if (schedule) writer.block('if constexpr (!malc_code_for_hopper)', body);
    else body();
  });
}

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
  const parameters = [...own, overlappingParameterList(list, storageOf)].join(', ');
  writer.line();
  writer.block(`static __global__ void __launch_bounds__(${hopperBounds}) ${hopperName}(${parameters})`, body);
}

const launchOf = ({ type, threads }: Tile, grid: string): Launch => ({
  kernel: ownName,
  grid,
  block: String(threads),
  shared: `${type}::shared_bytes`,
});

/** Columns that are finished at once. */
const atOnce = (columns: number): number => (columns % 4 === 0 ? 4 : 1);
