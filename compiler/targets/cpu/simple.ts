// Emits the kernels that move rows: gather, scatter-add, append and recent; top-k is one node alone like them.

import { countText, times } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import { product } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { SingleKernel } from '../../kernels/kernel.ts';
import { type Argument, type KernelSource, parameterList, type Surroundings } from './kernel-source.ts';
import { parallelFor } from './loops.ts';
import { topK } from './top-k.ts';
import { withinCapacity } from './within-capacity.ts';

export function emitSimple(kernel: SingleKernel, surroundings: Surroundings): KernelSource {
  const names = new Names();
  const [node] = kernel.members as [Node];
  const name = (value: Node) => names.unique(surroundings.nameOf(value));
  const writer = new Writer();
  writer.comment(surroundings.comment);
  const emit = { gather, scatter, append, recent, 'top-k': topK, 'within-capacity': withinCapacity }[kernel.kind];
  const list = emit(writer, node, name, surroundings.accumulates(node));
  return { text: writer.toString(), arguments: list };
}

/** Writes one node's function, and returns what it must be given. */
export type Emit = (writer: Writer, node: Node, name: (value: Node) => string, accumulates: boolean) => Argument[];

export const input = (node: Node, name: string): Argument => ({ kind: 'input', node, name });
export const output = (node: Node, name: string): Argument => ({ kind: 'output', node, name });

const gather: Emit = (writer, node, name) => {
  const [table, indices] = node.inputs as [Node, Node];
  const [from, index, to] = [name(table), name(indices), name(node)];
  const width = countText(table.dimensions.slice(1));
  const list = [...sizeArguments([indices.dimensions]), input(table, from), input(indices, index), output(node, to)];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    parallelFor(writer, countText(indices.dimensions), width);
    writer.line(`for (int64_t row = 0; row < ${countText(indices.dimensions)}; row++)`);
    writer.inner(() =>
      writer.line(
        `memcpy(${to} + ${times('row', width)}, ${from} + (int64_t)${index}[row] * ${width}, ${width} * sizeof(float));`,
      ),
    );
  });
  return list;
};

/** Each thread owns columns and adds the rows in their order: no two threads meet, and the sums are always the same. */
const scatter: Emit = (writer, node, name, accumulates) => {
  const [indices, updates] = node.inputs as [Node, Node];
  const [index, from, to] = [name(indices), name(updates), name(node)];
  const width = product(node.dimensions.slice(1).map(dim => dim.size!));
  const slice = Math.min(width, 32);
  const list = [...sizeArguments([indices.dimensions]), input(indices, index), input(updates, from), output(node, to)];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(`enum { width = ${width}, slice = ${slice} };`);
    if (!accumulates) writer.line(`memset(${to}, 0, ${countText(node.dimensions)} * sizeof(float));`);
    writer.line('#pragma omp parallel for schedule(static)');
    writer.block('for (int64_t column = 0; column < width; column += slice)', () => {
      writer.line('const int64_t columns = malc_least(slice, width - column);');
      writer.loop('row', '0', countText(indices.dimensions), () => {
        writer.line(`float *sum = ${to} + ${index}[row] * (int64_t)width + column;`);
        writer.line(`const float *update = ${from} + row * width + column;`);
        writer.line('for (int64_t i = 0; i < columns; i++) sum[i] += update[i];');
      });
    });
  });
  return list;
};

const append: Emit = (writer, node, name) => {
  const [, fresh, starts, ends] = node.inputs as [Node, Node, Node, Node];
  const [cache, from] = [name(node), name(fresh)];
  const width = countText(fresh.dimensions.slice(2));
  const list = [
    ...sizeArguments([node.dimensions]),
    input(fresh, from),
    input(starts, 'starts'),
    input(ends, 'ends'),
    output(node, cache),
  ];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.loop('sequence', '0', 'sequences', () => {
      writer.line('const malc_piece own = malc_piece_of(sequence, 0, ends);');
      writer.line(`float *to = ${cache} + (sequence * context + starts[sequence]) * ${width};`);
      writer.line(`memcpy(to, ${from} + own.first * ${width}, (size_t)(own.count * ${width}) * sizeof(float));`);
    });
  });
  return list;
};

const recent: Emit = (writer, node) => {
  const [x, state, ends] = node.inputs as [Node, Node, Node];
  const [memory, channels] = state.dimensions.slice(1).map(dim => dim.size!);
  const list = [
    ...sizeArguments([state.dimensions]),
    ...[input(x, 'x'), input(state, 'state'), input(ends, 'ends')],
    output(node, 'next'),
  ];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(`enum { memory = ${memory}, channels = ${channels} };`);
    parallelFor(writer, 'sequences', 'memory * channels');
    writer.loop('sequence', '0', 'sequences', () => {
      writer.line('const malc_piece own = malc_piece_of(sequence, 0, ends);');
      writer.line('const int64_t fresh = malc_least(own.count, memory), kept = memory - fresh;');
      writer.line('float *to = next + sequence * memory * channels;');
      writer.line('const float *from_state = state + (sequence * memory + fresh) * channels;');
      writer.line('const float *from_x = x + (own.first + own.count - fresh) * channels;');
      writer.line('memcpy(to, from_state, (size_t)(kept * channels) * sizeof(float));');
      writer.line('memcpy(to + kept * channels, from_x, (size_t)(fresh * channels) * sizeof(float));');
    });
  });
  return list;
};
