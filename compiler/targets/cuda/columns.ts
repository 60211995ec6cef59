// A lane's loop over the columns of a row: one column at a time, or four that lie side by side and aligned, whose reads
// and writes are then single instructions of 16 bytes (8 of bfloat16).
import { type Coordinates, coordinateName, countText, dividedBy, plus, sizeText } from '../../emission/index-text.ts';
import type { Names, Writer } from '../../emission/writer.ts';
import type { Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { partnerOf } from './partner.ts';

/** Emits what is done with one element at these coordinates. */
export type Body = (writer: Writer, at: Map<string, string>, partner: ReadonlyMap<string, string>) => void;

/** Four elements of an output, on their way to memory. */
interface Stored {
  readonly array: string;
  readonly target: string;
  /** C++ text: whether they are added to what is there. */
  readonly adds: string;
}

export class Columns {
  private readonly columns: readonly Dimension[];
  private readonly lanes: number;
  private readonly members: Iterable<Node>;
  private readonly names: Names;
  private readonly last: Dimension;
  private readonly byFour: boolean;
  /** Whether four may go past the last column. */
  private readonly passesEnd: boolean;
  private readonly loads = new Map<string, { array: string; place: string }>();
  private readonly stores = new Map<string, Stored>();

  /**
   * @param lanes threads that share the columns
   * @param members what is computed, of which some may pair elements
   * @param isPadded whether all tensors with these columns are padded to whole fours
   */
  constructor(columns: readonly Dimension[], lanes: number, members: Iterable<Node>, names: Names, isPadded: boolean) {
    this.columns = columns;
    this.lanes = lanes;
    this.members = members;
    this.names = names;
    this.last = columns.at(-1)!;
    const isWhole = this.last.size !== null && this.last.size % 4 === 0;
    this.passesEnd = isPadded && !isWhole;
    this.byFour = isWhole || isPadded;
  }

  /** Writes the loop. */
  write(writer: Writer, body: Body): void {
    const { byFour, passesEnd, columns, lanes, last } = this;
    const width = countText(columns);
    const type = columns.some(dim => dim.size === null) ? 'int64_t' : 'int';
    const at = new Map(columns.map(dim => [dim.name, coordinateName(dim)]));
    const inner = writer.inside(byFour ? 2 : 1);
    const partner = partnerOf(this.members, name => at.get(name)!);
    const name = 'partner';
    body(inner, at, new Map(partner ? [[partner.dimension, name]] : []));
    const uses = (text: string, word: string) => new RegExp(`\\b${word}\\b`).test(text);
    const paired = partner && uses(inner.toString(), name) ? `const int ${name} = ${partner.text};` : '';
    const text = `${paired}${inner}${[...this.loads.values()].map(({ place }) => place).join()}`;
    const declare = (dim: Dimension, axis: number) => {
      const above = dividedBy('column', columns.slice(axis + 1));
      const place = axis > 0 ? `${above} % ${sizeText(dim)}` : above;
      if (uses(text, at.get(dim.name)!)) writer.line(`const ${type} ${at.get(dim.name)} = ${place};`);
    };
    const step = byFour ? 4 * lanes : lanes;
    const from = byFour ? '4 * lane' : 'lane';
    writer.block(`for (${type} column = ${from}; column < ${width}; column += ${step})`, () => {
      (byFour ? columns.slice(0, -1) : columns).forEach(declare);
      if (!byFour) {
        if (paired) writer.line(paired);
        writer.append(inner);
        return;
      }
      const first = this.firstText();
      if (first === 'first' && (uses(text, 'first') || uses(text, at.get(last.name)!)))
        writer.line(`const ${type} first = column % ${sizeText(last)};`);
      for (const { array, place } of this.loads.values()) {
        writer.line(`float ${array}[4];`);
        writer.line(`malc_load_4(${array}, ${place});`);
      }
      for (const { array, target, adds } of this.stores.values()) {
        writer.line(`float ${array}[4]${adds === 'adds' || passesEnd ? ' = {}' : ''};`);
        if (adds !== 'false') writer.line(`${adds === 'true' ? '' : `if (${adds}) `}malc_load_4(${array}, ${target});`);
      }
      writer.line('#pragma unroll');
      writer.block('for (int n = 0; n < 4; n++)', () => {
        const coordinate = at.get(last.name)!;
        if (passesEnd) writer.line(`if (${first} + n >= ${width}) break;`);
        if (uses(`${paired}${inner}`, coordinate)) writer.line(`const ${type} ${coordinate} = ${first} + n;`);
        if (paired) writer.line(paired);
        writer.append(inner);
      });
      for (const { array, target } of this.stores.values()) writer.line(`malc_store_4(${target}, ${array});`);
    });
  }

  /** The C++ text of the last coordinate of the first of four. */
  private firstText(): string {
    return this.columns.length === 1 ? 'column' : 'first';
  }

  /**
   * An element that is read with its three neighbours: the C++ text; null where it must be read alone.
   * @param name what the tensor is called
   * @param base the C++ text of a pointer into the tensor
   * @param beside the offset from there
   */
  loaded(
    { dimensions, dtype }: Node,
    name: string,
    base: string,
    at: Coordinates,
    beside: (at: Coordinates) => string,
  ): string | null {
    const { byFour, last } = this;
    const isLast = dimensions.at(-1)?.name === last.name && dimensions.at(-1)!.size === last.size;
    const own = this.columns.filter(dim => dimensions.some(other => other.name === dim.name));
    const isPlain = own.every(dim => at.get(dim.name) === coordinateName(dim));
    if (!byFour || dtype !== 'f32' || !isLast || !isPlain) return null;
    const place = plus([base, beside(new Map([...at, [last.name, this.firstText()]]))]);
    const known = this.loads.get(place) ?? { array: this.names.unique(`${name}_four`), place };
    this.loads.set(place, known);
    return `${known.array}[n]`;
  }

  /**
   * An element of an output with all columns, that is stored with its three neighbours: the C++ text; null where it must be
   * stored alone.
   * @param base the C++ text of a pointer to the row
   * @param adds C++ text: whether it is added to what is there
   */
  storing(name: string, base: string, adds: string): string | null {
    if (!this.byFour) return null;
    const known = this.stores.get(base) ?? {
      array: this.names.unique(`${name}_four`),
      target: `${base} + column`,
      adds,
    };
    this.stores.set(base, known);
    return `${known.array}[n]`;
  }
}
