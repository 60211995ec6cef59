// Runs graphs as the CUDA target compiles them, in the emulator: every graph of a test becomes a function of one library.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KernelLibrary } from '../../compiler/emission/kernel-library.ts';
import type { Homes } from '../../compiler/emission/places.ts';
import { product, type Sizes, sizeOf } from '../../compiler/graph/dimension.ts';
import type { Graph, Node } from '../../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../../compiler/graph/tensor.ts';
import { fuse } from '../../compiler/kernels/fuse.ts';
import { packagePath } from '../../compiler/package-files.ts';
import type { Extent } from '../../compiler/plan/extent.ts';
import { planMemory } from '../../compiler/plan/plan.ts';
import { storedAsFloat } from '../../compiler/plan/storage.ts';
import { emitFunction } from '../../compiler/targets/cuda/functions.ts';
import type { CudaProductType } from '../../compiler/targets/cuda/kernel-source.ts';
import { loadLibrary } from '../../runtime/ffi.ts';
import { buildEmulated, buildEmulator } from '../simt/build.ts';
import { programFolder } from './build.ts';

/** The source of graphs as CUDA functions, and how to run them. */
export interface CudaGraphs {
  /** The source file: nvcc compiles it too. */
  readonly source: string;
  /** Its kernels. */
  readonly kernels: number;
  /** Compiles it for the emulator, which checks every access to memory. */
  build(): Promise<RunOnCuda>;
}

/**
 * Runs one of the graphs.
 * @param given the graph's inputs, by label; and, by name, what the buffers of outputs that accumulate hold before, where
 * that is not zeros
 * @param adds whether gradients are added to their buffers, where kernels can store them as well
 * @returns the outputs, by name
 * @throws what the emulator reports
 */
export type RunOnCuda = (
  graph: Graph,
  given: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  adds?: boolean,
) => Map<string, Tensor>;

const growths = { fixed: '', per_sequence: 'batch', per_position: 'time', per_token: 'batch*time' } as const;
const regions = [...Object.keys(growths), 'workspace'] as (keyof typeof growths | 'workspace')[];

const frame = (buffers: number) => `
enum { MOST_BUFFERS = ${buffers} };

/* An address, whatever is there. */
struct address {
  void *there;
  template <class T>
  operator T *() const { return static_cast<T *>(there); }
};

/* As in program.h. */
struct malc_status {
  cudaError_t error;
  const char *place;
};
static void malc_note(malc_status *status, cudaError_t error, const char *place) {
  if (error != cudaSuccess && status->error == cudaSuccess) *status = {error, place};
}

typedef struct {
  int64_t batch, time, sequences, context;
  bool adds;
  float *${regions.join(', *')};
  address given[MOST_BUFFERS], results[MOST_BUFFERS];
  malc_status *status;
  cudaStream_t queue;
} malc_run;

/* Runs a function on a copy of all buffers: buffer n is host[starts[n]] to host[ends[n]], and no kernel may touch what
 * lies between. Returns what went wrong. */
static const char *run_on_device(void (*function)(const malc_run *), const int32_t *sizes, float *host,
                                 const int32_t *starts, const int32_t *ends, int inputs, int outputs) {
  const int count = ${regions.length} + inputs + outputs;
  float *memory;
  cudaMalloc(reinterpret_cast<void **>(&memory), starts[count] * 4ll);
  cudaMemcpy(memory, host, starts[count] * 4ll, cudaMemcpyHostToDevice);
  for (int n = 0; n < count; n++) malc_guard(memory + ends[n], (starts[n + 1] - ends[n]) * 4ll);
  malc_status status = {cudaSuccess, nullptr};
  malc_run run = {};
  run.batch = sizes[0], run.time = sizes[1], run.sequences = sizes[2], run.context = sizes[3], run.adds = sizes[4] != 0;
  run.status = &status;
${regions.map((region, n) => `  run.${region} = memory + starts[${n}];`).join('\n')}
  for (int i = 0; i < inputs; i++) run.given[i].there = memory + starts[${regions.length} + i];
  for (int i = 0; i < outputs; i++) run.results[i].there = memory + starts[${regions.length} + inputs + i];
  function(&run);
  if (status.error == cudaSuccess) status.error = cudaDeviceSynchronize();
  if (status.error != cudaSuccess) return cudaGetErrorString(status.error);
  cudaMemcpy(host, memory, starts[count] * 4ll, cudaMemcpyDeviceToHost);
  cudaFree(memory);
  return nullptr;
}
`;

/** Fuses, plans and emits every graph. */
export function cudaGraphs(graphs: readonly Graph[], dtype: CudaProductType): CudaGraphs {
  const kernels = new KernelLibrary([]);
  const functions = new Map(graphs.map((graph, n) => [graph, emit(graph, n, kernels, dtype)]));
  const most = Math.max(...graphs.flatMap(({ inputs, outputs }) => [inputs.length, outputs.length]));
  const headers = [
    'launch.h',
    'rows.h',
    'sequences.h',
    'scalars.h',
    'product_f32.h',
    'product_bf16.h',
    'grouped.h',
    'top_k.h',
  ];
  const source = join(programFolder(), 'graphs.cu');
  writeFileSync(
    source,
    [
      ...headers.map(header => `#include "${header}"`),
      frame(most),
      kernels.toString(),
      ...[...functions.values()].flatMap(({ text, wrapper }) => [text, wrapper]),
    ].join('\n'),
  );
  const build = async (): Promise<RunOnCuda> => {
    const folder = programFolder();
    const library = join(folder, 'graphs.so');
    const include = [packagePath('templates/cuda')];
    const emulator = await buildEmulator(folder);
    await buildEmulated({ sources: [source], include, emulator, output: library, library: true });
    const parameters = 'const int32_t *sizes, float *host, const int32_t *starts, const int32_t *ends';
    const names = [...functions.values()].map(({ name }) => name);
    const native = loadLibrary(
      library,
      Object.fromEntries(names.map(name => [name, `const char *${name}(${parameters})`])),
    );
    return (graph, given, sizes, adds = true) => {
      const emitted = functions.get(graph)!;
      return run(native[emitted.name]!, graph, emitted, given, sizes, adds);
    };
  };
  return { source, kernels: [...kernels.toString().matchAll(/__global__/g)].length, build };
}

interface Emitted {
  /** The exported wrapper's name. */
  readonly name: string;
  readonly text: string;
  readonly wrapper: string;
  /** The memory that it needs. */
  readonly totals: ReadonlyMap<string, number>;
  readonly workspaces: readonly (readonly Extent[])[];
}

function emit(original: Graph, number: number, kernels: KernelLibrary, dtype: CudaProductType): Emitted {
  const graph = { ...original, name: `graph_${number}` };
  const schedule = fuse(graph, { fuse: true });
  const plan = planMemory(graph, schedule);
  const homes: Homes = (label, isOutput) => {
    const names = isOutput ? graph.outputs.map(({ name }) => name) : graph.inputs.map(node => node.label);
    return `run->${isOutput ? 'results' : 'given'}[${names.indexOf(label)}]`;
  };
  const { text, workspaces } = emitFunction(
    { graph, schedule, plan, storage: storedAsFloat },
    graph.name,
    'const malc_run *run',
    homes,
    kernels,
    dtype,
    () => false,
  );
  const name = `run_${number}`;
  const wrapper = `
extern "C" const char *${name}(const int32_t *sizes, float *host, const int32_t *starts, const int32_t *ends) {
  return run_on_device(${graph.name}, sizes, host, starts, ends, ${graph.inputs.length}, ${graph.outputs.length});
}
`;
  return { name, text, wrapper, workspaces, totals: plan.totals };
}

function run(
  call: (...values: unknown[]) => unknown,
  graph: Graph,
  { totals, workspaces }: Emitted,
  given: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  adds: boolean,
): Map<string, Tensor> {
  const { batch = 1, time = 1, sequences = 0, context = 0 } = sizes;
  const runtime: Sizes = { batch, time, sequences, context };
  const countOf = ({ runtime: names, count }: Extent) => product(names.map(name => runtime[name]!)) * count;
  const starts = [0];
  const ends: number[] = [];
  /** A buffer, and room after it; returns where it begins. */
  const add = (count: number): number => {
    const place = starts.at(-1)!;
    ends.push(place + count);
    starts.push(Math.ceil((place + count) / 16) * 16 + 16);
    return place;
  };
  for (const growth of Object.values(growths)) {
    const positions = product(growth === '' ? [] : growth.split('*').map(name => runtime[name]!));
    add((totals.get(growth) ?? 0) * positions);
  }
  add(Math.max(0, ...workspaces.map(extents => extents.map(countOf).reduce((a, b) => a + b, 0))));
  const inputPlaces = graph.inputs.map(node => add(given.get(node.label)!.data.length));
  const outputPlaces = graph.outputs.map(({ node }) => add(product(node.dimensions.map(dim => sizeOf(dim, sizes)))));

  const floats = new Float32Array(starts.at(-1)!).fill(Number.NaN);
  const integers = new Int32Array(floats.buffer);
  const viewOf = (node: Node) => (node.dtype === 'i32' ? integers : floats);
  graph.inputs.forEach((node, n) => {
    viewOf(node).set(given.get(node.label)!.data, inputPlaces[n]!);
  });
  graph.outputs.forEach(({ name, node, accumulate }, n) => {
    if (accumulate) floats.set(given.get(name)?.data ?? zeros(node.dimensions, sizes).data, outputPlaces[n]!);
  });
  const numbers = [batch, time, sequences, context, adds ? 1 : 0];
  const error = call(Int32Array.from(numbers), floats, Int32Array.from(starts), Int32Array.from(ends));
  if (error !== null) throw new Error(String(error));
  return new Map(
    graph.outputs.map(({ name, node }, n) => {
      const result = zeros(node.dimensions, sizes);
      result.data.set(viewOf(node).subarray(outputPlaces[n]!, outputPlaces[n]! + result.data.length));
      return [name, result] as const;
    }),
  );
}
