// Prints the function that finishes elements of a product: the epilogue's maps, and the stores. It finishes four that lie
// side by side where the last dimension has a multiple of four: reads and writes are then of 16 bytes (8 of bfloat16). Where
// sums are finished in registers, a thread has two.
import { Elements } from '../../emission/elements.ts';
import { type Coordinates, coordinateName, countText, offsetText, plus, times } from '../../emission/index-text.ts';
import { assigned } from '../../emission/kernel-outputs.ts';
import { Names, Writer } from '../../emission/writer.ts';
import { type Dimension, hasDimension, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { MapAttributes } from '../../ops/map.ts';
import { storedDimensions } from '../../plan/storage.ts';
import { constant, operand, substitute } from '../../scalar/expression.ts';
import { elementType, narrowed, type Surroundings, widened } from './kernel-source.ts';
import { partnerOf } from './partner.ts';

/** What is finished: an element's sums, and what is made of them. */
export interface Finish {
  readonly rows: readonly Dimension[];
  readonly columns: readonly Dimension[];
  /** Which of the sums is a product; null where it counts as zero, as another product's sum has it already. */
  readonly sums: ReadonlyMap<Node, number | null>;
  readonly epilogue: readonly Node[];
  readonly outputs: readonly Node[];
  /** Elements that are finished together. */
  readonly atOnce: 1 | 2 | 4;
  /** Where two are: the tensors that lie like the result and pass through shared memory, two elements by reference. */
  readonly passing: ReadonlySet<Node>;
  /** Totals that are begun where elements are finished: of two at once. */
  readonly totals: readonly Node[];
  /** An output whose rows are measured where elements are finished, two at once: by `statistics`. */
  readonly measured: Node | null;
}

/** C++ names that finishing functions have of their own. */
export const finishNames: readonly string[] = ['sums', 'partner', 'first', 'n', 'inside', 'statistics'];

/** How many elements can be finished together, whatever is padded. */
export const finishedAtOnce = ({ columns }: Pick<Finish, 'columns'>): 1 | 4 =>
  columns.length > 0 && columns.at(-1)!.size! % 4 === 0 ? 4 : 1;

/**
 * The body of a finishing function: over `sums`, `row` and `column`, or `first`, the first of several columns. Where two are
 * finished at once, over `inside` too: whether the result has them.
 * @param named what inputs, outputs and members are called
 */
export function finishText(finish: Finish, named: ReadonlyMap<Node, string>, surroundings: Surroundings): string {
  return new FinishPrinter(finish, named, surroundings).text();
}

/** Columns that hold both elements of every pair: no tile may cut them. */
export function pairedColumns(columns: readonly Dimension[], epilogue: readonly Node[]): number {
  const partner = partnerOf(epilogue, name => name);
  const axis = partner ? columns.findIndex(dim => dim.name === partner.dimension) : columns.length;
  if (axis < 0) throw new Error(`pairs along ${partner!.dimension}, which is no dimension of the columns`);
  return columns.slice(axis).reduce((product, dim) => product * dim.size!, 1);
}

class FinishPrinter {
  private readonly finish: Finish;
  private readonly named: ReadonlyMap<Node, string>;
  private readonly surroundings: Surroundings;
  private readonly names = new Names();
  /** What several elements at once are called; null where there is one. */
  private readonly several: 'two' | 'four' | null;
  /** Where the element at hand is. */
  private readonly here: Coordinates;
  /** Where the first of several is: what `here` is without the steps along the last dimension. */
  private readonly start: Coordinates;
  /** Statements before and after the loop over several, and the arrays that they fill or empty, by place. */
  private readonly before: string[] = [];
  private readonly after: string[] = [];
  private readonly arrays = new Map<string, string>();
  /** The arrays that outputs are stored from. */
  private readonly storing = new Map<Node, string>();

  constructor(finish: Finish, named: ReadonlyMap<Node, string>, surroundings: Surroundings) {
    this.finish = finish;
    this.named = named;
    this.surroundings = surroundings;
    for (const name of [...finishNames, ...named.values()]) this.names.unique(name);
    this.several = { 1: null, 2: 'two' as const, 4: 'four' as const }[finish.atOnce];
    const { rows, columns } = finish;
    const place = (dims: readonly Dimension[], alone: string) =>
      dims.map(dim => [dim.name, dims.length === 1 ? alone : coordinateName(dim)] as const);
    this.here = new Map([...place(rows, 'row'), ...place(columns, 'column')]);
    const last = columns.at(-1);
    const first = columns.length === 1 ? 'first' : `first_${last?.name}`;
    this.start = this.several ? new Map([...this.here, [last!.name, first]]) : this.here;
  }

  text(): string {
    const { finish, here, start, several } = this;
    const { epilogue, outputs, originals } = withoutZeros(finish);
    const inside = new Set(epilogue);
    const partner = partnerOf(inside, name => here.get(name)!);
    const body = new Writer();
    const inline = new Map<Node, string>();
    const elements = new Elements(body, {
      inside,
      read: (node, at) => this.read(node, at),
      nameOf: computed => {
        const node = originals.get(computed) ?? computed;
        const name = this.named.get(node) ?? inline.get(node) ?? this.names.unique(this.surroundings.nameOf(node));
        if (!this.named.has(node)) inline.set(node, name);
        return finish.outputs.includes(node) ? `${name}_value` : name;
      },
      bufferOf: node => this.named.get(node)!,
      segment: new Map(partner ? [[partner.dimension, 'partner']] : []),
    });
    outputs.forEach((node, n) => {
      const line = this.store(finish.outputs[n]!, elements.stored(node, here, epilogue));
      if (line !== null) body.line(line);
    });
    for (const total of finish.totals)
      this.after.push(`malc_sum_2(${this.named.get(total)}, ${this.storing.get(total.inputs[0]!)}, inside);`);
    if (finish.measured) {
      const type = elementType(finish.measured, this.surroundings.storageOf(finish.measured));
      this.after.push(`malc_measure_2<${type}>(statistics, ${this.storing.get(finish.measured)}, inside);`);
    }

    // Coordinates are declared where something that follows reads them.
    const first: string[] = [];
    const uses = (name: string) =>
      new RegExp(`\\b${name}\\b`).test([...this.before, ...first, body, ...this.after].join('\n'));
    if (partner && uses('partner')) first.unshift(`const int64_t partner = ${partner.text};`);
    const last = finish.columns.at(-1)?.name ?? '';
    if (several && uses(here.get(last)!)) first.unshift(`const int64_t ${here.get(last)} = ${start.get(last)} + n;`);
    const writer = new Writer();
    const declare = (dims: readonly Dimension[], number: string) =>
      dims.forEach((dim, axis) => {
        const name = start.get(dim.name)!;
        if (dims.length > 1 && uses(name)) writer.line(coordinateText(name, dims, axis, number));
      });
    declare(finish.rows, 'row');
    declare(finish.columns, several ? 'first' : 'column');
    for (const line of this.before) writer.line(line);
    const inner = () => {
      for (const line of first) writer.line(line);
      writer.append(body);
    };
    if (several && body.toString().trim() !== '') {
      writer.line('#pragma unroll');
      writer.block(`for (int n = 0; n < ${finish.atOnce}; n++)`, inner);
    } else if (!several) inner();
    for (const line of this.after) writer.line(line);
    return writer.toString();
  }

  /** A sum, or an element in memory. */
  private read(node: Node, at: Coordinates): string {
    const { columns, sums } = this.finish;
    const number = sums.get(node);
    const isOwn = this.isHere(
      columns.filter(dim => number !== undefined || hasDimension(node.dimensions, dim.name)),
      at,
    );
    if (typeof number === 'number') {
      if (isOwn && this.several)
        return this.loaded(node, `sums ${number}`, to => `sums.${this.several}(${to}, ${number}, row, first);`);
      return `sums(${number}, row, ${isOwn ? 'column' : offsetText(columns, at)})`;
    }
    if (isOwn && node.dtype === 'f32' && this.isSideBySide(node)) {
      const place = this.place(node, new Map([...at, ...this.ofLast(this.start)]));
      return this.loaded(node, place, to => `malc_load_${this.finish.atOnce}(${to}, ${place});`);
    }
    const element = `${this.named.get(node)}[${this.offset(node, at)}]`;
    return widened(element, node, this.surroundings.storageOf(node));
  }

  /** Stores an element of an output; null where it is stored with its neighbours as it was loaded. */
  private store(node: Node, value: string): string | null {
    const { surroundings, finish } = this;
    const { atOnce } = finish;
    const accumulates = surroundings.accumulates(node);
    if (!this.isSideBySide(node)) {
      if (atOnce === 2) throw new Error(`${surroundings.nameOf(node)} has no two elements side by side`);
      const target = `${this.named.get(node)}[${this.offset(node, this.here)}]`;
      return assigned(target, narrowed(value, surroundings.storageOf(node)), node, surroundings);
    }
    const place = this.place(node, this.start);
    const loaded = accumulates ? undefined : [...this.arrays.values()].find(array => value === `${array}[n]`);
    const array = loaded ?? this.names.unique(`${this.named.get(node)}_${this.several}`);
    this.storing.set(node, array);
    const condition = atOnce === 2 && !finish.passing.has(node) ? 'if (inside) ' : '';
    this.after.push(`${condition}malc_store_${atOnce}(${place}, ${array});`);
    if (loaded) return null;
    const isGradient = surroundings.isGradient(node);
    this.before.push(`float ${array}[${atOnce}]${isGradient ? ' = {}' : ''};`);
    if (accumulates) this.before.push(`${isGradient ? 'if (adds) ' : ''}malc_load_${atOnce}(${array}, ${place});`);
    return assigned(`${array}[n]`, value, node, surroundings);
  }

  /** The n-th of several that are loaded before the loop. */
  private loaded(node: Node, place: string, load: (to: string) => string): string {
    const known = this.arrays.get(place);
    const array = known ?? this.names.unique(`${this.named.get(node)}_${this.several}`);
    if (!known) {
      this.arrays.set(place, array);
      this.before.push(`float ${array}[${this.finish.atOnce}];`, load(array));
    }
    return `${array}[n]`;
  }

  /** Whether neighbours along the last column lie side by side, and aligned. */
  private isSideBySide({ dimensions }: Node): boolean {
    const [own, last] = [dimensions.at(-1), this.finish.columns.at(-1)];
    return this.several !== null && own?.name === last!.name && own.size === last!.size;
  }

  private isHere(dims: readonly Dimension[], at: Coordinates): boolean {
    return dims.every(dim => at.get(dim.name) === this.here.get(dim.name));
  }

  private ofLast(at: Coordinates): [string, string][] {
    const { name } = this.finish.columns.at(-1)!;
    return [[name, at.get(name)!]];
  }

  private place(node: Node, at: Coordinates): string {
    if (this.finish.passing.has(node)) return this.named.get(node)!;
    return `${this.named.get(node)} + ${this.offset(node, at)}`;
  }

  /** An element's offset. Dimensions that a tensor has as the result has them count as one, the row or the column. */
  private offset(node: Node, at: Coordinates): string {
    const { rows, columns } = this.finish;
    const dims = storedDimensions(node, this.surroundings.storageOf(node));
    const leads = rows.length > 0 && sameDimensions(dims.slice(0, rows.length), rows) && this.isHere(rows, at);
    const rest = leads ? dims.slice(rows.length) : dims;
    const isColumn = columns.length > 0 && sameDimensions(node.dimensions.slice(-rest.length), columns);
    const isStart = this.several !== null && columns.every(dim => at.get(dim.name) === this.start.get(dim.name));
    const number = isStart ? 'first' : this.isHere(columns, at) ? 'column' : null;
    const column = isColumn && number ? number : offsetText(rest, at);
    return plus([leads ? times('row', countText(rest)) : '0', column]);
  }
}

/** The maps and outputs of a group as they are where some products count as zero, and what they were. */
function withoutZeros({ sums, epilogue, outputs }: Finish) {
  const changed = new Map<Node, Node>();
  const isZero = (node: Node) => sums.get(node) === null;
  for (const node of epilogue) {
    const inputs = node.inputs.map(input => changed.get(input) ?? input);
    if (node.inputs.some(isZero)) {
      const { expression, dimensions } = node.attributes as MapAttributes;
      const rest = substitute(expression, index => (isZero(inputs[index]!) ? constant(0) : operand(index)));
      changed.set(node, { ...node, inputs, attributes: { expression: rest, dimensions } });
    } else if (inputs.some((input, n) => input !== node.inputs[n])) changed.set(node, { ...node, inputs });
  }
  const now = (nodes: readonly Node[]) => nodes.map(node => changed.get(node) ?? node);
  const originals = new Map([...changed].map(([node, other]) => [other, node]));
  return { epilogue: now(epilogue), outputs: now(outputs), originals };
}

/** Declares the coordinate along one of the dimensions that make a row's or a column's number. */
function coordinateText(name: string, dims: readonly Dimension[], axis: number, number: string): string {
  const after = dims.slice(axis + 1);
  const above = after.length === 0 ? number : `malc_quotient(${number}, ${countText(after)})`;
  const value = axis === 0 ? above : `malc_remainder(${above}, ${countText([dims[axis]!])})`;
  return `const int64_t ${name} = ${value};`;
}
