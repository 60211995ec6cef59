// Emits row kernels: norms, losses, sums of gradients and whatever else visits rows. A part of a warp, or a block, shares a
// row, each of its lanes some columns (columns.ts); a row's reductions cut its columns into passes. Totals over the rows
// are summed in parts, which a second launch adds in order.
import { type Coordinates, countText, offsetBeside, offsetText, plus, times } from '../../emission/index-text.ts';
import { addsArgument, assigned, sizeArguments } from '../../emission/kernel-outputs.ts';
import { type Pass, RowBody } from '../../emission/row-body.ts';
import { ownName, Writer } from '../../emission/writer.ts';
import { constantCount } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import { extentOf } from '../../plan/extent.ts';
import { storedDimensions } from '../../plan/storage.ts';
import { Columns } from './columns.ts';
import {
  type Argument,
  elementType,
  type KernelSource,
  type Launch,
  narrowed,
  overlappingParameterList,
  type Surroundings,
  widened,
} from './kernel-source.ts';
import { blocksOfMultiprocessor, multiprocessors, planRow, type RowPlan, vectorsOf } from './row-plan.ts';

/** Threads of a block in which several rows, or each thread, have lanes of their own. */
const usualThreads = 256;
/** Columns that a block of a total's second launch adds: malc_total_of_parts of templates/cuda/rows.h. */
const columnsOfTotal = 32;

export function emitRow(kernel: RowKernel, surroundings: Surroundings): KernelSource {
  return new RowEmitter(kernel, surroundings).emit();
}

/** What the frames of these kernels call things. */
const taken = [
  'first_partner',
  'lane',
  'part',
  'parts',
  'sums',
  'n',
  'first',
  'adds',
  'partner',
  'shared',
  'turn',
  'kept',
  'room',
];

class RowEmitter extends RowBody<Surroundings> {
  private readonly plan: RowPlan;
  /** What the threads have at hand, once it is declared. */
  private readonly atHand = new Map<Node, string>();
  private isPassed = false;

  constructor(kernel: RowKernel, surroundings: Surroundings) {
    super(kernel, surroundings, { elementType, widened, storedDimensions, comparesIntegers: true }, taken);
    this.plan = planRow(kernel, this.totals, surroundings.storageOf);
  }

  emit(): KernelSource {
    const { kernel, surroundings } = this;
    const extents = this.totals.map(node => {
      const { runtime, count } = extentOf(node.dimensions);
      return { runtime, count: count * this.mostParts };
    });
    const hasParts = this.totals.length > 0 && !this.plan.isAcross;
    const list: Argument[] = [
      ...sizeArguments([kernel.rows, kernel.columns, ...kernel.inputs.map(node => node.dimensions)]),
      ...kernel.inputs.map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, surroundings),
      ...(this.plan.kept ? [this.room(this.plan.kept)] : []),
      ...(hasParts ? [{ kind: 'workspace' as const, extents }] : []),
    ];
    const writer = new Writer();
    const parameters = overlappingParameterList(list, surroundings.storageOf);
    const [{ block }] = this.launches() as [Launch];
    const head = (bounds: string, name: string) =>
      `static __global__ void __launch_bounds__(${bounds}) ${name}(${parameters})`;
    writer.comment(surroundings.comment);
    const bounds = `${block}, ${blocksOfMultiprocessor(this.plan, Number(block))}`;
    writer.block(head(bounds, ownName), () => {
      writer.line('malc_follow();');
      if (this.plan.isAcross) this.columnsAlone(writer);
      else if (hasParts) this.rowsInParts(writer);
      else this.rowsAlone(writer);
    });
    if (hasParts) {
      writer.line();
      writer.block(head('1024', `${ownName}_second`), () => {
        writer.line('malc_follow();');
        this.addParts(writer);
      });
    }
    // Where all rows are of bfloat16, and long, exponentials are what takes time.
    const text =
      this.plan.share.some === 8 ? writer.toString().replaceAll('malc_exp(', 'malc_exp_of_bf16(') : writer.toString();
    const launches = this.launches().map(launch => ({ ...launch, overlaps: true }));
    return { text, arguments: list, launches };
  }

  /** Elements of a row that a block keeps. */
  private room(row: Node): Argument {
    const columns = countText(this.storedDimensions(row).slice(this.kernel.rows.length));
    const type = elementType(row, this.surroundings.storageOf(row));
    return { kind: 'text', text: `malc_row_room(${columns}, sizeof(${type}))`, declaration: 'int room' };
  }

  /** Parts of totals at most: one for each block that a large GPU runs at once. */
  private get mostParts(): number {
    return multiprocessors * blocksOfMultiprocessor(this.plan, this.threadsInParts);
  }

  /** The threads of a block that has a part of the rows. */
  private get threadsInParts(): number {
    return Math.max(32, this.plan.share.lanes);
  }

  private get rowCount(): string {
    return countText(this.kernel.rows);
  }

  /** Rows of a block: of one that shares each row it is one. */
  private get rowsOfBlock(): number {
    if (this.kernel.columns.length === 0) return usualThreads;
    return this.plan.share.lanes <= 32 ? usualThreads / this.plan.share.lanes : 1;
  }

  private launches(): Launch[] {
    const { rowCount, rowsOfBlock, plan } = this;
    const { share } = plan;
    const [widest] = vectorsOf(this.totals).map(({ dimensions }) => countText(dimensions));
    if (this.plan.isAcross) {
      const own = share.some * usualThreads;
      const grid = `(${widest} + ${own - 1}) / ${own}`;
      return [{ kernel: ownName, grid, block: String(usualThreads), shared: '0' }];
    }
    const kept = this.plan.kept
      ? `room * sizeof(${elementType(this.plan.kept, this.surroundings.storageOf(this.plan.kept))})`
      : null;
    if (this.totals.length > 0) {
      const shared = kept ?? String(4 * plan.sharedFloats);
      // All totals of elements are as wide as the columns.
      const grid = `(${widest ?? 1} + ${columnsOfTotal - 1}) / ${columnsOfTotal}`;
      return [
        { kernel: ownName, grid: this.partsText, block: String(this.threadsInParts), shared },
        { kernel: `${ownName}_second`, grid, block: '1024', shared: '0' },
      ];
    }
    const grid = rowsOfBlock === 1 ? rowCount : `(${plus([rowCount, String(rowsOfBlock - 1)])}) / ${rowsOfBlock}`;
    const block = String(Math.max(share.lanes, rowsOfBlock * this.threadsOfRow));
    return [{ kernel: ownName, grid, block, shared: kept ?? '0' }];
  }

  private get partsText(): string {
    return `malc_parts(${this.rowCount}, ${this.mostParts})`;
  }

  private get threadsOfRow(): number {
    return this.kernel.columns.length === 0 ? 1 : this.plan.share.lanes;
  }

  private rowsAlone(writer: Writer): void {
    const { kernel, rowsOfBlock } = this;
    const { share } = this.plan;
    const body = writer.inside();
    this.loadForAllRows(body);
    this.row(body);
    if (kernel.columns.length === 0)
      writer.line(`const int64_t row = (int64_t)blockIdx.x * ${usualThreads} + threadIdx.x;`);
    else if (rowsOfBlock === 1) writer.line('const int64_t row = blockIdx.x;');
    else writer.line(`const int64_t row = (int64_t)blockIdx.x * ${rowsOfBlock} + threadIdx.x / ${share.lanes};`);
    if (rowsOfBlock > 1) writer.line(`if (row >= ${this.rowCount}) return;`);
    if (/\blane\b/.test(body.toString()))
      writer.line(`const int lane = ${rowsOfBlock > 1 ? `threadIdx.x % ${share.lanes}` : 'threadIdx.x'};`);
    this.declareKept(writer);
    writer.append(body);
  }

  private declareKept(writer: Writer): void {
    if (!this.plan.kept) return;
    const type = elementType(this.plan.kept, this.surroundings.storageOf(this.plan.kept));
    writer.line(`${type} *kept = reinterpret_cast<${type} *>(dynamic_shared());`);
  }

  /** Declares what a thread has of a tensor in registers. */
  private declareAtHand(writer: Writer, node: Node, name: string): void {
    const { some, turns } = this.plan.share;
    const isEven =
      constantCount(this.kernel.columns.filter(dim => dim.size !== null)) % (some * this.plan.share.lanes) === 0;
    const turn = this.plan.isAcross || turns === 1 ? '' : '[turn]';
    this.atHand.set(node, `${name}${turn}[n]`);
    const start = this.totals.includes(node) || !isEven ? ' = {}' : '';
    writer.line(`float ${name}${turn && `[${turns}]`}[${some}]${start};`);
  }

  /** Loads or stores what is at hand of tensors: a call for each, and each of the thread's turns. */
  private eachAtHand(writer: Writer, nodes: readonly Node[], callOf: (node: Node, vector: string) => string): void {
    if (nodes.length === 0) return;
    this.columnsOf([], false).each(writer, to => {
      for (const node of nodes) to.line(callOf(node, this.atHand.get(node)!.slice(0, -'[n]'.length)));
    });
  }

  /** Loads what is the same for all rows. */
  private loadForAllRows(writer: Writer): void {
    const { named } = this;
    const { ofAllRows } = this.plan;
    for (const node of ofAllRows) this.declareAtHand(writer, node, this.names.unique(`${named.get(node)}_held`));
    this.eachAtHand(writer, ofAllRows, (node, vector) => `malc_load_vector(${vector}, ${named.get(node)} + column);`);
  }

  private columnsOf(members: Iterable<Node>, isFirst: boolean): Columns {
    const { kernel, names, atHand } = this;
    const { share, kept, isAcross } = this.plan;
    const { columns } = kernel;
    return new Columns({
      columns,
      share,
      members,
      names,
      atHand,
      kept: kept && { node: kept, isFirst },
      isOwn: isAcross,
    });
  }

  // ---- Totals ----

  /** Where the parts of each total begin in the workspace. */
  private partsOf(node: Node): string {
    const before = this.totals.slice(0, this.totals.indexOf(node)).map(({ dimensions }) => countText(dimensions));
    return plus(['workspace', ...before.map(width => times('parts', width))]);
  }

  /** Each block has a part of the rows, and sums of its own: in registers where each thread keeps its columns. */
  private rowsInParts(writer: Writer): void {
    const { ofTotals, sharedFloats } = this.plan;
    const inShared = sharedFloats > 0;
    const alone = this.kernel.columns.length === 0;
    const threads = this.threadsInParts;
    writer.line(`const int64_t rows = ${this.rowCount}, parts = gridDim.x, part = blockIdx.x;`);
    writer.line('const int lane = threadIdx.x;');
    this.declareKept(writer);
    const inMemory = ofTotals.length > 0 ? [] : vectorsOf(this.totals);
    if (inShared) writer.line('float *sums = reinterpret_cast<float *>(dynamic_shared());');
    let before = 0;
    for (const node of this.totals) {
      const name = this.names.unique(`${this.named.get(node)}_part`);
      this.rowValues.set(node, name);
      if (node.dimensions.length === 0) writer.line(`float ${name} = 0.0f;`);
      else if (ofTotals.includes(node)) this.declareAtHand(writer, node, name);
      else {
        const width = countText(node.dimensions);
        const place = inShared ? plus(['sums', String(before)]) : this.ownPart(node);
        writer.line(`float *${name} = ${place};`);
        writer.line(`for (int i = lane; i < ${width}; i += ${threads}) ${name}[i] = 0.0f;`);
        before += constantCount(node.dimensions);
      }
    }
    if (inMemory.length > 0) writer.line('__syncthreads(); // columns are owned otherwise from here on');
    this.loadForAllRows(writer);
    const [from, to] = ['rows * part / parts', 'rows * (part + 1) / parts'];
    if (alone) writer.loop('row', `${from} + lane`, to, () => this.row(writer), threads);
    else writer.loop('row', from, to, () => this.row(writer));
    this.eachAtHand(
      writer,
      ofTotals,
      (node, vector) => `malc_store_vector(${this.ownPart(node)} + column, ${vector});`,
    );
    if (inShared) writer.line('__syncthreads();');
    for (const node of this.totals) {
      const name = this.rowValues.get(node)!;
      if (node.dimensions.length === 0) {
        if (alone) writer.line(`${name} = malc_over_lanes<${threads}, malc_sum_of>(${name});`);
        writer.line(`if (lane == 0) (${this.partsOf(node)})[part] = ${name};`);
      } else if (inShared && inMemory.includes(node)) {
        const width = countText(node.dimensions);
        writer.line(`for (int i = lane; i < ${width}; i += ${threads}) (${this.ownPart(node)})[i] = ${name}[i];`);
      }
    }
  }

  /** A block's own part of a total. */
  private ownPart(node: Node): string {
    return `${this.partsOf(node)} + ${times('part', countText(node.dimensions))}`;
  }

  private addParts(writer: Writer): void {
    writer.line(`const int64_t parts = ${this.partsText};`);
    writer.line(`const int64_t i = (int64_t)blockIdx.x * ${columnsOfTotal} + threadIdx.x % ${columnsOfTotal};`);
    for (const node of this.totals) {
      const width = countText(node.dimensions);
      const total = this.names.unique(`${this.named.get(node)}_total`);
      writer.line(`const float ${total} = malc_total_of_parts(${this.partsOf(node)}, parts, ${width}, i);`);
      writer.line(
        `if (threadIdx.x < ${columnsOfTotal} && i < ${width}) ${assigned(`${this.named.get(node)}[i]`, total, node, this.surroundings)}`,
      );
    }
  }

  /** Each thread has some columns, and goes over all rows. */
  private columnsAlone(writer: Writer): void {
    const { some } = this.plan.share;
    const width = countText(this.kernel.columns);
    writer.line(`const int64_t column = ${some} * ((int64_t)blockIdx.x * ${usualThreads} + threadIdx.x);`);
    writer.line(`if (column >= ${width}) return;`);
    for (const node of this.totals) {
      const name = this.names.unique(`${this.named.get(node)}_sum`);
      this.rowValues.set(node, name);
      this.declareAtHand(writer, node, name);
    }
    writer.line('#pragma unroll 4');
    writer.loop('row', '0', this.rowCount, () => this.row(writer));
    for (const node of this.totals) {
      const adds = this.addsText(node);
      writer.line(`malc_leave_vector(${this.named.get(node)} + column, ${this.rowValues.get(node)}, ${adds});`);
    }
  }

  /** C++ text: whether an output is added to what its buffer holds. */
  private addsText(node: Node): string {
    const { surroundings } = this;
    return surroundings.isGradient(node) ? 'adds' : surroundings.accumulates(node) ? 'true' : 'false';
  }

  // ---- One row ----

  protected override passOverColumns(writer: Writer, pass: Pass): void {
    const { kernel, surroundings } = this;
    const { reductions, stores, totals, needed, at, rowNames } = pass;
    const isFirst = !this.isPassed;
    this.isPassed = true;
    if (isFirst) {
      for (const node of this.plan.ofRow)
        this.declareAtHand(writer, node, this.names.unique(`${this.named.get(node)}_held`));
      this.eachAtHand(
        writer,
        this.plan.ofRow,
        (node, vector) => `malc_load_vector(${vector}, ${rowNames.get(node)} + column);`,
      );
    }
    const loop = this.columnsOf(needed, isFirst);
    loop.write(writer, (body, place, segment) => {
      const everywhere = new Map([...at, ...place]);
      const elements = this.elementsOf(body, pass, segment, (node, where) => {
        const base = rowNames.get(node) ?? this.named.get(node)!;
        const beside = (point: Coordinates) =>
          rowNames.has(node) ? offsetBeside(node.dimensions, point, kernel.rows) : offsetText(node.dimensions, point);
        const isRowValue = this.rowValues.has(node) && !this.totals.includes(node);
        const vector = isRowValue ? null : loop.loaded(node, this.named.get(node)!, base, where, beside);
        return vector ?? this.readElement(node, where, rowNames);
      });
      for (const node of stores) {
        const value = elements.stored(node, everywhere, kernel.members);
        const base = rowNames.get(node) ?? this.named.get(node)!;
        const vector = loop.storing(node, this.named.get(node)!, base, this.addsText(node));
        if (vector) body.line(assigned(vector, value, node, surroundings));
        else {
          const target = `${base}[${offsetText(kernel.columns, everywhere)}]`;
          body.line(assigned(target, narrowed(value, surroundings.storageOf(node)), node, surroundings));
        }
      }
      for (const node of reductions) body.line(this.reduced(node, elements.value(node.inputs[0]!, everywhere)));
      for (const node of totals) {
        const part = this.rowValues.get(node)!;
        const value = elements.value(node.inputs[0]!, everywhere);
        const vector = loop.storing(node, part, part, 'true');
        body.line(`${vector ?? `${part}[${offsetText(node.dimensions, everywhere)}]`} += ${value};`);
      }
    });
    for (const node of reductions) {
      const name = this.rowValues.get(node)!;
      const operation = this.isSum(node) ? 'malc_sum_of' : 'malc_max_of';
      writer.line(`${name} = malc_over_lanes<${this.plan.share.lanes}, ${operation}>(${name});`);
    }
  }

  protected override storeRow(writer: Writer, node: Node): void {
    const store = assigned(`${this.named.get(node)}[row]`, this.rowValues.get(node)!, node, this.surroundings);
    writer.line(this.kernel.columns.length === 0 ? store : `if (lane == 0) ${store}`);
  }
}
