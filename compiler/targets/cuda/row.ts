// Emits row kernels: norms, losses, sums of gradients and whatever else visits rows. A warp or a block shares a row, each
// of its lanes some columns, four at a time where they lie aligned; a row's reductions cut its columns into passes. Totals
// over the rows are summed in parts, which a second launch adds in order.
import { type Coordinates, countText, offsetBeside, offsetText, plus, times } from '../../emission/index-text.ts';
import { addsArgument, assigned, sizeArguments } from '../../emission/kernel-outputs.ts';
import { type Pass, RowBody } from '../../emission/row-body.ts';
import { ownName, Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension, hasDimension, product } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import { extentOf } from '../../plan/extent.ts';
import { isPadded, storedDimensions } from '../../plan/storage.ts';
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

/** What the frames of these kernels call things. */
const taken = ['lane', 'part', 'parts', 'sums', 'n', 'first', 'adds', 'partner', 'shared'];

class RowEmitter extends RowBody<Surroundings> {
  private readonly lanes: number;

  constructor(kernel: RowKernel, surroundings: Surroundings) {
    super(kernel, surroundings, { elementType, widened, storedDimensions }, taken);
    this.lanes = lanesOf(kernel.columns);
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

  protected override passOverColumns(writer: Writer, pass: Pass): void {
    const { kernel, lanes, surroundings } = this;
    const { reductions, stores, totals, needed, at, rowNames } = pass;
    const loop = new Columns(kernel.columns, lanes, needed, this.names, this.isPaddedAlong);
    loop.write(writer, (body, place, segment) => {
      const everywhere = new Map([...at, ...place]);
      const elements = this.elementsOf(body, pass, segment, (node, where) => {
        const base = rowNames.get(node) ?? this.named.get(node)!;
        const beside = (point: Coordinates) =>
          rowNames.has(node) ? offsetBeside(node.dimensions, point, kernel.rows) : offsetText(node.dimensions, point);
        const isRowValue = this.rowValues.has(node) && !this.totals.includes(node);
        const four = isRowValue ? null : loop.loaded(node, this.named.get(node)!, base, where, beside);
        return four ?? this.readElement(node, where, rowNames);
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
      for (const node of reductions) body.line(this.reduced(node, elements.value(node.inputs[0]!, everywhere)));
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

  /** Whether all that has the only column dimension is padded along it: four elements may go past its end. */
  private get isPaddedAlong(): boolean {
    const { columns, inputs, outputs } = this.kernel;
    if (columns.length !== 1) return false;
    const along = [...inputs, ...outputs].filter(node => hasDimension(node.dimensions, columns[0]!.name));
    return along.every(node => isPadded(node, this.surroundings.storageOf(node)));
  }

  protected override storeRow(writer: Writer, node: Node): void {
    const store = assigned(`${this.named.get(node)}[row]`, this.rowValues.get(node)!, node, this.surroundings);
    writer.line(this.kernel.columns.length === 0 ? store : `if (lane == 0) ${store}`);
  }
}
