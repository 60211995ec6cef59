// Emits the kernels that move rows: gather, append and recent; scatter-add, top-k and within-capacity are one node alone
// like them.
import { countText, times } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { SingleKernel } from '../../kernels/kernel.ts';
import {
  type Argument,
  type KernelSource,
  type Launch,
  overlappingParameterList,
  type Surroundings,
} from './kernel-source.ts';
import { scatter } from './scatter.ts';
import { topK, withinCapacity } from './slots.ts';

/** Threads that move a row. */
const threads = 128;

interface Site {
  readonly writer: Writer;
  readonly node: Node;
  name(value: Node): string;
  readonly accumulates: boolean;
}

type Emitted = Omit<KernelSource, 'text'>;

export function emitSimple(kernel: SingleKernel, surroundings: Surroundings): KernelSource {
  const names = new Names();
  const [node] = kernel.members as [Node];
  const writer = new Writer();
  writer.comment(surroundings.comment);
  const name = (value: Node) => names.unique(surroundings.nameOf(value));
  const emit = emitters[kernel.kind];
  if (!emit) throw new Error(`there is no kernel for ${kernel.kind}`);
  const emitted = emit({ writer, node, name, accumulates: surroundings.accumulates(node) });
  return { text: writer.toString(), ...emitted };
}

const input = (node: Node, name: string): Argument => ({ kind: 'input', node, name });
const output = (node: Node, name: string): Argument => ({ kind: 'output', node, name });
const launch = (grid: string): Launch => ({
  kernel: ownName,
  grid,
  block: String(threads),
  shared: '0',
  overlaps: true,
});

const kernelHead = (list: readonly Argument[]) =>
  `static __global__ void ${ownName}(${overlappingParameterList(list)})`;

/** Four floats at a time where a row is made of such. */
function copyRow(writer: Writer, to: string, from: string, width: string): void {
  const byFour = Number(width) % 4 === 0;
  const count = byFour ? String(Number(width) / 4) : width;
  if (byFour) {
    writer.line(`const float4 *source = reinterpret_cast<const float4 *>(${from});`);
    writer.line(`float4 *target = reinterpret_cast<float4 *>(${to});`);
  } else {
    writer.line(`const float *source = ${from};`);
    writer.line(`float *target = ${to};`);
  }
  writer.line(`for (int i = threadIdx.x; i < ${count}; i += ${threads}) target[i] = source[i];`);
}

function gather({ writer, node, name }: Site): Emitted {
  const [table, indices] = node.inputs as [Node, Node];
  const [from, index, to] = [name(table), name(indices), name(node)];
  const width = countText(table.dimensions.slice(1));
  const list = [...sizeArguments([indices.dimensions]), input(table, from), input(indices, index), output(node, to)];
  writer.block(kernelHead(list), () => {
    writer.line('malc_follow();');
    writer.line('const int64_t row = blockIdx.x;');
    copyRow(writer, `${to} + ${times('row', width)}`, `${from} + ${index}[row] * (int64_t)${width}`, width);
  });
  return { arguments: list, launches: [launch(countText(indices.dimensions))] };
}

function append({ writer, node, name }: Site): Emitted {
  const [, fresh, starts, ends] = node.inputs as [Node, Node, Node, Node];
  const [cache, from] = [name(node), name(fresh)];
  const width = countText(fresh.dimensions.slice(2));
  const list = [
    ...sizeArguments([node.dimensions, fresh.dimensions]),
    input(fresh, from),
    input(starts, 'starts'),
    input(ends, 'ends'),
    output(node, cache),
  ];
  writer.block(kernelHead(list), () => {
    writer.line('malc_follow();');
    writer.line('const int64_t token = blockIdx.x, sequence = malc_sequence_of(token, 0, ends);');
    writer.line('const int64_t place = starts[sequence] + token - malc_piece_of(sequence, 0, ends).first;');
    const to = `${cache} + (sequence * context + place) * ${width}`;
    copyRow(writer, to, `${from} + token * ${width}`, width);
  });
  return { arguments: list, launches: [launch('batch * time')] };
}

function recent({ writer, node }: Site): Emitted {
  const [x, state, ends] = node.inputs as [Node, Node, Node];
  const [memory, channels] = state.dimensions.slice(1).map(dim => String(dim.size)) as [string, string];
  const list = [
    ...sizeArguments([state.dimensions]),
    ...[input(x, 'x'), input(state, 'state'), input(ends, 'ends')],
    output(node, 'next'),
  ];
  writer.block(kernelHead(list), () => {
    writer.line('malc_follow();');
    writer.line(`const int64_t place = blockIdx.x, sequence = place / ${memory};`);
    writer.line('const malc_piece own = malc_piece_of(sequence, 0, ends);');
    writer.line(`const int64_t from = place % ${memory} + own.count - ${memory}; // below 0: in what came before`);
    const kept = `state + (sequence + 1) * ${times(memory, channels)}`;
    writer.line(`const float *row = (from < 0 ? ${kept} : x + own.first * ${channels}) + from * ${channels};`);
    copyRow(writer, `next + place * ${channels}`, 'row', channels);
  });
  return { arguments: list, launches: [launch(`sequences * ${memory}`)] };
}

const emitters: Partial<Record<SingleKernel['kind'], (site: Site) => Emitted>> = {
  gather,
  scatter,
  append,
  recent,
  'top-k': topK,
  'within-capacity': withinCapacity,
};
