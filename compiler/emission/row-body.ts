// What one row of a row kernel is in any C-like language: values of the row, then passes over its columns, cut where a reduction
// must be known. A target says how columns are shared out and how a row's values are stored.
import { type Dimension, hasDimension, sameDimensions } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { isTotal } from '../kernels/forms.ts';
import type { RowKernel } from '../kernels/kernel.ts';
import type { ReduceAttributes } from '../ops/reduce.ts';
import type { ElementStorage } from '../plan/storage.ts';
import { type ElementOptions, Elements } from './elements.ts';
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
import type { KernelSurroundings } from './kernel-outputs.ts';
import { Names, type Writer } from './writer.ts';

/** How a language spells the elements of tensors. */
export interface ElementText {
  /** Their type. */
  elementType(node: Node, storage: ElementStorage): string;
  /** One as a float. */
  widened(element: string, node: Node, storage: ElementStorage): string;
  /** The dimensions of a tensor as it lies in memory. */
  storedDimensions(node: Node, storage: ElementStorage): readonly Dimension[];
  /** As Spelling of scalar.ts has it. */
  readonly comparesIntegers?: boolean;
}

/** A pass over the columns: sums of some reductions and totals, and stores of some outputs. */
export interface Pass {
  readonly reductions: readonly Node[];
  readonly stores: readonly Node[];
  readonly totals: readonly Node[];
  /** The members that its elements are made of. */
  readonly needed: ReadonlySet<Node>;
  /** The coordinates of the row. */
  readonly at: Coordinates;
  /** Pointers to this row of the inputs and outputs that have one. */
  readonly rowNames: ReadonlyMap<Node, string>;
  /** The scope around it, which knows the values of the row. */
  readonly outer: Elements;
}

export abstract class RowBody<Surroundings extends KernelSurroundings> {
  protected readonly kernel: RowKernel;
  protected readonly surroundings: Surroundings;
  protected readonly names = new Names();
  protected readonly named = new Map<Node, string>();
  /** Local names of row values, once they are known. */
  protected readonly rowValues = new Map<Node, string>();
  protected readonly totals: readonly Node[];
  private readonly locals = new Map<Node, string>();
  private readonly inside: ReadonlySet<Node>;
  private readonly text: ElementText;

  /** @param taken names that the kernel uses otherwise */
  constructor(kernel: RowKernel, surroundings: Surroundings, text: ElementText, taken: readonly string[] = []) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    this.text = text;
    this.inside = new Set(kernel.members);
    this.totals = kernel.members.filter(node => isTotal(node, kernel.rows));
    for (const name of taken) this.names.unique(name);
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, this.names.unique(surroundings.nameOf(node)));
  }

  /** Writes the loop over the columns; reductions are declared before it. */
  protected abstract passOverColumns(writer: Writer, pass: Pass): void;

  /** Stores the value of an output that has one number for each row. */
  protected abstract storeRow(writer: Writer, node: Node): void;

  /** One row, after the coordinates of its dimensions that something in it reads besides the row's number. */
  protected row(writer: Writer): void {
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
      inside: new Set(this.kernel.members.filter(node => this.isRowMap(node))),
      read: (node, place) => this.readElement(node, place, rowNames),
      nameOf: node => this.localName(node),
      bufferOf: node => this.named.get(node)!,
      segment: new Map(),
    });
    const levels = this.levels();
    const last = Math.max(0, ...levels.values());
    for (let level = 0; level <= last; level++) {
      const nodes = this.kernel.members.filter(node => levels.get(node) === level);
      for (const node of nodes) {
        if (!this.isRowMap(node)) continue;
        this.rowValues.set(node, rowElements.value(node, at));
        this.storeOutput(writer, node);
      }
      this.pass(writer, nodes, at, rowNames, rowElements);
      for (const node of nodes) {
        if (this.isColumnReduction(node)) this.storeOutput(writer, node);
        if (!this.totals.includes(node) || this.isElement(node.inputs[0]!)) continue;
        const value = this.rowValues.get(node.inputs[0]!) ?? this.readElement(node.inputs[0]!, at, rowNames);
        writer.line(`${this.rowValues.get(node)} += ${value};`);
      }
    }
  }

  private pass(
    writer: Writer,
    nodes: readonly Node[],
    at: Coordinates,
    rowNames: ReadonlyMap<Node, string>,
    outer: Elements,
  ): void {
    const reductions = nodes.filter(node => this.isColumnReduction(node));
    const stores = nodes.filter(node => this.isElement(node) && this.kernel.outputs.includes(node));
    const totals = nodes.filter(node => this.totals.includes(node) && this.isElement(node.inputs[0]!));
    if (reductions.length + stores.length + totals.length === 0) return;
    for (const node of reductions) {
      const name = this.localName(node);
      this.rowValues.set(node, name);
      writer.line(`float ${name} = ${this.isSum(node) ? '0.0f' : '-INFINITY'};`);
    }
    const needed = this.neededElements([...reductions, ...totals].map(node => node.inputs[0]!).concat(stores));
    this.passOverColumns(writer, { reductions, stores, totals, needed, at, rowNames, outer });
  }

  /** Elements of a pass, written where its loop is. */
  protected elementsOf(
    writer: Writer,
    { needed, outer }: Pass,
    segment: ElementOptions['segment'],
    read: (node: Node, at: Coordinates) => string,
  ): Elements {
    return new Elements(writer, {
      inside: needed,
      read,
      nameOf: node => this.localName(node),
      bufferOf: node => this.named.get(node)!,
      segment,
      outer,
      comparesIntegers: this.text.comparesIntegers ?? false,
    });
  }

  /** Takes an element into a reduction over the columns. */
  protected reduced(node: Node, value: string): string {
    const name = this.rowValues.get(node)!;
    return this.isSum(node) ? `${name} += ${value};` : `${name} = malc_max(${name}, ${value});`;
  }

  /** An element of something that the loop at hand does not compute: an input, an earlier output, a row value. */
  protected readElement(node: Node, at: Coordinates, rowNames: ReadonlyMap<Node, string>): string {
    const rowValue = this.rowValues.get(node);
    if (rowValue && !this.totals.includes(node)) return rowValue;
    const storage = this.surroundings.storageOf(node);
    const pointer = rowNames.get(node);
    const dimensions = this.storedDimensions(node);
    const widened = (element: string) => this.text.widened(element, node, storage);
    if (pointer) return widened(`${pointer}[${offsetBeside(dimensions, at, this.kernel.rows)}]`);
    const isRowValue = sameDimensions(dimensions, this.kernel.rows) && dimensions.length > 0;
    return widened(`${this.named.get(node)}[${isRowValue ? 'row' : offsetText(dimensions, at)}]`);
  }

  protected storedDimensions(node: Node): readonly Dimension[] {
    return this.text.storedDimensions(node, this.surroundings.storageOf(node));
  }

  protected isSum(node: Node): boolean {
    return (node.attributes as ReduceAttributes).operation === 'sum';
  }

  private storeOutput(writer: Writer, node: Node): void {
    if (this.kernel.outputs.includes(node)) this.storeRow(writer, node);
  }

  /** Where a row of a tensor begins. Dimensions that lead the tensor as they lead the rows are counted as one. */
  private rowOffset(node: Node, at: Coordinates): string {
    const { rows } = this.kernel;
    const dimensions = this.storedDimensions(node);
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
      const type = this.text.elementType(node, this.surroundings.storageOf(node));
      const constant = this.kernel.outputs.includes(node) ? '' : 'const ';
      writer.line(`${constant}${type} *${name} = ${plus([this.named.get(node)!, this.rowOffset(node, at)])};`);
      pointers.set(node, name);
    }
    return pointers;
  }

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

  /** A value's name, or another where that is the buffer's that it goes to. */
  private localName(node: Node): string {
    const known = this.locals.get(node);
    if (known) return known;
    const name = this.named.get(node) ?? this.surroundings.nameOf(node);
    const local = this.kernel.outputs.includes(node) ? this.names.unique(`${name}_value`) : name;
    this.locals.set(node, local);
    return local;
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
