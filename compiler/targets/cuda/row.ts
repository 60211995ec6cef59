// Emits row kernels: norms, losses, sums of gradients and whatever else visits rows. A warp or a block shares a row, each
// of its lanes some columns, four at a time where they lie aligned; a row's reductions cut its columns into passes. Totals
// over the rows are summed in parts, which a second launch adds in order.
import { Elements } from '../../emission/elements.ts';
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
} from '../../emission/index-text.ts';
import { addsArgument, assigned, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension, hasDimension, product, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { isTotal } from '../../kernels/forms.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import type { ReduceAttributes } from '../../ops/reduce.ts';
import { extentOf } from '../../plan/extent.ts';
import { Columns } from './columns.ts';
import {
  type Argument,
  elementType,
  type KernelSource,
  type Launch,
  narrowed,
  parameterList,
  type Surroundings,
  widened,
} from './kernel-source.ts';

/** Parts of a total at most: malc_parts of templates/cuda/rows.h. */
const mostParts = 256;
/** Totals of more floats are summed in global memory: several blocks must fit into a multiprocessor's shared memory. */
const mostSharedFloats = 10240;
/** Threads of a block in which each warp, or each thread, has rows of its own. */
const usualThreads = 256;

export function emitRow(kernel: RowKernel, surroundings: Surroundings): KernelSource {
  return new RowEmitter(kernel, surroundings).emit();
}

/** Threads that share a row: enough for each to have a few columns, and no more. */
function lanesOf(columns: readonly Dimension[]): number {
  if (columns.some(dim => dim.size === null)) return usualThreads;
  const width = product(columns.map(dim => dim.size!));
  const most = width > 16384 ? 512 : usualThreads;
  return Math.min(most, Math.max(32, Math.ceil(width / 8 / 32) * 32));
}

class RowEmitter {
  private readonly kernel: RowKernel;
  private readonly surroundings: Surroundings;
  private readonly names = new Names();
  private readonly named = new Map<Node, string>();
  private readonly locals = new Map<Node, string>();
  /** Local names of row values, once they are known. */
  private readonly rowValues = new Map<Node, string>();
  private readonly inside: ReadonlySet<Node>;
  private readonly totals: readonly Node[];
  private readonly lanes: number;

  constructor(kernel: RowKernel, surroundings: Surroundings) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    this.inside = new Set(kernel.members);
    this.totals = kernel.members.filter(node => isTotal(node, kernel.rows));
    this.lanes = lanesOf(kernel.columns);
    for (const taken of ['lane', 'part', 'parts', 'sums', 'n', 'first', 'adds', 'partner', 'shared'])
      this.names.unique(taken);
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, this.names.unique(surroundings.nameOf(node)));
  }

  emit(): KernelSource {
    const { kernel, surroundings } = this;
    const extents = this.totals.map(node => {
      const { runtime, count } = extentOf(node.dimensions);
      return { runtime, count: count * mostParts };
    });
    const list: Argument[] = [
      ...sizeArguments([kernel.rows, kernel.columns, ...kernel.inputs.map(node => node.dimensions)]),
      ...kernel.inputs.map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, surroundings),
      ...(this.totals.length > 0 ? [{ kind: 'workspace' as const, extents }] : []),
    ];
    const writer = new Writer();
    const parameters = parameterList(list, surroundings.storageOf);
    writer.comment(surroundings.comment);
    writer.block(`static __global__ void ${ownName}(${parameters})`, () => {
      if (this.totals.length > 0) this.rowsInParts(writer);
      else this.rowsAlone(writer);
    });
    if (this.totals.length > 0) {
      writer.line();
      writer.block(`static __global__ void ${ownName}_second(${parameters})`, () => this.addParts(writer));
    }
    return { text: writer.toString(), arguments: list, launches: this.launches() };
  }

  private get rowCount(): string {
    return countText(this.kernel.rows);
  }

  /** Rows of a block: of one that shares each row it is one. */
  private get rowsOfBlock(): number {
    if (this.kernel.columns.length === 0) return usualThreads;
    return this.lanes === 32 ? usualThreads / 32 : 1;
  }

  private launches(): Launch[] {
    const { rowCount, rowsOfBlock } = this;
    if (this.totals.length > 0) {
      const widths = this.totals.map(({ dimensions }) => countText(dimensions));
      // All totals of elements are as wide as the columns.
      const widest = widths.find(width => width !== '1') ?? '1';
      const shared = String(this.inShared ? 4 * this.totalFloats : 0);
      return [
        { kernel: ownName, grid: `malc_parts(${rowCount})`, block: String(this.lanes), shared },
        { kernel: `${ownName}_second`, grid: `(${widest} + 127) / 128`, block: '128', shared: '0' },
      ];
    }
    const grid = rowsOfBlock === 1 ? rowCount : `(${plus([rowCount, String(rowsOfBlock - 1)])}) / ${rowsOfBlock}`;
    return [
      { kernel: ownName, grid, block: String(Math.max(this.lanes, rowsOfBlock * this.threadsOfRow)), shared: '0' },
    ];
  }

  private get threadsOfRow(): number {
    return this.kernel.columns.length === 0 ? 1 : this.lanes;
  }

  private rowsAlone(writer: Writer): void {
    const { kernel, lanes, rowsOfBlock } = this;
    const body = writer.inside();
    this.row(body);
    if (kernel.columns.length === 0)
      writer.line(`const int64_t row = (int64_t)blockIdx.x * ${usualThreads} + threadIdx.x;`);
    else if (rowsOfBlock === 1) writer.line('const int64_t row = blockIdx.x;');
    else writer.line(`const int64_t row = (int64_t)blockIdx.x * ${rowsOfBlock} + threadIdx.x / ${lanes};`);
    if (rowsOfBlock > 1) writer.line(`if (row >= ${this.rowCount}) return;`);
    if (/\blane\b/.test(body.toString()))
      writer.line(`const int lane = ${rowsOfBlock > 1 ? `threadIdx.x % ${lanes}` : 'threadIdx.x'};`);
    writer.append(body);
  }

  // ---- Totals ----

  private get totalFloats(): number {
    return this.totals.reduce((sum, { dimensions }) => sum + constantCount(dimensions), 0);
  }

  private get inShared(): boolean {
    const isFixed = this.kernel.columns.every(dim => dim.size !== null);
    return this.vectorTotals.length > 0 && isFixed && this.totalFloats <= mostSharedFloats;
  }

  private get vectorTotals(): Node[] {
    return this.totals.filter(({ dimensions }) => dimensions.length > 0);
  }

  /** Where the parts of each total begin in the workspace. */
  private partsOf(node: Node): string {
    const before = this.totals.slice(0, this.totals.indexOf(node)).map(({ dimensions }) => countText(dimensions));
    return plus(['workspace', ...before.map(width => times('parts', width))]);
  }

  /** Each block has a part of the rows, and sums of its own. */
  private rowsInParts(writer: Writer): void {
    const alone = this.kernel.columns.length === 0;
    writer.line(`const int64_t rows = ${this.rowCount}, parts = gridDim.x, part = blockIdx.x;`);
    writer.line('const int lane = threadIdx.x;');
    if (this.inShared) writer.line('float *sums = reinterpret_cast<float *>(dynamic_shared());');
    let before = 0;
    for (const node of this.totals) {
      const name = this.names.unique(`${this.named.get(node)}_part`);
      this.rowValues.set(node, name);
      if (node.dimensions.length === 0) {
        writer.line(`float ${name} = 0.0f;`);
        continue;
      }
      const width = countText(node.dimensions);
      const place = this.inShared ? plus(['sums', String(before)]) : `${this.partsOf(node)} + ${times('part', width)}`;
      writer.line(`float *${name} = ${place};`);
      writer.line(`for (int i = lane; i < ${width}; i += ${this.lanes}) ${name}[i] = 0.0f;`);
      before += constantCount(node.dimensions);
    }
    if (this.vectorTotals.length > 0) writer.line('__syncthreads(); // columns are owned otherwise from here on');
    const [from, to] = ['rows * part / parts', 'rows * (part + 1) / parts'];
    if (alone) writer.loop('row', `${from} + lane`, to, () => this.row(writer), 32);
    else writer.loop('row', from, to, () => this.row(writer));
    if (this.inShared) writer.line('__syncthreads();');
    for (const node of this.totals) {
      const name = this.rowValues.get(node)!;
      const parts = this.partsOf(node);
      if (node.dimensions.length === 0) {
        if (alone) writer.line(`${name} = malc_over_lanes<32, malc_sum_of>(${name});`);
        writer.line(`if (lane == 0) (${parts})[part] = ${name};`);
      } else if (this.inShared) {
        const width = countText(node.dimensions);
        writer.line(
          `for (int i = lane; i < ${width}; i += ${this.lanes}) (${parts})[${times('part', width)} + i] = ${name}[i];`,
        );
      }
    }
  }

  private addParts(writer: Writer): void {
    writer.line(`const int64_t parts = malc_parts(${this.rowCount});`);
    writer.line('const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;');
    for (const node of this.totals) {
      const width = countText(node.dimensions);
      const name = this.named.get(node)!;
      writer.block(`if (i < ${width})`, () => {
        writer.line('double sum = 0;');
        const place = width === '1' ? 'part' : `${times('part', width)} + i`;
        writer.line(`for (int64_t part = 0; part < parts; part++) sum += (${this.partsOf(node)})[${place}];`);
        writer.line(assigned(`${name}[i]`, '(float)sum', node, this.surroundings));
      });
    }
  }

  // ---- One row ----

  /** One row, after the coordinates of its dimensions that something in it reads besides the row's number. */
  private row(writer: Writer): void {
    const { rows } = this.kernel;
    const at = new Map(rows.map(dim => [dim.name, rows.length === 1 ? 'row' : coordinateName(dim)]));
    const body = writer.inside();
    this.rowBody(body, at);
    const text = body.toString();
    rows.forEach((dim, n) => {
      const name = at.get(dim.name)!;
      if (rows.length === 1 || !new RegExp(`\\b${name}\\b`).test(text)) return;
      const above = dividedBy('row', rows.slice(n + 1));
      writer.line(`const int64_t ${name} = ${n > 0 ? `${above} % ${sizeText(dim)}` : above};`);
    });
    writer.append(body);
  }

  /** Row values that are ready, then a pass over the columns, and so on while reductions give new row values. */
  private rowBody(writer: Writer, at: Coordinates): void {
    const rowNames = this.rowPointers(writer, at);
    const rowElements = new Elements(writer, {
      inside: this.rowMaps(),
      read: (node, place) => this.readElement(node, place, rowNames),
      nameOf: node => this.localName(node),
      bufferOf: node => this.named.get(node)!,
      segment: new Map(),
    });
    const levels = this.levels();
    const last = Math.max(0, ...levels.values());
    for (let level = 0; level <= last; level++) {
      for (const node of this.kernel.members) {
        if (levels.get(node) !== level || !this.isRowMap(node)) continue;
        this.rowValues.set(node, rowElements.value(node, at));
        this.storeRow(writer, node);
      }
      const nodes = this.kernel.members.filter(node => levels.get(node) === level);
      this.pass(writer, nodes, at, rowNames, rowElements);
      for (const node of nodes) {
        if (this.isColumnReduction(node)) this.storeRow(writer, node);
        if (!this.totals.includes(node) || this.isElement(node.inputs[0]!)) continue;
        const value = this.rowValues.get(node.inputs[0]!) ?? this.readElement(node.inputs[0]!, at, rowNames);
        writer.line(`${this.rowValues.get(node)} += ${value};`);
      }
    }
  }

  /** A pass over the columns: sums of this level's reductions and totals, and stores of this level's outputs. */
  private pass(
    writer: Writer,
    nodes: readonly Node[],
    at: Coordinates,
    rowNames: ReadonlyMap<Node, string>,
    outer: Elements,
  ): void {
    const { kernel, lanes, surroundings } = this;
    const reductions = nodes.filter(node => this.isColumnReduction(node));
    const stores = nodes.filter(node => this.isElement(node) && kernel.outputs.includes(node));
    const totals = nodes.filter(node => this.totals.includes(node) && this.isElement(node.inputs[0]!));
    if (reductions.length + stores.length + totals.length === 0) return;
    for (const node of reductions) {
      const name = this.localName(node);
      this.rowValues.set(node, name);
      writer.line(`float ${name} = ${this.isSum(node) ? '0.0f' : '-INFINITY'};`);
    }
    const needed = this.neededElements([...reductions, ...totals].map(node => node.inputs[0]!).concat(stores));
    const loop = new Columns(kernel.columns, lanes, needed, this.names);
    loop.write(writer, (body, place, segment) => {
      const everywhere = new Map([...at, ...place]);
      const elements = new Elements(body, {
        inside: needed,
        read: (node, where) => {
          const base = rowNames.get(node) ?? this.named.get(node)!;
          const beside = (point: Coordinates) =>
            rowNames.has(node) ? offsetBeside(node.dimensions, point, kernel.rows) : offsetText(node.dimensions, point);
          const isRowValue = this.rowValues.has(node) && !this.totals.includes(node);
          const four = isRowValue ? null : loop.loaded(node, this.named.get(node)!, base, where, beside);
          return four ?? this.readElement(node, where, rowNames);
        },
        nameOf: node => this.localName(node),
        bufferOf: node => this.named.get(node)!,
        segment,
        outer,
      });
      for (const node of stores) {
        const value = elements.stored(node, everywhere, kernel.members);
        const adds = surroundings.isGradient(node) ? 'adds' : surroundings.accumulates(node) ? 'true' : 'false';
        const base = rowNames.get(node) ?? this.named.get(node)!;
        const four = loop.storing(this.named.get(node)!, base, adds);
        if (four) body.line(assigned(four, value, node, surroundings));
        else {
          const target = `${base}[${offsetText(kernel.columns, everywhere)}]`;
          body.line(assigned(target, narrowed(value, surroundings.storageOf(node)), node, surroundings));
        }
      }
      for (const node of reductions) {
        const value = elements.value(node.inputs[0]!, everywhere);
        const name = this.rowValues.get(node)!;
        body.line(this.isSum(node) ? `${name} += ${value};` : `${name} = malc_max(${name}, ${value});`);
      }
      for (const node of totals) {
        const part = this.rowValues.get(node)!;
        const value = elements.value(node.inputs[0]!, everywhere);
        const four = loop.storing(part, part, 'true');
        body.line(`${four ?? `${part}[${offsetText(node.dimensions, everywhere)}]`} += ${value};`);
      }
    });
    for (const node of reductions) {
      const name = this.rowValues.get(node)!;
      writer.line(`${name} = malc_over_lanes<${lanes}, ${this.isSum(node) ? 'malc_sum_of' : 'malc_max_of'}>(${name});`);
    }
  }

  /** Where a row of a tensor begins. Dimensions that lead the tensor as they lead the rows are counted as one. */
  private rowOffset({ dimensions }: Node, at: Coordinates): string {
    const { rows } = this.kernel;
    const differs = rows.findIndex((dim, n) => dimensions[n]?.name !== dim.name);
    const shared = differs < 0 ? rows.length : differs;
    if (shared < 2 && shared < rows.length) return offsetText(dimensions, at);
    const rest = dimensions.slice(shared);
    return plus([times(dividedBy('row', rows.slice(shared)), countText(rest)), offsetText(rest, at)]);
  }

  /** For inputs and outputs with rows and columns: a pointer to this row. */
  private rowPointers(writer: Writer, at: Coordinates): Map<Node, string> {
    const pointers = new Map<Node, string>();
    for (const node of new Set([...this.kernel.inputs, ...this.kernel.outputs])) {
      if (this.totals.includes(node)) continue;
      const columns = node.dimensions.filter(dim => !hasDimension(this.kernel.rows, dim.name));
      const rows = node.dimensions.filter(dim => hasDimension(this.kernel.rows, dim.name));
      if (columns.length === 0 || rows.length === 0) continue;
      const name = this.names.unique(`${this.named.get(node)}_row`);
      const type = elementType(node, this.surroundings.storageOf(node));
      const constant = this.kernel.outputs.includes(node) ? '' : 'const ';
      writer.line(`${constant}${type} *${name} = ${plus([this.named.get(node)!, this.rowOffset(node, at)])};`);
      pointers.set(node, name);
    }
    return pointers;
  }

  /** An element of something that the loop at hand does not compute: an input, an earlier output, a row value. */
  private readElement(node: Node, at: Coordinates, rowNames: ReadonlyMap<Node, string>): string {
    const rowValue = this.rowValues.get(node);
    if (rowValue && !this.totals.includes(node)) return rowValue;
    const storage = this.surroundings.storageOf(node);
    const pointer = rowNames.get(node);
    if (pointer) return widened(`${pointer}[${offsetBeside(node.dimensions, at, this.kernel.rows)}]`, node, storage);
    const isRowValue = sameDimensions(node.dimensions, this.kernel.rows) && node.dimensions.length > 0;
    return widened(`${this.named.get(node)}[${isRowValue ? 'row' : offsetText(node.dimensions, at)}]`, node, storage);
  }

  private storeRow(writer: Writer, node: Node): void {
    if (!this.kernel.outputs.includes(node)) return;
    const store = assigned(`${this.named.get(node)}[row]`, this.rowValues.get(node)!, node, this.surroundings);
    writer.line(this.kernel.columns.length === 0 ? store : `if (lane == 0) ${store}`);
  }

  // ---- What members are ----

  private isElement(node: Node): boolean {
    const { rows, columns } = this.kernel;
    return columns.length > 0 && node.dimensions.length === rows.length + columns.length;
  }

  private isColumnReduction(node: Node): boolean {
    return node.primitive?.name === 'reduce' && !this.totals.includes(node);
  }

  private isRowMap(node: Node): boolean {
    return node.primitive?.name === 'map' && !this.isElement(node);
  }

  private isSum(node: Node): boolean {
    return (node.attributes as ReduceAttributes).operation === 'sum';
  }

  /** A value's name, or another where that is the buffer's that it goes to. */
  private localName(node: Node): string {
    const known = this.locals.get(node);
    if (known) return known;
    const name = this.named.get(node) ?? this.surroundings.nameOf(node);
    const local = this.kernel.outputs.includes(node) ? this.names.unique(`${name}_value`) : name;
    this.locals.set(node, local);
    return local;
  }

  private rowMaps(): Set<Node> {
    return new Set(this.kernel.members.filter(node => this.isRowMap(node)));
  }

  /** The members that elements are made of, down to inputs and row values. */
  private neededElements(targets: readonly Node[]): Set<Node> {
    const needed = new Set<Node>();
    const visit = (node: Node) => {
      if (!this.inside.has(node) || !this.isElement(node) || needed.has(node)) return;
      needed.add(node);
      node.inputs.forEach(visit);
    };
    targets.forEach(visit);
    return needed;
  }

  /** In which pass each member is computed: one after the reductions that it reads. */
  private levels(): Map<Node, number> {
    const levels = new Map<Node, number>();
    for (const node of this.kernel.members) {
      const before = node.inputs
        .filter(input => this.inside.has(input))
        .map(input => levels.get(input)! + (this.isColumnReduction(input) ? 1 : 0));
      levels.set(node, Math.max(0, ...before));
    }
    return levels;
  }
}
