// Emits row kernels: norms, losses, sums of gradients and whatever else visits rows. A row's reductions cut its columns
// into passes; totals over the rows are summed in a fixed number of parts, so that results do not depend on threads.

import { type Coordinates, countText, offsetText, sizeText, times } from '../../emission/index-text.ts';
import { addsArgument, assigned, sizeArguments } from '../../emission/kernel-outputs.ts';
import { type Pass, RowBody } from '../../emission/row-body.ts';
import { ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
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
  return new RowEmitter(kernel, surroundings, {
    elementType,
    widened,
    storedDimensions: ({ dimensions }) => dimensions,
  }).emit();
}

class RowEmitter extends RowBody<Surroundings> {
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

  protected override passOverColumns(writer: Writer, pass: Pass): void {
    const { reductions, stores, totals, needed, at, rowNames } = pass;
    columnLoops(
      writer,
      this.kernel.columns,
      dim => ['0', sizeText(dim)],
      needed,
      this.pragma(reductions),
      (columns, segment) => {
        const place = new Map([...at, ...columns]);
        const read = (node: Node, where: Coordinates) => this.readElement(node, where, rowNames);
        const elements = this.elementsOf(writer, pass, segment, read);
        for (const node of stores) {
          // Without rows there is no pointer to one.
          const row = rowNames.get(node) ?? this.named.get(node)!;
          const value = elements.stored(node, place, this.kernel.members);
          const stored = narrowed(value, this.surroundings.storageOf(node));
          writer.line(assigned(`${row}[${offsetText(this.kernel.columns, place)}]`, stored, node, this.surroundings));
        }
        for (const node of reductions) writer.line(this.reduced(node, elements.value(node.inputs[0]!, place)));
        for (const node of totals)
          writer.line(
            `${this.rowValues.get(node)}[${offsetText(node.dimensions, place)}] += ${elements.value(node.inputs[0]!, place)};`,
          );
      },
    );
  }

  private pragma(reductions: readonly Node[]): string {
    const clause = (isSum: boolean, symbol: string) => {
      const names = reductions.filter(node => this.isSum(node) === isSum).map(node => this.rowValues.get(node)!);
      return names.length === 0 ? '' : ` reduction(${symbol} : ${names.join(', ')})`;
    };
    return `#pragma omp simd${clause(true, '+')}${clause(false, 'max')}`;
  }

  protected override storeRow(writer: Writer, node: Node): void {
    writer.line(assigned(`${this.named.get(node)}[row]`, this.rowValues.get(node)!, node, this.surroundings));
  }
}
