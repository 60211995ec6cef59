// Emits matmul kernels on top of templates/cpu/matmul.h: right operands packed once for all threads, then tasks of rows and
// columns, each finished by its epilogue while its tile is in cache.
import { type Dimension, hasDimension, product as productOf, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, type MatmulKernel, stored } from '../../kernels/kernel.ts';
import type { ContractAttributes } from '../../ops/contract.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { blockRows, matmulScratch, packedBf16, panelColumns } from './block-sizes.ts';
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
import { type Argument, type KernelSource, parameterList, type Surroundings, sizeArguments } from './kernel-source.ts';
import { Names, ownName, Writer } from './writer.ts';

/** A task with many columns takes about this many: MALC_COLUMNS of templates/cpu/matmul.h. */
const columnsAtOnce = 256;

/** Floats of a right operand packed in panels. */
const packedCount = (columns: number) => Math.ceil(columns / panelColumns) * panelColumns;

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
  /** Ends the names of functions for products of bfloat16. */
  readonly suffix: '' | '_bf16';
}

/** What one task of a group computes: all columns, or a run of them. */
interface Task {
  readonly group: MatmulGroup;
  /** C text of the first column and of the number of columns. */
  readonly column: string;
  readonly columns: string;
  /** The most columns of a task: the row length of a tile. */
  readonly width: number;
  /** True where the rows may be few enough for the product that packs nothing. */
  readonly few: boolean;
  /** Names of the task's own scope. */
  readonly names: Names;
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
        const [matrix, packed] = [this.names.unique(`${name}_matrix`), this.names.unique(`${name}_packed`)];
        const isRounded = surroundings.dtype === 'bf16' && !(node.attributes as ContractAttributes).exact;
        const shape = { inner: innerOf(node), columns: group.columns };
        this.rights.set(key, { node: right, ...shape, matrix, packed, suffix: isRounded ? '_bf16' : '' });
      }
  }

  emit(): KernelSource {
    const { kernel } = this;
    const tiles = Math.max(
      ...kernel.groups.map(group => (this.isDirect(group) ? 0 : group.products.length * chunkOf(group))),
    );
    const writer = new Writer();
    const list: Argument[] = [
      ...sizeArguments([
        ...kernel.groups.flatMap(group => [group.rows, group.columns]),
        ...kernel.inputs.map(node => node.dimensions),
      ]),
      ...kernel.inputs.map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      { kind: 'workspace', extents: this.workspace() },
      { kind: 'scratch', floats: matmulScratch + blockRows * tiles },
    ];
    writer.comment(this.surroundings.comment);
    writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
      const few = this.fewRows();
      if (few) writer.line(`const int few = ${few} <= MALC_FEW_ROWS;`);
      this.declareRights(writer);
      writer.line('#pragma omp parallel');
      writer.block('', () => {
        writer.line('float *own = scratch + omp_get_thread_num() * scratch_stride;');
        this.pack(writer, few !== null);
        for (const group of kernel.groups) this.group(writer, group, few !== null);
      });
    });
    return { text: writer.toString(), arguments: list };
  }

  /** The run-time row count, where every group has the same; null where rows are fixed (gradients of weights). */
  private fewRows(): string | null {
    const counts = new Set(this.kernel.groups.map(group => countText(group.rows)));
    const [count] = counts;
    return counts.size === 1 && this.kernel.groups[0]!.rows.some(dim => dim.size === null) ? count! : null;
  }

  private workspace(): Extent[] {
    return [...this.rights.values()].flatMap(({ inner, columns, suffix }) => {
      const { runtime, count } = extentOf(inner);
      const width = productOf(columns.map(dim => dim.size!));
      if (suffix === '') return [{ runtime, count: count * packedCount(width) }];
      const { each, padding } = packedBf16(width);
      return [
        { runtime, count: count * each },
        { runtime: [], count: padding },
      ];
    });
  }

  private declareRights(writer: Writer): void {
    let from = 'workspace';
    for (const { node, matrix, packed, inner, columns, suffix } of this.rights.values()) {
      writer.line(
        `const malc_matrix ${matrix} = ${matrixText(this.named.get(node)!, node.dimensions, inner, columns)};`,
      );
      writer.line(`float *${packed} = ${from};`);
      from = `${packed} + malc_packed_size${suffix}(${countText(inner)}, ${countText(columns)})`;
    }
  }

  private pack(writer: Writer, few: boolean): void {
    const body = () => {
      for (const { matrix, packed, inner, columns, suffix } of this.rights.values())
        writer.line(`malc_pack${suffix}(${packed}, ${matrix}, ${countText(inner)}, ${countText(columns)});`);
      writer.line('#pragma omp barrier');
    };
    if (few) writer.block('if (!few)', body);
    else body();
  }

  private group(writer: Writer, group: MatmulGroup, few: boolean): void {
    const columns = productOf(group.columns.map(dim => dim.size!));
    const width = chunkOf(group);
    const chunks = Math.ceil(columns / width);
    const rows = this.names.unique(`${this.named.get(group.products[0]!)}_rows`);
    const block = this.names.unique(`${this.named.get(group.products[0]!)}_block`);
    const run = chunks > 1 ? { column: 'column', columns: 'columns' } : { column: '0', columns: String(columns) };
    const task: Task = { group, ...run, width, few, names: new Names(this.names), lefts: new Map() };
    const body = () => {
      writer.line(`const int64_t rows = malc_least(${block}, ${rows} - first);`);
      if (chunks > 1) writer.line(`const int64_t columns = malc_least(${width}, ${columns} - column);`);
      if (this.isDirect(group)) this.direct(writer, task, columns);
      else this.throughTiles(writer, task);
    };
    writer.comment(group.products.map(node => this.formula(node)));
    writer.line(`const int64_t ${rows} = ${countText(group.rows)};`);
    writer.line(`const int64_t ${block} = malc_task_rows(${rows}, ${chunks});`);
    const overRows = `for (int64_t first = 0; first < ${rows}; first += ${block})`;
    if (chunks === 1) {
      writer.line('#pragma omp for schedule(dynamic, 1) nowait');
      writer.block(overRows, body);
      return;
    }
    writer.line('#pragma omp for collapse(2) schedule(dynamic, 1) nowait');
    writer.line(overRows);
    writer.inner(() => writer.block(`for (int64_t column = 0; column < ${columns}; column += ${width})`, body));
  }

  /** One product that is an output as it stands: multiplied, or added, right where it belongs. */
  private isDirect({ products, epilogue, outputs }: MatmulGroup): boolean {
    return products.length === 1 && epilogue.length === 0 && outputs.length === 1;
  }

  private direct(writer: Writer, task: Task, columns: number): void {
    const [node] = task.group.products as [Node];
    const target = plus([this.named.get(node)!, times('first', String(columns)), task.column]);
    this.declareLefts(writer, task);
    this.multiply(writer, task, node, target, String(columns), this.surroundings.accumulates(node));
  }

  private throughTiles(writer: Writer, task: Task): void {
    const tiles = new Map<Node, string>();
    this.declareLefts(writer, task);
    task.group.products.forEach((node, n) => {
      const name = task.names.unique(`${this.named.get(node)}_tile`);
      tiles.set(node, name);
      writer.line(`float *${name} = own + MALC_SCRATCH${n === 0 ? '' : ` + ${n * task.width} * MALC_ROWS`};`);
      this.multiply(writer, task, node, name, String(task.width), false);
    });
    writer.loop('r', '0', 'rows', () => this.epilogueRow(writer, task, tiles));
  }

  /** The task's rows of each left operand. */
  private declareLefts(writer: Writer, { group, names, lefts }: Task): void {
    for (const node of group.products) {
      const [left] = node.inputs as [Node];
      if (lefts.has(left)) continue;
      const name = names.unique(`${this.named.get(left)}_slice`);
      const from = plus([this.named.get(left)!, times('first', strideOf(left.dimensions, group.rows))]);
      writer.line(`const malc_matrix ${name} = ${matrixText(from, left.dimensions, group.rows, innerOf(node))};`);
      lefts.set(left, name);
    }
  }

  private multiply(writer: Writer, task: Task, node: Node, target: string, stride: string, add: boolean): void {
    const { group, column, columns, few, lefts } = task;
    const [left] = node.inputs as [Node];
    const inner = innerOf(node);
    const depth = countText(inner);
    const { matrix, packed, suffix } = this.rights.get(this.rightKey(node, group))!;
    const common = `${target}, ${stride}, ${lefts.get(left)}, rows`;
    if (few && !add) writer.line(`if (few) malc_multiply_few(${common}, ${matrix}, ${depth}, ${column}, ${columns});`);
    const otherwise = few && !add ? 'else ' : '';
    if (suffix !== '') {
      const place = `${packed}, ${depth}, ${column}, ${columns}, own, ${add}`;
      writer.line(`${otherwise}malc_multiply_bf16(${common}, ${place});`);
      return;
    }
    if (add) {
      const panels = `malc_packed_panels(${packed}, ${depth}, ${column})`;
      writer.line(`malc_multiply_panels(${common}, ${panels}, ${depth}, ${columns}, own, true);`);
      return;
    }
    writer.line(`${otherwise}malc_multiply(${common}, ${packed}, ${depth}, ${column}, ${columns}, own);`);
  }

  /** Finishes row `r` of the tiles: the epilogue's maps, and the stores. */
  private epilogueRow(writer: Writer, task: Task, tiles: ReadonlyMap<Node, string>): void {
    const { group, column, columns, width, names } = task;
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
      writer.line(`const float *${name} = ${tile} + r * ${width};`);
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
      writer.line(`${isOutput ? '' : 'const '}float *${name} = ${this.named.get(node)} + ${offset};`);
      (isOutput ? targets : pointers).set(node, name);
    }
    const read = (node: Node, place: Coordinates): string => {
      const pointer = pointers.get(node);
      const cast = node.dtype === 'i32' ? '(float)' : '';
      if (tiles.has(node))
        return `${pointer}[${offsetText(group.columns, place)}${column === '0' ? '' : ` - ${column}`}]`;
      if (pointer) return `${cast}${pointer}[${offsetBeside(node.dimensions, place, group.rows)}]`;
      return `${cast}${this.named.get(node)}[${sameDimensions(node.dimensions, group.rows) ? '(first + r)' : offsetText(node.dimensions, place)}]`;
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
        writer.line(`${target} ${this.surroundings.accumulates(node) ? '+=' : '='} ${value};`);
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

/** Columns that one task computes: all of them if they are few, else a run that no head is cut by. */
function chunkOf(group: MatmulGroup): number {
  const columns = productOf(group.columns.map(dim => dim.size!));
  const step = leastCommonMultiple(panelColumns, productOf(group.columns.slice(1).map(dim => dim.size!)));
  return columns <= columnsAtOnce * 1.5 || step >= columns
    ? columns
    : Math.max(step, Math.floor(columnsAtOnce / step) * step);
}

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

/** A tensor as a matrix with these rows and columns. */
function matrixText(
  data: string,
  tensor: readonly Dimension[],
  rows: readonly Dimension[],
  columns: readonly Dimension[],
): string {
  const order = tensor.map(dim => dim.name).join();
  const names = (dims: readonly Dimension[]) => dims.map(dim => dim.name);
  const plain = [...names(rows), ...names(columns)].join();
  const transposed = [...names(columns), ...names(rows)].join();
  if (order !== plain && order !== transposed)
    throw new Error(`matmul: [${order}] is not a matrix of [${names(rows)}] by [${names(columns)}]`);
  return `{ ${data}, ${strideOf(tensor, rows)}, ${strideOf(tensor, columns)} }`;
}
