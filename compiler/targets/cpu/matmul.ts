// Emits matmul kernels on top of templates/cpu/matmul.h: tasks of rows and columns, each finished by its epilogue while its
// tile is in cache. Tasks of float32 products pack what they read; rounded right operands are packed once for all threads.

import { countText, plus, times } from '../../emission/index-text.ts';
import { addsArgument, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension, product as productOf } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { MatmulGroup, MatmulKernel } from '../../kernels/kernel.ts';
import { extentOf } from '../../plan/extent.ts';
import { blockDepth, blockRows, matmulScratch, panelColumns } from './block-sizes.ts';
import { type Argument, type KernelSource, parameterList, type Surroundings } from './kernel-source.ts';
import { emitEpilogueRow } from './matmul-epilogue.ts';
import { innerOf, MatmulOperands } from './matmul-operands.ts';
import { describeSchedule, type ProductSchedule, type ProductShape, packingScratch } from './schedule.ts';

/** A task of rounded products with many columns takes about this many. */
const columnsAtOnce = 256;
/**
 * Of few rows a task takes fewer: they stream weights past, and every thread must have its share of them. Beside weights of
 * 8 bits each task rounds its rows, so that it takes twice as many.
 */
const columnsOfFew = 64;

export function emitMatmul(kernel: MatmulKernel, surroundings: Surroundings): KernelSource {
  return new MatmulEmitter(kernel, surroundings).emit();
}

/** What one task of a group computes: all columns, or a run of them. */
interface Task {
  readonly group: MatmulGroup;
  /** C text of the first column and of the number of columns. */
  readonly column: string;
  readonly columns: string;
  /** C text of the first of the task's rows that are multiplied and finished at once, and of their number. */
  readonly top: string;
  readonly rows: string;
  /** The most columns of a task: the row length of a tile. */
  readonly width: number;
  /** True where the rows may be few enough for the product that packs nothing. */
  readonly few: boolean;
  /** Names of the task's own scope. */
  readonly names: Names;
  readonly schedule: ProductSchedule;
  /** Its rows of each left operand. */
  readonly lefts: ReadonlyMap<Node, string>;
}

class MatmulEmitter {
  private readonly kernel: MatmulKernel;
  private readonly surroundings: Surroundings;
  private readonly names = new Names();
  private readonly named = new Map<Node, string>();
  private readonly operands: MatmulOperands;

  constructor(kernel: MatmulKernel, surroundings: Surroundings) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, this.names.unique(surroundings.nameOf(node)));
    this.operands = new MatmulOperands(kernel, surroundings, this.named, this.names);
  }

  emit(): KernelSource {
    const { kernel, operands } = this;
    const { rights, packedHere } = operands;
    const writer = new Writer();
    const list: Argument[] = [
      ...sizeArguments([
        ...kernel.groups.flatMap(group => [group.rows, group.columns]),
        ...kernel.inputs.map(node => node.dimensions),
      ]),
      ...operands.plainInputs().map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...rights.flatMap(({ node, packed, form }) =>
        form ? [{ kind: 'prepared' as const, node, name: packed, form }] : [],
      ),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, this.surroundings),
      ...(packedHere.length > 0 ? [{ kind: 'workspace' as const, extents: operands.workspace() }] : []),
      { kind: 'scratch', floats: Math.max(...kernel.groups.map(group => this.scratchOf(group))) },
    ];
    writer.comment(this.surroundings.comment);
    writer.block(`static void ${ownName}(${parameterList(list, this.surroundings.storageOf)})`, () => {
      const few = this.fewRows();
      if (few) writer.line(`const int few = ${few} <= MALC_FEW_ROWS;`);
      operands.declareRights(writer);
      writer.line(`#pragma omp parallel${few ? ` if (${this.isWorth(few)})` : ''}`);
      writer.block('', () => {
        writer.line('float *own = scratch + omp_get_thread_num() * scratch_stride;');
        operands.pack(writer, few !== null);
        const rounds = rights.some(({ suffix }) => suffix === '_bf16');
        if (rounds) writer.line('malc_begin_blocks();');
        for (const group of kernel.groups) this.group(writer, group, few !== null);
        if (rounds) writer.line('malc_end_blocks();');
      });
    });
    return { text: writer.toString(), arguments: list };
  }

  /** Whether threads are worth waking for so many rows. A vector's multiplications are one operation. */
  private isWorth(rows: string): string {
    const products = this.kernel.groups.flatMap(group => group.products.map(node => ({ group, node })));
    const columns = products.reduce((sum, { group }) => sum + columnCount(group), 0);
    const inner = products.reduce((sum, { group, node }) => sum + columnCount(group) * constantCount(innerOf(node)), 0);
    return `malc_is_worth(${columns}, ${times(rows, String(Math.ceil(inner / columns / 16)))})`;
  }

  /**
   * The run-time row count, where every group has the same; null where rows are fixed (gradients of weights), and where
   * they are bfloat16, which only training's many rows are.
   */
  private fewRows(): string | null {
    const products = this.kernel.groups.flatMap(group => group.products);
    if (products.some(({ inputs }) => this.operands.kindOf(inputs[0]!).isNarrow)) return null;
    const counts = new Set(this.kernel.groups.map(group => countText(group.rows)));
    const [count] = counts;
    return counts.size === 1 && this.kernel.groups[0]!.rows.some(dim => dim.size === null) ? count! : null;
  }

  /** The bounds of a group's tasks. Those of products of which some are rounded are fixed: they wait for packed operands. */
  private scheduleOf(group: MatmulGroup): ProductSchedule {
    if (this.isRounded(group) && !this.isBlocked(group))
      return { rows: blockRows, columns: chunkOf(group), depth: blockDepth };
    return this.surroundings.scheduleOf(this.shapeOf(group));
  }

  /** Whether all products of a group are of bfloat16: a task then finishes its rows block by block. */
  private isBlocked(group: MatmulGroup): boolean {
    return group.products.every(node => this.operands.rightOf(node, group).suffix === '_bf16');
  }

  private isRounded(group: MatmulGroup): boolean {
    return group.products.some(node => this.operands.rightOf(node, group).suffix !== '');
  }

  private shapeOf(group: MatmulGroup): ProductShape {
    const [node] = group.products as [Node];
    const [left, right] = node.inputs as [Node, Node];
    const isTransposed = (tensor: Node, first: readonly Dimension[]) => tensor.dimensions[0]!.name !== first[0]!.name;
    return {
      rows: extentOf(group.rows),
      columns: columnCount(group),
      inner: extentOf(innerOf(node)),
      step: columnStep(group),
      tiles: this.isDirect(group) ? 0 : group.products.length,
      leftTransposed: isTransposed(left, group.rows),
      rightTransposed: isTransposed(right, innerOf(node)),
      rounds: this.isBlocked(group) ? this.surroundings.storageOf(left) : null,
    };
  }

  /** Floats of a thread's scratch before a group's tiles. */
  private tilesAt(group: MatmulGroup): number {
    const { columns, depth } = this.scheduleOf(group);
    const isRounded = this.isRounded(group);
    const packs = group.products.some(node => this.operands.rightOf(node, group).suffix === '');
    return Math.max(isRounded ? matmulScratch : 0, packs ? packingScratch(columns, depth) : 0);
  }

  private scratchOf(group: MatmulGroup): number {
    const { columns } = this.scheduleOf(group);
    return this.tilesAt(group) + (this.isDirect(group) ? 0 : group.products.length * this.tileRows(group) * columns);
  }

  /** Rows of a tile: of bfloat16 products those that are finished at once, else all of a task. */
  private tileRows(group: MatmulGroup): number {
    return this.isBlocked(group) ? blockRows : this.scheduleOf(group).rows;
  }

  private group(writer: Writer, group: MatmulGroup, few: boolean): void {
    const columns = columnCount(group);
    const schedule = this.scheduleOf(group);
    const width = schedule.columns;
    const isBlocked = this.isBlocked(group);
    const first = this.named.get(group.products[0]!)!;
    const rows = this.names.unique(`${first}_rows`);
    // Tasks of packed operands have a fixed number of columns; others divide as rows and threads ask for.
    const isPacked = this.isRounded(group) && !isBlocked;
    const isDivided = isPacked ? width < columns : columnStep(group) < columns;
    const run = isDivided ? { column: 'column', columns: 'columns' } : { column: '0', columns: String(columns) };
    writer.comment(group.products.map(node => this.formula(node)));
    writer.line(`const int64_t ${rows} = ${countText(group.rows)};`);
    const most = this.names.unique(`${first}_task`);
    if (isPacked) {
      const chunks = Math.ceil(columns / width);
      const columnsWanted = this.surroundings.dtype === 'int8' ? 2 * columnsOfFew : columnsOfFew;
      const atOnce = few && isDivided ? `few ? ${chunkOf(group, columnsWanted)} : ${width}` : width;
      writer.line(`const malc_task ${most} = { malc_task_rows(${rows}, ${chunks}), ${atOnce} };`);
    } else {
      const places = `${rows}, ${columns}, ${columnStep(group)}`;
      const divided = isBlocked
        ? `malc_divide_blocks(${places}, ${countText(innerOf(group.products[0]!))}, (malc_task){ ${schedule.rows}, ${width} })`
        : `malc_divide(${places}, (malc_task){ ${schedule.rows}, ${schedule.columns} })`;
      const ofFew = `(malc_task){ ${rows}, ${chunkOf(group, columnsOfFew)} }`;
      if (!isBlocked) writer.comment([describeSchedule(schedule)]);
      writer.line(`const malc_task ${most} = ${few ? `few ? ${ofFew} : ` : ''}${divided};`);
    }
    const body = () => {
      writer.line(`const int64_t rows = malc_least(${most}.rows, ${rows} - first);`);
      if (isDivided) writer.line(`const int64_t columns = malc_least(${most}.columns, ${columns} - column);`);
      const names = new Names(this.names);
      const lefts = this.operands.declareLefts(writer, group, names);
      const task = { group, ...run, top: '0', rows: 'rows', width, few, names, schedule, lefts };
      if (this.isDirect(group)) this.direct(writer, task, columns);
      else this.throughTiles(writer, task);
    };
    const overRows = `for (int64_t first = 0; first < ${rows}; first += ${most}.rows)`;
    if (!isDivided) {
      writer.line('#pragma omp for schedule(dynamic, 1) nowait');
      writer.block(overRows, body);
      return;
    }
    const overColumns = `for (int64_t column = 0; column < ${columns}; column += ${most}.columns)`;
    // Tasks that follow one another share the packed panels.
    const [outer, inner] = isBlocked ? [overColumns, overRows] : [overRows, overColumns];
    writer.line('#pragma omp for collapse(2) schedule(dynamic, 1) nowait');
    writer.line(outer);
    writer.inner(() => writer.block(inner, body));
  }

  /** One product that is an output as it stands: multiplied, or added, right where it belongs. */
  private isDirect({ products, epilogue, outputs }: MatmulGroup): boolean {
    const isAlone = products.length === 1 && epilogue.length === 0 && outputs.length === 1;
    return isAlone && this.surroundings.storageOf(products[0]!) === 'f32';
  }

  private direct(writer: Writer, task: Task, columns: number): void {
    const [node] = task.group.products as [Node];
    const target = plus([this.named.get(node)!, times('first', String(columns)), task.column]);
    this.multiply(writer, task, node, target, String(columns), this.surroundings.isGradient(node));
  }

  private throughTiles(writer: Writer, task: Task): void {
    const tiles = new Map<Node, string>();
    const tilesAt = this.tilesAt(task.group);
    const finish = (from: string, count: string) => {
      task.group.products.forEach((node, n) => {
        const name = task.names.unique(`${this.named.get(node)}_tile`);
        tiles.set(node, name);
        writer.line(`float *${name} = own + ${tilesAt + n * this.tileRows(task.group) * task.width};`);
        this.multiply(writer, { ...task, top: from, rows: count }, node, name, String(task.width), false);
      });
      writer.loop('r', from, plus([from, count]), () =>
        emitEpilogueRow(writer, { ...task, top: from, tiles }, this.named, this.surroundings),
      );
    };
    if (!this.isBlocked(task.group)) {
      finish('0', 'rows');
      return;
    }
    writer.block('for (int64_t top = 0; top < rows; top += MALC_BLOCK_ROWS)', () => {
      writer.line('const int64_t high = malc_least(MALC_BLOCK_ROWS, rows - top);');
      finish('top', 'high');
    });
  }

  private multiply(writer: Writer, task: Task, node: Node, target: string, stride: string, add: boolean): void {
    const { group, column, columns, few, lefts } = task;
    const [left] = node.inputs as [Node];
    const inner = innerOf(node);
    const depth = countText(inner);
    const { matrix, packed, suffix, form } = this.operands.rightOf(node, group);
    const own = lefts.get(left)!;
    const operand = this.operands.operandText(left, own, suffix);
    const from = task.top === '0' ? operand : `malc_operand_from(${operand}, ${task.top}, 0)`;
    const common = `${target}, ${stride}, ${from}, ${task.rows}`;
    const right = form ? packed : matrix;
    const unrounded = `${target}, ${stride}, ${own}, ${task.rows}, ${right}, ${depth}, ${column}, ${columns}`;
    if (few && !add)
      writer.line(`if (few) malc_multiply_few${form ? `${suffix}(${unrounded}, own)` : `(${unrounded})`};`);
    const otherwise = few && !add ? 'else ' : '';
    if (suffix === '_int8') {
      if (add) throw new Error(`${this.formula(node)}: products of 8-bit numbers are not added to what is there`);
      writer.line(`${otherwise}malc_multiply_int8(${unrounded}, own);`);
      return;
    }
    if (suffix === '_bf16') {
      const place = `${packed}, ${depth}, ${column}, ${columns}, own, ${add ? 'adds' : 'false'}`;
      writer.line(`${otherwise}malc_multiply_bf16(${common}, ${place});`);
      return;
    }
    const part = `malc_columns(${matrix}, ${column}), ${depth}, ${columns}, ${task.schedule.depth}`;
    const place = `${part}, own, ${add ? 'adds' : 'false'}`;
    writer.line(`${otherwise}malc_multiply_packing(${common}, ${place});`);
  }

  private formula(node: Node): string {
    const [left, right] = node.inputs as [Node, Node];
    return `${this.named.get(node)} = ${this.named.get(left)} x ${this.named.get(right)}, summed over ${innerOf(node)
      .map(dim => dim.name)
      .join(', ')}`;
  }
}

/**
 * Columns that one task computes: all of them if they are few, else a run that no head is cut by.
 * @param wanted about how many
 */
function chunkOf(group: MatmulGroup, wanted = columnsAtOnce): number {
  const columns = columnCount(group);
  const step = columnStep(group);
  return columns <= wanted * 1.5 || step >= columns ? columns : Math.max(step, Math.floor(wanted / step) * step);
}

const columnCount = ({ columns }: MatmulGroup): number => productOf(columns.map(dim => dim.size!));

/** Whole panels, and whole heads. */
const columnStep = ({ columns }: MatmulGroup): number =>
  leastCommonMultiple(panelColumns, productOf(columns.slice(1).map(dim => dim.size!)));

const leastCommonMultiple = (a: number, b: number): number => {
  const greatestCommonDivisor = (x: number, y: number): number => (y === 0 ? x : greatestCommonDivisor(y, x % y));
  return (a / greatestCommonDivisor(a, b)) * b;
};
