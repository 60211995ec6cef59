// Emits matmul kernels on top of templates/cpu/matmul.h: tasks of rows and columns, each finished by its epilogue while its
// tile is in cache. Tasks of float32 products pack what they read; rounded right operands are packed once for all threads.
import {
  constantCount,
  type Dimension,
  hasDimension,
  product as productOf,
  sameDimensions,
} from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, type MatmulKernel, stored } from '../../kernels/kernel.ts';
import type { ContractAttributes } from '../../ops/contract.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { blockDepth, blockRows, matmulScratch, packedBf16, panelColumns } from './block-sizes.ts';
import { columnLoops, Elements } from './elements.ts';
import {
  type Coordinates,
  coordinateName,
  countText,
  dividedBy,
  offsetBeside,
  offsetText,
  plus,
  sizeText,
  times,
} from './index-text.ts';
import {
  type Argument,
  addsArgument,
  assigned,
  elementType,
  type KernelSource,
  narrowed,
  parameterList,
  type Surroundings,
  sizeArguments,
  widened,
} from './kernel-source.ts';
import { formName, type PreparedForm, preparedForm } from './prepared.ts';
import { describeSchedule, type ProductSchedule, type ProductShape, packingScratch } from './schedule.ts';
import { Names, ownName, Writer } from './writer.ts';

/** A task of rounded products with many columns takes about this many. */
const columnsAtOnce = 256;
/** One of bfloat16 products takes as many as malc_divide_blocks says, and never more. */
const columnsOfBlocks = 1024;
/**
 * Of few rows a task takes fewer: they stream weights past, and every thread must have its share of them. Beside weights of
 * 8 bits each task rounds its rows, so that it takes twice as many.
 */
const columnsOfFew = 64;

export function emitMatmul(kernel: MatmulKernel, surroundings: Surroundings): KernelSource {
  return new MatmulEmitter(kernel, surroundings).emit();
}

interface RightOperand {
  readonly node: Node;
  readonly inner: readonly Dimension[];
  readonly columns: readonly Dimension[];
  /** The operand as it lies in memory, and in panels. */
  readonly matrix: string;
  readonly packed: string;
  /** Ends the names of functions for products of other numbers than float32. */
  readonly suffix: '' | '_bf16' | '_int8';
  /** Set where it is a parameter that is kept packed, and comes as an argument; else the kernel packs it. */
  readonly form: PreparedForm | null;
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
  /** Where the tiles begin in the thread's scratch. */
  readonly tilesAt: number;
  /** Its rows of each left operand, once they are declared. */
  readonly lefts: Map<Node, string>;
}

class MatmulEmitter {
  private readonly kernel: MatmulKernel;
  private readonly surroundings: Surroundings;
  private readonly names = new Names();
  private readonly named = new Map<Node, string>();
  /** Each distinct right operand is packed once, whatever products read it. */
  private readonly rights = new Map<string, RightOperand>();

  constructor(kernel: MatmulKernel, surroundings: Surroundings) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, this.names.unique(surroundings.nameOf(node)));
    for (const group of kernel.groups)
      for (const node of group.products) {
        const key = this.rightKey(node, group);
        if (this.rights.has(key)) continue;
        const right = node.inputs[1]!;
        const name = this.named.get(right)!;
        const { suffix, form } = this.kindOfRight(node, group);
        const matrix = this.names.unique(`${name}_matrix`);
        const packed = this.names.unique(form ? formName(name, form.way) : `${name}_packed`);
        this.rights.set(key, {
          node: right,
          inner: innerOf(node),
          columns: group.columns,
          matrix,
          packed,
          suffix,
          form,
        });
      }
  }

  /**
   * How a product reads its right operand. Numbers of 8 bits share scales along the inner dimension, which must be the one
   * that lies contiguous: other operands stay float32.
   */
  private kindOfRight(node: Node, group: MatmulGroup): Pick<RightOperand, 'suffix' | 'form'> {
    const { dtype, isParameter } = this.surroundings;
    if (dtype === 'f32' || (node.attributes as ContractAttributes).exact) return { suffix: '', form: null };
    const right = node.inputs[1]!;
    const form = isParameter(right) ? preparedForm(right, innerOf(node), group.columns) : null;
    if (dtype === 'bf16') return { suffix: '_bf16', form };
    return form?.way === 'forward' ? { suffix: '_int8', form } : { suffix: '', form: null };
  }

  /** What the kernel reads as it lies in memory: all inputs but those that products alone read, and prepared. */
  private plainInputs(): Node[] {
    const rights = [...this.rights.values()];
    const read = new Set([
      ...rights.filter(({ form }) => !form).map(({ node }) => node),
      ...this.kernel.groups.flatMap(({ products, epilogue }) => [
        ...products.map(node => node.inputs[0]!),
        ...epilogue.flatMap(node => node.inputs.flatMap(stored)),
      ]),
    ]);
    return this.kernel.inputs.filter(node => read.has(node) || !rights.some(right => right.node === node));
  }

  /** Right operands that are read as they lie in memory. */
  private get plainRights(): RightOperand[] {
    return [...this.rights.values()].filter(({ form }) => !form);
  }

  /** Of these, the rounded ones, which the kernel packs once for all tasks. */
  private get packedHere(): RightOperand[] {
    return this.plainRights.filter(({ suffix }) => suffix !== '');
  }

  emit(): KernelSource {
    const { kernel } = this;
    const writer = new Writer();
    const list: Argument[] = [
      ...sizeArguments([
        ...kernel.groups.flatMap(group => [group.rows, group.columns]),
        ...kernel.inputs.map(node => node.dimensions),
      ]),
      ...this.plainInputs().map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...[...this.rights.values()].flatMap(({ node, packed, form }) =>
        form ? [{ kind: 'prepared' as const, node, name: packed, form }] : [],
      ),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, this.surroundings),
      ...(this.packedHere.length > 0 ? [{ kind: 'workspace' as const, extents: this.workspace() }] : []),
      { kind: 'scratch', floats: Math.max(...kernel.groups.map(group => this.scratchOf(group))) },
    ];
    writer.comment(this.surroundings.comment);
    writer.block(`static void ${ownName}(${parameterList(list, this.surroundings.storageOf)})`, () => {
      const few = this.fewRows();
      if (few) writer.line(`const int few = ${few} <= MALC_FEW_ROWS;`);
      this.declareRights(writer);
      writer.line(`#pragma omp parallel${few ? ` if (${this.isWorth(few)})` : ''}`);
      writer.block('', () => {
        writer.line('float *own = scratch + omp_get_thread_num() * scratch_stride;');
        this.pack(writer, few !== null);
        const rounds = [...this.rights.values()].some(({ suffix }) => suffix === '_bf16');
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
    if (products.some(({ inputs }) => this.kindOf(inputs[0]!).isNarrow)) return null;
    const counts = new Set(this.kernel.groups.map(group => countText(group.rows)));
    const [count] = counts;
    return counts.size === 1 && this.kernel.groups[0]!.rows.some(dim => dim.size === null) ? count! : null;
  }

  private workspace(): Extent[] {
    return this.packedHere.flatMap(({ inner, columns }) => {
      const { runtime, count } = extentOf(inner);
      const width = productOf(columns.map(dim => dim.size!));
      const { each, padding } = packedBf16(width);
      return [
        { runtime, count: count * each },
        { runtime: [], count: padding },
      ];
    });
  }

  private declareRights(writer: Writer): void {
    let from = 'workspace';
    for (const { node, matrix, packed, inner, columns, suffix } of this.plainRights) {
      const { type, tail } = this.kindOf(node);
      const source = matrixText(this.named.get(node)!, node.dimensions, inner, columns, tail);
      writer.line(`const ${type} ${matrix} = ${source};`);
      if (suffix === '') continue;
      writer.line(`float *${packed} = ${from};`);
      from = `${packed} + malc_packed_size${suffix}(${countText(inner)}, ${countText(columns)})`;
    }
  }

  private pack(writer: Writer, few: boolean): void {
    if (this.packedHere.length === 0) return;
    const body = () => {
      for (const { node, matrix, packed, inner, columns, suffix } of this.packedHere) {
        const right = this.operandText(node, matrix, suffix);
        writer.line(`malc_pack${suffix}(${packed}, ${right}, ${countText(inner)}, ${countText(columns)});`);
      }
      writer.line('#pragma omp barrier');
    };
    if (few) writer.block('if (!few)', body);
    else body();
  }

  /** The bounds of a group's tasks. Rounded products have one for all, as they wait for packed operands alone. */
  private scheduleOf(group: MatmulGroup): ProductSchedule {
    if (this.isBlocked(group)) return { rows: blockRows, columns: chunkOf(group, columnsOfBlocks), depth: blockDepth };
    if (this.isRounded(group)) return { rows: blockRows, columns: chunkOf(group), depth: blockDepth };
    return this.surroundings.scheduleOf(this.shapeOf(group));
  }

  /** Whether all products of a group are of bfloat16: a task then finishes its rows block by block. */
  private isBlocked(group: MatmulGroup): boolean {
    return group.products.every(node => this.rights.get(this.rightKey(node, group))!.suffix === '_bf16');
  }

  private isRounded(group: MatmulGroup): boolean {
    return group.products.some(node => this.rights.get(this.rightKey(node, group))!.suffix !== '');
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
    };
  }

  /** Floats of a thread's scratch before a group's tiles. */
  private tilesAt(group: MatmulGroup): number {
    const { columns, depth } = this.scheduleOf(group);
    const isRounded = this.isRounded(group);
    const packs = group.products.some(node => this.rights.get(this.rightKey(node, group))!.suffix === '');
    return Math.max(isRounded ? matmulScratch : 0, packs ? packingScratch(columns, depth) : 0);
  }

  private scratchOf(group: MatmulGroup): number {
    const { rows, columns } = this.scheduleOf(group);
    return this.tilesAt(group) + (this.isDirect(group) ? 0 : group.products.length * rows * columns);
  }

  private group(writer: Writer, group: MatmulGroup, few: boolean): void {
    const columns = columnCount(group);
    const schedule = this.scheduleOf(group);
    const width = schedule.columns;
    const isRounded = this.isRounded(group);
    const first = this.named.get(group.products[0]!)!;
    const rows = this.names.unique(`${first}_rows`);
    // Tasks of packed operands have a fixed number of columns; others divide as rows and threads ask for.
    const isPacked = isRounded && !this.isBlocked(group);
    const isDivided = isPacked ? width < columns : columnStep(group) < columns;
    const run = isDivided ? { column: 'column', columns: 'columns' } : { column: '0', columns: String(columns) };
    const tilesAt = this.tilesAt(group);
    const task: Task = {
      group,
      ...run,
      top: '0',
      rows: 'rows',
      width,
      few,
      names: new Names(this.names),
      schedule,
      tilesAt,
      lefts: new Map(),
    };
    writer.comment(group.products.map(node => this.formula(node)));
    writer.line(`const int64_t ${rows} = ${countText(group.rows)};`);
    const most = this.names.unique(`${first}_task`);
    if (this.isBlocked(group)) {
      const [node] = group.products as [Node];
      const bounds = `${countText(innerOf(node))}, ${width}`;
      const divided = `malc_divide_blocks(${rows}, ${columns}, ${columnStep(group)}, ${bounds})`;
      const ofFew = `(malc_task){ ${rows}, ${chunkOf(group, columnsOfFew)} }`;
      writer.line(`const malc_task ${most} = ${few ? `few ? ${ofFew} : ` : ''}${divided};`);
    } else if (isRounded) {
      const chunks = Math.ceil(columns / width);
      const columnsWanted = this.surroundings.dtype === 'int8' ? 2 * columnsOfFew : columnsOfFew;
      const atOnce = few && isDivided ? `few ? ${chunkOf(group, columnsWanted)} : ${width}` : width;
      writer.line(`const malc_task ${most} = { malc_task_rows(${rows}, ${chunks}), ${atOnce} };`);
    } else {
      writer.comment([describeSchedule(schedule)]);
      const bounds = `(malc_task){ ${schedule.rows}, ${schedule.columns} }`;
      const divided = `malc_divide(${rows}, ${columns}, ${columnStep(group)}, ${bounds})`;
      const ofFew = `(malc_task){ ${rows}, ${chunkOf(group, columnsOfFew)} }`;
      writer.line(`const malc_task ${most} = ${few ? `few ? ${ofFew} : ` : ''}${divided};`);
    }
    const body = () => {
      writer.line(`const int64_t rows = malc_least(${most}.rows, ${rows} - first);`);
      if (isDivided) writer.line(`const int64_t columns = malc_least(${most}.columns, ${columns} - column);`);
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
    const [outer, inner] = this.isBlocked(group) ? [overColumns, overRows] : [overRows, overColumns];
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
    this.declareLefts(writer, task);
    this.multiply(writer, task, node, target, String(columns), this.surroundings.isGradient(node));
  }

  private throughTiles(writer: Writer, task: Task): void {
    const tiles = new Map<Node, string>();
    const finish = (from: string, count: string) => {
      task.group.products.forEach((node, n) => {
        const name = task.names.unique(`${this.named.get(node)}_tile`);
        tiles.set(node, name);
        writer.line(`float *${name} = own + ${task.tilesAt + n * task.schedule.rows * task.width};`);
        this.multiply(writer, { ...task, top: from, rows: count }, node, name, String(task.width), false);
      });
      writer.loop('r', from, plus([from, count]), () => this.epilogueRow(writer, { ...task, top: from }, tiles));
    };
    this.declareLefts(writer, task);
    if (!this.isBlocked(task.group)) {
      finish('0', 'rows');
      return;
    }
    writer.block('for (int64_t top = 0; top < rows; top += MALC_BLOCK_ROWS)', () => {
      writer.line('const int64_t high = malc_least(MALC_BLOCK_ROWS, rows - top);');
      finish('top', 'high');
    });
  }

  /** The task's rows of each left operand. */
  private declareLefts(writer: Writer, { group, names, lefts }: Task): void {
    for (const node of group.products) {
      const [left] = node.inputs as [Node];
      if (lefts.has(left)) continue;
      const name = names.unique(`${this.named.get(left)}_slice`);
      const from = plus([this.named.get(left)!, times('first', strideOf(left.dimensions, group.rows))]);
      const { type, tail } = this.kindOf(left);
      const matrix = matrixText(from, left.dimensions, group.rows, innerOf(node), tail);
      writer.line(`const ${type} ${name} = ${matrix};`);
      lefts.set(left, name);
    }
  }

  private multiply(writer: Writer, task: Task, node: Node, target: string, stride: string, add: boolean): void {
    const { group, column, columns, few, lefts } = task;
    const [left] = node.inputs as [Node];
    const inner = innerOf(node);
    const depth = countText(inner);
    const { matrix, packed, suffix, form } = this.rights.get(this.rightKey(node, group))!;
    const own = lefts.get(left)!;
    const operand = this.operandText(left, own, suffix);
    const from = task.top === '0' ? operand : `malc_operand_from(${operand}, ${task.top}, 0)`;
    const common = `${target}, ${stride}, ${from}, ${task.rows}`;
    if (few && !add) {
      const right = form ? packed : matrix;
      const place = `${target}, ${stride}, ${own}, ${task.rows}, ${right}, ${depth}, ${column}, ${columns}`;
      writer.line(`if (few) malc_multiply_few${form ? `${suffix}(${place}, own)` : `(${place})`};`);
    }
    const otherwise = few && !add ? 'else ' : '';
    if (suffix === '_int8') {
      if (add) throw new Error(`${this.formula(node)}: products of 8-bit numbers are not added to what is there`);
      writer.line(
        `${otherwise}malc_multiply_int8(${target}, ${stride}, ${own}, ${task.rows}, ${packed}, ${depth}, ${column}, ${columns}, own);`,
      );
      return;
    }
    if (suffix === '_bf16') {
      const place = `${packed}, ${depth}, ${column}, ${columns}, own, ${add ? 'adds' : 'false'}`;
      writer.line(`${otherwise}malc_multiply_bf16(${common}, ${place});`);
      return;
    }
    const right = `malc_columns(${matrix}, ${column})`;
    const place = `${right}, ${depth}, ${columns}, ${task.schedule.depth}, own, ${add ? 'adds' : 'false'}`;
    writer.line(`${otherwise}malc_multiply_packing(${common}, ${place});`);
  }

  /** Finishes row `r` of the tiles: the epilogue's maps, and the stores. */
  private epilogueRow(writer: Writer, task: Task, tiles: ReadonlyMap<Node, string>): void {
    const { group, column, columns, width, names } = task;
    const { storageOf } = this.surroundings;
    const inside = new Set(group.epilogue);
    const flat = group.columns.length === 1;
    const step = productOf(group.columns.slice(1).map(dim => dim.size!));
    const external = [...new Set(group.epilogue.flatMap(node => node.inputs.flatMap(stored)))].filter(
      node => !inside.has(node) && !tiles.has(node),
    );
    const at = this.rowCoordinates(writer, group, external);
    const pointers = new Map<Node, string>();
    const targets = new Map<Node, string>();
    for (const [node, tile] of tiles) {
      const name = names.unique(`${this.named.get(node)}_done`);
      writer.line(
        `const float *${name} = ${tile} + ${times(task.top === '0' ? 'r' : `(r - ${task.top})`, String(width))};`,
      );
      pointers.set(node, name);
    }
    for (const node of [...external, ...group.outputs]) {
      const hasColumns = node.dimensions.some(dim => !hasDimension(group.rows, dim.name));
      const hasRows = node.dimensions.some(dim => hasDimension(group.rows, dim.name));
      if (!hasRows || !hasColumns) continue;
      const isOutput = group.outputs.includes(node);
      const name = names.unique(`${this.named.get(node)}_row`);
      const own = node.dimensions.filter(dim => !hasDimension(group.rows, dim.name));
      const leads = sameDimensions(node.dimensions.slice(0, group.rows.length), group.rows);
      const offset = leads ? times('(first + r)', countText(own)) : offsetText(node.dimensions, at);
      const type = elementType(node, storageOf(node));
      writer.line(`${isOutput ? '' : 'const '}${type} *${name} = ${this.named.get(node)} + ${offset};`);
      (isOutput ? targets : pointers).set(node, name);
    }
    const read = (node: Node, place: Coordinates): string => {
      const pointer = pointers.get(node);
      if (tiles.has(node))
        return `${pointer}[${offsetText(group.columns, place)}${column === '0' ? '' : ` - ${column}`}]`;
      const storage = storageOf(node);
      if (pointer) return widened(`${pointer}[${offsetBeside(node.dimensions, place, group.rows)}]`, node, storage);
      const index = sameDimensions(node.dimensions, group.rows) ? '(first + r)' : offsetText(node.dimensions, place);
      return widened(`${this.named.get(node)}[${index}]`, node, storage);
    };
    const bounds = (dim: Dimension, axis: number): [string, string] =>
      axis > 0 || column === '0'
        ? ['0', sizeText(dim)]
        : flat
          ? [column, `${column} + ${columns}`]
          : [`${column} / ${step}`, `(${column} + ${columns}) / ${step}`];
    columnLoops(writer, group.columns, bounds, inside, '#pragma omp simd', (columnCoordinates, segment) => {
      const place = new Map([...at, ...columnCoordinates]);
      const nameOf = (node: Node) =>
        group.outputs.includes(node)
          ? `${this.named.get(node)}_value`
          : (this.named.get(node) ?? this.surroundings.nameOf(node));
      const bufferOf = (node: Node) => this.named.get(node)!;
      const elements = new Elements(writer, { inside, read, nameOf, bufferOf, segment });
      for (const node of group.outputs) {
        const value = elements.stored(node, place, group.epilogue);
        const target = `${targets.get(node)}[${offsetText(group.columns, place)}]`;
        writer.line(assigned(target, narrowed(value, storageOf(node)), node, this.surroundings));
      }
    });
  }

  private rowCoordinates(writer: Writer, group: MatmulGroup, external: readonly Node[]): Map<string, string> {
    const { rows } = group;
    if (rows.length === 1) return new Map([[rows[0]!.name, '(first + r)']]);
    const at = new Map(rows.map(dim => [dim.name, coordinateName(dim)]));
    const drawn = group.epilogue.some(node => node.inputs.some(input => input.primitive?.name === 'random'));
    const used = rows.filter(
      dim =>
        drawn ||
        external.some(
          node =>
            hasDimension(node.dimensions, dim.name) && !sameDimensions(node.dimensions.slice(0, rows.length), rows),
        ),
    );
    for (const dim of used) {
      const axis = rows.indexOf(dim);
      const after = rows.slice(axis + 1);
      const above = dividedBy('(first + r)', after);
      writer.line(`const int64_t ${at.get(dim.name)} = ${axis > 0 ? `${above} % ${sizeText(dim)}` : above};`);
    }
    return at;
  }

  /** How an operand of products is described in C: one of bfloat16 says so. */
  private kindOf(operand: Node): { type: string; tail: string; isNarrow: boolean } {
    const isNarrow = this.surroundings.storageOf(operand) === 'bf16';
    return isNarrow ? { type: 'malc_operand', tail: ', true', isNarrow } : { type: 'malc_matrix', tail: '', isNarrow };
  }

  /** The C text of a declared operand as functions that end so take it. */
  private operandText(operand: Node, name: string, suffix: string): string {
    return suffix === '' || this.kindOf(operand).isNarrow ? name : `malc_floats(${name})`;
  }

  private formula(node: Node): string {
    const [left, right] = node.inputs as [Node, Node];
    return `${this.named.get(node)} = ${this.named.get(left)} x ${this.named.get(right)}, summed over ${innerOf(node)
      .map(dim => dim.name)
      .join(', ')}`;
  }

  private rightKey(node: Node, group: MatmulGroup): string {
    const { exact = false } = node.attributes as ContractAttributes;
    return `${node.inputs[1]!.id}:${group.columns.map(dim => dim.name).join()}:${exact}`;
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

/** The dimensions that a product sums over, in the left operand's order. */
function innerOf(node: Node): Dimension[] {
  const [left, right] = node.inputs as [Node, Node];
  return left.dimensions.filter(dim => hasDimension(right.dimensions, dim.name));
}

/** Elements between two consecutive positions along `dims`, which lie side by side in the tensor. */
function strideOf(tensor: readonly Dimension[], dims: readonly Dimension[]): string {
  const last = tensor.findIndex(dim => dim.name === dims.at(-1)!.name);
  return countText(tensor.slice(last + 1));
}

/**
 * A tensor as a matrix with these rows and columns.
 * @param tail what the initializer has after data and strides
 */
function matrixText(
  data: string,
  tensor: readonly Dimension[],
  rows: readonly Dimension[],
  columns: readonly Dimension[],
  tail: string,
): string {
  const order = tensor.map(dim => dim.name).join();
  const names = (dims: readonly Dimension[]) => dims.map(dim => dim.name);
  const plain = [...names(rows), ...names(columns)].join();
  const transposed = [...names(columns), ...names(rows)].join();
  if (order !== plain && order !== transposed)
    throw new Error(`matmul: [${order}] is not a matrix of [${names(rows)}] by [${names(columns)}]`);
  return `{ ${data}, ${strideOf(tensor, rows)}, ${strideOf(tensor, columns)}${tail} }`;
}
