// Runs graphs as the CPU target compiles them: every graph of a test becomes a function of one library.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { KernelLibrary } from '../../compiler/emission/kernel-library.ts';
import type { Homes } from '../../compiler/emission/places.ts';
import { product, type Sizes, sizeOf } from '../../compiler/graph/dimension.ts';
import type { Graph, Node } from '../../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../../compiler/graph/tensor.ts';
import { fuse } from '../../compiler/kernels/fuse.ts';
import { readPackageFile } from '../../compiler/package-files.ts';
import type { Extent } from '../../compiler/plan/extent.ts';
import { planMemory } from '../../compiler/plan/plan.ts';
import { storedAsFloat } from '../../compiler/plan/storage.ts';
import { emitFunction } from '../../compiler/targets/cpu/functions.ts';
import { findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { loadLibrary } from '../../runtime/ffi.ts';

/**
 * Runs one of the graphs.
 * @param given the graph's inputs, by label; and, by name, what the buffers of outputs that accumulate hold before, where
 * that is not zeros
 * @param threads of OpenMP; 2 if not said
 * @returns the outputs, by name
 * @throws where a kernel writes outside the memory that it was given
 */
export type RunOnCpu = (
  graph: Graph,
  given: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  threads?: number,
) => Map<string, Tensor>;

/** Floats between two buffers: they hold NaN, and must still hold it after a run. */
const gap = 16;

const growths = { fixed: '', per_sequence: 'batch', per_position: 'time', per_token: 'batch*time' } as const;
const regions = [...Object.keys(growths), 'workspace', 'scratch'] as (keyof typeof growths | 'workspace' | 'scratch')[];

const products = ['matmul.h', 'matmul_few.h', 'grouped.h', 'attention.h'];
const headers = ['malc_math.h', 'random.h', 'runtime.h', 'sequences.h', ...products];

/** What every wrapper is given: its memory, and where each buffer lies in it, counted in floats. */
const runStructure = `typedef struct {
  int64_t batch, time, sequences, longest, context;
  float *${regions.join(', *')};
  int64_t scratch_stride;
  float *given[MOST_BUFFERS], *results[MOST_BUFFERS];
} malc_run;
`;

/**
 * Fuses, plans and emits every graph, and compiles them to one library, without a warning and with little optimisation.
 * The kernels that they are made of see float32 copies of what they are given.
 */
export async function runOnCpu(graphs: readonly Graph[]): Promise<RunOnCpu> {
  const kernels = new KernelLibrary([]);
  const functions = new Map<Graph, Emitted>();
  // A graph that cannot be emitted is reported when it is run, so that the others can be.
  const failures = new Map<Graph, unknown>();
  graphs.forEach((graph, n) => {
    try {
      functions.set(graph, emit(graph, n, kernels));
    } catch (failure) {
      failures.set(graph, failure);
    }
  });
  const most = Math.max(...graphs.flatMap(({ inputs, outputs }) => [inputs.length, outputs.length]));
  const source = [
    ...['<float.h>', '<math.h>', '<stddef.h>', '<stdint.h>', '<stdlib.h>', '<string.h>'],
    ...headers.map(header => `"${header}"`),
  ].map(header => `#include ${header}\n`);
  source.push(`enum { MOST_BUFFERS = ${most} };\n`, runStructure, kernels.toString());
  for (const { text, wrapper } of functions.values()) source.push(text, wrapper);
  const library = await compile(
    source.join('\n'),
    [...functions.values()].map(({ name }) => name),
  );
  return (graph, given, sizes, threads = 2) => {
    const emitted = functions.get(graph);
    if (!emitted) throw failures.get(graph) ?? new Error(`${graph.name} is none of the graphs that were compiled`);
    return run(library[emitted.name]!, graph, emitted, given, sizes, threads);
  };
}

interface Emitted {
  /** The exported wrapper's name. */
  readonly name: string;
  readonly text: string;
  readonly wrapper: string;
  /** The memory that it needs. */
  readonly totals: ReadonlyMap<string, number>;
  readonly workspaces: readonly (readonly Extent[])[];
  readonly scratch: number;
}

function emit(original: Graph, number: number, kernels: KernelLibrary): Emitted {
  const graph = { ...original, name: `graph_${number}` };
  const schedule = fuse(graph, { fuse: true });
  const plan = planMemory(graph, schedule);
  const homes: Homes = (label, isOutput) => {
    const list = isOutput ? graph.outputs : graph.inputs.map(node => ({ name: node.label, node }));
    const index = list.findIndex(({ name }) => name === label);
    const cast = list[index]!.node.dtype === 'i32' ? '(int32_t *)' : '';
    return `${cast}run->${isOutput ? 'results' : 'given'}[${index}]`;
  };
  const { text, workspaces, scratch } = emitFunction(
    { graph, schedule, plan, storage: storedAsFloat },
    `graph_${number}`,
    'const malc_run *run',
    homes,
    kernels,
  );
  const name = `run_${number}`;
  const wrapper = `void ${name}(int threads, const int32_t *sizes, const int32_t *places, float *memory) {
  malc_run run = { .batch = sizes[0], .time = sizes[1], .sequences = sizes[2], .longest = sizes[1], .context = sizes[3] };
  run.scratch_stride = sizes[4];
${regions.map(region => `  run.${region} = memory + *places++;\n`).join('')}\
  for (int i = 0; i < ${graph.inputs.length}; i++) run.given[i] = memory + *places++;
  for (int i = 0; i < ${graph.outputs.length}; i++) run.results[i] = memory + *places++;
  omp_set_num_threads(threads);
  ${graph.name}(&run);
}
`;
  return { name, text, wrapper, workspaces, scratch, totals: plan.totals };
}

const invoke = promisify(execFile);

async function compile(source: string, names: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'malc-graphs-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const header of headers)
    writeFileSync(join(folder, header), readPackageFile(`templates/cpu/${header.replace('malc_', '')}`));
  writeFileSync(join(folder, 'graphs.c'), source);
  const { command, leadingArguments, flags } = await findCompiler();
  // The headers' functions are for whole programs: not every set of graphs calls all of them.
  const strict = ['-Wall', '-Wextra', '-Werror', '-Wno-unused-function'];
  const files = [join(folder, 'graphs.c'), '-o', join(folder, 'graphs.so'), '-lm'];
  await invoke(command, [...leadingArguments, ...flags, '-O1', ...strict, ...files]);
  const parameters = 'int threads, const int32_t *sizes, const int32_t *places, float *memory';
  return loadLibrary(
    join(folder, 'graphs.so'),
    Object.fromEntries(names.map(name => [name, `void ${name}(${parameters})`])),
  );
}

function run(
  call: (...values: unknown[]) => unknown,
  graph: Graph,
  { totals, workspaces, scratch }: Emitted,
  given: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  threads: number,
): Map<string, Tensor> {
  const { batch = 1, time = 1, sequences = 0, context = 0 } = sizes;
  const runtime: Sizes = { batch, time, sequences, context };
  const countOf = ({ runtime: names, count }: Extent) => product(names.map(name => runtime[name]!)) * count;
  const memory = new Layout();
  for (const growth of Object.values(growths)) {
    const positions = product(growth === '' ? [] : growth.split('*').map(name => runtime[name]!));
    memory.add((totals.get(growth) ?? 0) * positions);
  }
  memory.add(Math.max(0, ...workspaces.map(extents => extents.map(countOf).reduce((a, b) => a + b, 0))));
  memory.add(scratch * threads);
  const inputs = graph.inputs.map(node => givenFor(given, node.label));
  const inputPlaces = inputs.map(({ data }) => memory.add(data.length));
  const outputPlaces = graph.outputs.map(({ node }) => memory.add(product(node.dimensions.map(d => sizeOf(d, sizes)))));

  const floats = memory.allocate();
  const integers = new Int32Array(floats.buffer);
  const viewOf = (node: Node) => (node.dtype === 'i32' ? integers : floats);
  graph.inputs.forEach((node, n) => {
    viewOf(node).set(inputs[n]!.data, inputPlaces[n]!);
  });
  graph.outputs.forEach(({ name, node, accumulate }, n) => {
    if (accumulate) floats.set(given.get(name)?.data ?? zeros(node.dimensions, sizes).data, outputPlaces[n]!);
  });
  const numbers = [batch, time, sequences, context, scratch];
  call(threads, Int32Array.from(numbers), Int32Array.from(memory.places), floats);
  memory.check(floats, graph.name);

  return new Map(
    graph.outputs.map(({ name, node }, n) => {
      const cache = cacheOf(node);
      const place = cache ? inputPlaces[graph.inputs.indexOf(cache)]! : outputPlaces[n]!;
      const result = zeros(node.dimensions, sizes);
      result.data.set(viewOf(node).subarray(place, place + result.data.length));
      return [name, result] as const;
    }),
  );
}

/** Where a node is a cache that is written in place, the input that it was; null for any other node. */
function cacheOf(node: Node): Node | null {
  if (node.primitive?.name !== 'append') return null;
  const [cache] = node.inputs as [Node];
  return cacheOf(cache) ?? cache;
}

function givenFor(given: ReadonlyMap<string, Tensor>, label: string): Tensor {
  const value = given.get(label);
  if (!value) throw new Error(`the input ${label} was not given`);
  return value;
}

/** Buffers one after the other, a gap after each. */
class Layout {
  readonly places: number[] = [];
  private readonly ends: number[] = [];

  /** Returns where the buffer begins. */
  add(count: number): number {
    const place = this.ends.length === 0 ? 0 : Math.ceil((this.ends.at(-1)! + gap) / gap) * gap;
    this.places.push(place);
    this.ends.push(place + count);
    return place;
  }

  /** Memory that holds nothing but NaN. */
  allocate(): Float32Array {
    return new Float32Array(this.ends.at(-1)! + gap).fill(Number.NaN);
  }

  check(floats: Float32Array, name: string): void {
    this.ends.forEach((end, n) => {
      const written = floats.subarray(end, end + gap).findIndex(value => !Number.isNaN(value));
      if (written >= 0) throw new Error(`${name}: buffer ${n} is written ${written + 1} floats after its end`);
    });
  }
}
