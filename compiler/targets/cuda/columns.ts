// How the columns of a row are shared out among threads: one at a time, or four or eight that lie side by side and aligned,
// whose reads and writes are then instructions of 16 bytes (8 for four of bfloat16). A short row is read once, to registers;
// of a long one that several passes read, as much as there is room for is kept in shared memory.
import { type Coordinates, coordinateName, countText, dividedBy, plus, sizeText } from '../../emission/index-text.ts';
import type { Names, Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension, hasDimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import { isPadded, type Storage } from '../../plan/storage.ts';
import { type Neighbours, partnerOf } from './partner.ts';

/** Emits what is done with one element at these coordinates. */
export type Body = (writer: Writer, at: Map<string, string>, partner: ReadonlyMap<string, string>) => void;

export interface Share {
  /** Threads that share the columns. */
  readonly lanes: number;
  /** Columns that a thread has side by side. */
  readonly some: 1 | 4 | 8;
  /** How many times so many it has of a row whose columns are loops unrolled; null where a loop goes over them. */
  readonly turns: number | null;
  /** Whether those side by side may go past the last column, into padding. */
  readonly passesEnd: boolean;
}

/** Elements of a row for each thread, as far as threads go round. */
const usually = 8;
/** Threads that share a row at most: of usual ones, and of long ones. */
const [mostLanes, mostLanesOfLong] = [256, 512];
/** Columns of rows that are long. */
const long = 4096;
/** Turns of a row in registers at most. */
const mostTurns = 4;

/** Lanes of a row at least: several rows may share a warp, but those that are added up. */
const [leastLanes, leastLanesOfTotals] = [4, 32];

/**
 * How a kernel's columns are shared out.
 * @param totals its sums over rows; nothing of them is padded
 */
export function shareOf(kernel: RowKernel, totals: readonly Node[], storageOf: Storage): Share {
  const { columns, inputs, outputs } = kernel;
  const last = columns.at(-1);
  if (!last) return { lanes: 1, some: 1, turns: null, passesEnd: false };
  const passed = [...inputs, ...outputs];
  const along = passed.filter(node => hasDimension(node.dimensions, last.name));
  const paddedAlong = columns.length === 1 && along.every(node => isPadded(node, storageOf(node)));
  const isWhole = (count: number) => last.size !== null && last.size % count === 0;
  const ofRows = along.filter(node => kernel.rows.some(dim => hasDimension(node.dimensions, dim.name)));
  const isNarrow = ofRows.length > 0 && ofRows.every(node => storageOf(node) === 'bf16');
  const fits = (count: number) => isWhole(count) || (paddedAlong && totals.every(node => node.dimensions.length === 0));
  const some = isNarrow && fits(8) ? 8 : fits(4) ? 4 : 1;
  const passesEnd = some > 1 && !isWhole(some);
  if (columns.some(dim => dim.size === null)) return { lanes: mostLanes, some, turns: null, passesEnd };
  const width = constantCount(columns);
  const wanted = Math.ceil(width / Math.max(usually, some));
  const lanes =
    wanted <= 16 && some > 1
      ? Math.max(totals.length > 0 ? leastLanesOfTotals : leastLanes, 2 ** Math.ceil(Math.log2(wanted)))
      : Math.min(width > long ? mostLanesOfLong : mostLanes, Math.ceil(wanted / 32) * 32);
  const turns = Math.ceil(width / some / lanes);
  return { lanes, some, turns: some > 1 && turns <= mostTurns ? turns : null, passesEnd };
}

/** Elements side by side of an output, on their way to memory. */
interface Stored {
  readonly array: string;
  readonly target: string;
  /** C++ text: whether they are added to what is there. */
  readonly adds: string;
}

/** A tensor of which each thread has its columns at hand, and the C++ text of one of them. */
export type AtHand = ReadonlyMap<Node, string>;

/** A row that is kept in shared memory: `room` elements of it, as far as it goes. */
export interface Kept {
  readonly node: Node;
  /** Whether this pass reads it first. */
  readonly isFirst: boolean;
}

/** What goes over the columns, and with what. */
export interface ColumnsOptions {
  readonly columns: readonly Dimension[];
  readonly share: Share;
  /** What is computed, of which some may pair elements. */
  readonly members: Iterable<Node>;
  readonly names: Names;
  readonly atHand: AtHand;
  readonly kept: Kept | null;
  /** Whether each thread of the launch has columns of its own, of all rows: `column`, which the kernel declares. */
  readonly isOwn: boolean;
}

/** The partner of the first of those side by side. */
const firstPartner = 'first_partner';

const suffixes = { 1: 'one', 4: 'four', 8: 'eight' } as const;

export class Columns {
  private readonly options: ColumnsOptions;
  private readonly last: Dimension;
  private readonly loads = new Map<string, { array: string; place: string; call: string }>();
  private readonly stores = new Map<string, Stored>();
  /** Where the partners of elements side by side lie. */
  private neighbours: Neighbours = 'apart';

  constructor(options: ColumnsOptions) {
    this.options = options;
    this.last = options.columns.at(-1)!;
  }

  /** Writes the loop. */
  write(writer: Writer, body: Body): void {
    const { columns, members, share, isOwn } = this.options;
    const { some, passesEnd } = share;
    const { last } = this;
    const width = countText(columns);
    const at = new Map(columns.map(dim => [dim.name, coordinateName(dim)]));
    const inner = writer.inside((some > 1 ? 1 : 0) + (isOwn ? 0 : this.blocksOfEach));
    const partner = partnerOf(members, name => at.get(name)!);
    const name = 'partner';
    const ofFirst = partnerOf(members, () => this.firstText(), some);
    this.neighbours = ofFirst?.dimension === last.name ? ofFirst.neighbours : 'apart';
    body(inner, at, new Map(partner ? [[partner.dimension, name]] : []));
    const uses = (text: string, word: string) => new RegExp(`\\b${word}\\b`).test(text);
    const paired = partner && uses(inner.toString(), name) ? `const int ${name} = ${partner.text};` : '';
    const text = `${paired}${inner}${[...this.loads.values()].map(({ place }) => place).join()}`;
    const declare = (to: Writer, dim: Dimension, axis: number) => {
      const above = dividedBy('column', columns.slice(axis + 1));
      const place = axis > 0 ? `${above} % ${sizeText(dim)}` : above;
      if (uses(text, at.get(dim.name)!)) to.line(`const ${this.type} ${at.get(dim.name)} = ${place};`);
    };
    this.each(writer, to => {
      for (const [axis, dim] of (some > 1 ? columns.slice(0, -1) : columns).entries()) declare(to, dim, axis);
      if (some === 1) {
        if (paired) to.line(paired);
        to.append(inner);
        return;
      }
      const first = this.firstText();
      const pairsFirst = uses(text, firstPartner);
      if (first === 'first' && (uses(text, 'first') || uses(text, at.get(last.name)!) || pairsFirst))
        to.line(`const ${this.type} first = column % ${sizeText(last)};`);
      if (pairsFirst) to.line(`const ${this.type} ${firstPartner} = ${ofFirst!.text};`);
      for (const { array, call } of this.loads.values()) {
        to.line(`float ${array}[${some}];`);
        to.line(call);
      }
      for (const { array, target, adds } of this.stores.values()) {
        to.line(`float ${array}[${some}]${adds === 'adds' || passesEnd ? ' = {}' : ''};`);
        if (adds !== 'false')
          to.line(`${adds === 'true' ? '' : `if (${adds}) `}malc_load_vector(${array}, ${target});`);
      }
      to.line('#pragma unroll');
      to.block(`for (int n = 0; n < ${some}; n++)`, () => {
        const coordinate = at.get(last.name)!;
        if (passesEnd) to.line(`if (${first} + n >= ${width}) break;`);
        if (uses(`${paired}${inner}`, coordinate)) to.line(`const ${this.type} ${coordinate} = ${first} + n;`);
        if (paired) to.line(paired);
        to.append(inner);
      });
      for (const { array, target } of this.stores.values()) to.line(`malc_store_vector(${target}, ${array});`);
    });
  }

  /** Whether all threads have as many columns. */
  private get isEven(): boolean {
    const { some, lanes } = this.options.share;
    return Number(countText(this.options.columns)) % (some * lanes) === 0;
  }

  /** The blocks that `each` opens around what it writes. */
  private get blocksOfEach(): number {
    return this.options.share.turns === 1 && !this.isEven ? 2 : 1;
  }

  /** Writes what is done at each `column` of the thread. */
  each(writer: Writer, body: (to: Writer) => void): void {
    const { columns, share, isOwn, kept } = this.options;
    const { lanes, some, turns } = share;
    const width = countText(columns);
    if (isOwn) {
      body(writer);
      return;
    }
    if (turns === null) {
      const step = some * lanes;
      const from = some === 1 ? 'lane' : `${some} * lane`;
      if (kept) writer.line('#pragma unroll 2');
      const head = `for (${this.type} column = ${from}; column < ${width}; column += ${step})`;
      writer.block(head, () => body(writer));
      return;
    }
    const { isEven } = this;
    const inner = writer.inside(this.blocksOfEach);
    body(inner);
    // A block even where it is one turn: passes may call things alike.
    if (turns > 1) writer.line('#pragma unroll');
    writer.block(turns === 1 ? '' : `for (int turn = 0; turn < ${turns}; turn++)`, () => {
      const place = turns === 1 ? 'lane' : `(lane + turn * ${lanes})`;
      if (!isEven || /\bcolumn\b/.test(inner.toString())) writer.line(`const int column = ${some} * ${place};`);
      if (isEven) writer.append(inner);
      else if (turns > 1) {
        writer.line(`if (column >= ${width}) break;`);
        writer.append(inner);
      } else writer.block(`if (column < ${width})`, () => writer.append(inner));
    });
  }

  private get type(): string {
    return this.options.columns.some(dim => dim.size === null) ? 'int64_t' : 'int';
  }

  /** The C++ text of the last coordinate of the first of those side by side. */
  private firstText(): string {
    return this.options.columns.length === 1 ? 'column' : 'first';
  }

  /**
   * An element that is at hand, or read with those beside it: the C++ text; null where it must be read alone.
   * @param name what the tensor is called
   * @param base the C++ text of a pointer into the tensor
   * @param beside the offset from there
   */
  loaded(node: Node, name: string, base: string, at: Coordinates, beside: (at: Coordinates) => string): string | null {
    const { columns, share, atHand, kept, names } = this.options;
    const { dimensions, dtype } = node;
    const { last } = this;
    const isLast = dimensions.at(-1)?.name === last.name && dimensions.at(-1)!.size === last.size;
    const own = columns.filter(dim => hasDimension(dimensions, dim.name));
    const isPlain = (dim: Dimension) => at.get(dim.name) === coordinateName(dim);
    if (share.some === 1 || dtype !== 'f32' || !isLast || !own.every(dim => dim === last || isPlain(dim))) return null;
    const isPartner = !isPlain(last);
    if (isPartner && this.neighbours === 'apart') return null;
    const held = isPartner ? undefined : atHand.get(node);
    if (held) return held;
    const start = isPartner && this.neighbours === 'side by side' ? firstPartner : this.firstText();
    const place = plus([base, beside(new Map([...at, [last.name, start]]))]);
    let known = this.loads.get(place);
    if (!known) {
      const array = names.unique(`${name}_${suffixes[share.some]}`);
      const { isFirst = false } = kept ?? {};
      const call =
        kept?.node === node
          ? `malc_load_${isFirst ? 'keeping' : 'kept'}(${array}, kept, column, room, ${place});`
          : `malc_load_vector(${array}, ${place});`;
      known = { array, place, call };
      this.loads.set(place, known);
    }
    return `${known.array}[${isPartner && this.neighbours === 'each other' ? 'n ^ 1' : 'n'}]`;
  }

  /**
   * An element of an output with all columns, that is stored with those beside it: the C++ text; null where it must be
   * stored alone.
   * @param base the C++ text of a pointer to the row
   * @param adds C++ text: whether it is added to what is there
   */
  storing(node: Node, name: string, base: string, adds: string): string | null {
    const { share, atHand, names } = this.options;
    if (share.some === 1) return null;
    const held = atHand.get(node);
    if (held) return held;
    const known = this.stores.get(base) ?? {
      array: names.unique(`${name}_${suffixes[share.some]}`),
      target: `${base} + column`,
      adds,
    };
    this.stores.set(base, known);
    return `${known.array}[n]`;
  }
}
