// Emits row kernels: norms, losses, sums of gradients and whatever else visits rows. A row's reductions cut its columns
// into passes; totals over the rows are summed in a fixed number of parts, so that results do not depend on threads.

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
import { hasDimension, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { isTotal } from '../../kernels/forms.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import type { ReduceAttributes } from '../../ops/reduce.ts';
import { extentOf } from '../../plan/extent.ts';
import {
  type Argument,
  elementType,
  type KernelSource,
  narrowed,
  parameterList,
  type Surroundings,
  widened,
} from './kernel-source.ts';
import { columnLoops, parallelFor } from './loops.ts';

/** Parts that totals are summed in: fixed, so that the order of addition is. */
const parts = 32;

export function emitRow(kernel: RowKernel, surroundings: Surroundings): KernelSource {
  return new RowEmitter(kernel, surroundings).emit();
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

  constructor(kernel: RowKernel, surroundings: Surroundings) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    this.inside = new Set(kernel.members);
    this.totals = kernel.members.filter(node => isTotal(node, kernel.rows));
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, this.names.unique(surroundings.nameOf(node)));
  }

  emit(): KernelSource {
    const { kernel, surroundings } = this;
    const total = this.totals.length > 0;
    const extents = this.totals.map(node => {
      const { runtime, count } = extentOf(node.dimensions);
      return { runtime, count: count * parts };
    });
    const list: Argument[] = [
      ...sizeArguments([kernel.rows, kernel.columns, ...kernel.inputs.map(node => node.dimensions)]),
      ...kernel.inputs.map(node => ({ kind: 'input' as const, node, name: this.named.get(node)! })),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, surroundings),
      ...(total ? [{ kind: 'workspace' as const, extents }] : []),
    ];
    const writer = new Writer();
    writer.comment(surroundings.comment);
    writer.block(`static void ${ownName}(${parameterList(list, surroundings.storageOf)})`, () => {
      if (total) this.rowsInParts(writer);
      else {
        parallelFor(writer, countText(kernel.rows), countText(kernel.columns));
        writer.loop('row', '0', countText(kernel.rows), () => this.row(writer));
      }
    });
    return { text: writer.toString(), arguments: list };
  }

  /** Rows in a fixed number of parts, each with sums of its own, which are then added in order. */
  private rowsInParts(writer: Writer): void {
    const partials = new Map<Node, string>();
    writer.line(`enum { parts = ${parts} };`);
    writer.line(`const int64_t rows = ${countText(this.kernel.rows)};`);
    let before: string[] = [];
    for (const node of this.totals) {
      const name = this.names.unique(`${this.named.get(node)}_parts`);
      partials.set(node, name);
      writer.line(`float *${name} = workspace${before.map(text => ` + ${times('parts', text)}`).join('')};`);
      before = [...before, countText(node.dimensions)];
    }
    parallelFor(writer, 'rows', countText(this.kernel.columns));
    writer.loop('part', '0', 'parts', () => {
      for (const node of this.totals) {
        const name = this.names.unique(`${this.named.get(node)}_part`);
        this.rowValues.set(node, name);
        const width = countText(node.dimensions);
        if (node.dimensions.length === 0) {
          writer.line(`float ${name} = 0.0f;`);
          continue;
        }
        writer.line(`float *${name} = ${partials.get(node)} + ${times('part', width)};`);
        writer.line(`for (int64_t i = 0; i < ${width}; i++) ${name}[i] = 0.0f;`);
      }
      writer.loop('row', 'rows * part / parts', 'rows * (part + 1) / parts', () => this.row(writer));
      for (const node of this.totals)
        if (node.dimensions.length === 0) writer.line(`${partials.get(node)}[part] = ${this.rowValues.get(node)};`);
    });
    for (const node of this.totals) {
      const width = countText(node.dimensions);
      const addParts = (sum: string, place: string, to: string) => {
        writer.line(`double ${sum} = 0;`);
        writer.line(`for (int64_t part = 0; part < parts; part++) ${sum} += ${partials.get(node)}[${place}];`);
        writer.line(assigned(to, `(float)${sum}`, node, this.surroundings));
      };
      const name = this.named.get(node)!;
      if (node.dimensions.length === 0) {
        addParts(this.names.unique(`${name}_total`), 'part', `*${name}`);
        continue;
      }
      parallelFor(writer, width, 'parts');
      writer.loop('i', '0', width, () => addParts('sum', `part * ${width} + i`, `${name}[i]`));
    }
  }

  /** Row values that are ready, then a pass over the columns, and so on while reductions give new row values. */
  private rowBody(writer: Writer, at: Coordinates): void {
    const rowNames = this.rowPointers(writer, at);
    const read = (node: Node, place: Coordinates): string => this.readElement(node, place, rowNames);
    const rowElements = new Elements(writer, {
      inside: this.rowMaps(),
      read,
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
      this.pass(
        writer,
        this.kernel.members.filter(node => levels.get(node) === level),
        at,
        rowNames,
        rowElements,
      );
      for (const node of this.kernel.members) {
        if (levels.get(node) !== level) continue;
        if (this.isColumnReduction(node)) this.storeRow(writer, node);
        if (this.totals.includes(node) && !this.isElement(node.inputs[0]!))
          writer.line(`${this.rowValues.get(node)} += ${this.rowValue(node.inputs[0]!, at, rowNames)};`);
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
    const reductions = nodes.filter(node => this.isColumnReduction(node));
    const stores = nodes.filter(node => this.isElement(node) && this.kernel.outputs.includes(node));
    const totals = nodes.filter(node => this.totals.includes(node) && this.isElement(node.inputs[0]!));
    if (reductions.length + stores.length + totals.length === 0) return;
    for (const node of reductions) {
      const name = this.localName(node);
      this.rowValues.set(node, name);
      writer.line(`float ${name} = ${this.operation(node) === 'sum' ? '0.0f' : '-INFINITY'};`);
    }
    const needed = this.neededElements([...reductions, ...totals].map(node => node.inputs[0]!).concat(stores));
    columnLoops(
      writer,
      this.kernel.columns,
      dim => ['0', sizeText(dim)],
      needed,
      this.pragma(reductions),
      (columns, segment) => {
        const place = new Map([...at, ...columns]);
        const elements = new Elements(writer, {
          inside: needed,
          read: (node, where) => this.readElement(node, where, rowNames),
          nameOf: node => this.localName(node),
          bufferOf: node => this.named.get(node)!,
          segment,
          outer,
        });
        for (const node of stores)
          this.storeElement(writer, node, elements.stored(node, place, this.kernel.members), place, rowNames);
        for (const node of reductions) {
          const value = elements.value(node.inputs[0]!, place);
          const name = this.rowValues.get(node)!;
          writer.line(
            this.operation(node) === 'sum' ? `${name} += ${value};` : `${name} = malc_max(${name}, ${value});`,
          );
        }
        for (const node of totals)
          writer.line(
            `${this.rowValues.get(node)}[${offsetText(node.dimensions, place)}] += ${elements.value(node.inputs[0]!, place)};`,
          );
      },
    );
  }

  private pragma(reductions: readonly Node[]): string {
    const clause = (operation: 'sum' | 'max', symbol: string) => {
      const names = reductions
        .filter(node => this.operation(node) === operation)
        .map(node => this.rowValues.get(node)!);
      return names.length === 0 ? '' : ` reduction(${symbol} : ${names.join(', ')})`;
    };
    return `#pragma omp simd${clause('sum', '+')}${clause('max', 'max')}`;
  }

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
      const offset = this.rowOffset(node, at);
      const name = this.names.unique(`${this.named.get(node)}_row`);
      const type = elementType(node, this.surroundings.storageOf(node));
      writer.line(
        `${this.kernel.outputs.includes(node) ? '' : 'const '}${type} *${name} = ${this.named.get(node)} + ${offset};`,
      );
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

  private rowValue(node: Node, at: Coordinates, rowNames: ReadonlyMap<Node, string>): string {
    return this.rowValues.get(node) ?? this.readElement(node, at, rowNames);
  }

  private storeElement(
    writer: Writer,
    node: Node,
    value: string,
    at: Coordinates,
    rowNames: ReadonlyMap<Node, string>,
  ): void {
    // Without rows there is no pointer to one.
    const row = rowNames.get(node) ?? this.named.get(node)!;
    const stored = narrowed(value, this.surroundings.storageOf(node));
    writer.line(assigned(`${row}[${offsetText(this.kernel.columns, at)}]`, stored, node, this.surroundings));
  }

  private storeRow(writer: Writer, node: Node): void {
    if (!this.kernel.outputs.includes(node)) return;
    writer.line(assigned(`${this.named.get(node)}[row]`, this.rowValues.get(node)!, node, this.surroundings));
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

  private rowMaps(): Set<Node> {
    return new Set(this.kernel.members.filter(node => this.isRowMap(node)));
  }

  private operation(node: Node): 'sum' | 'max' {
    return (node.attributes as ReduceAttributes).operation;
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
