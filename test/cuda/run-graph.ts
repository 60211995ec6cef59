// Runs graphs as the CUDA target compiles them, in the emulator: every graph of a test becomes a function of one library,
// whose kernels lie in the units that they would lie in if they were a program's.
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KernelLibrary } from '../../compiler/emission/kernel-library.ts';
import type { Sizes } from '../../compiler/graph/dimension.ts';
import type { Graph } from '../../compiler/graph/graph.ts';
import type { Tensor } from '../../compiler/graph/tensor.ts';
import { fuse } from '../../compiler/kernels/fuse.ts';
import { planMemory } from '../../compiler/plan/plan.ts';
import { storedAsFloat } from '../../compiler/plan/storage.ts';
import { emitFunction } from '../../compiler/targets/cuda/functions.ts';
import { headersFor } from '../../compiler/targets/cuda/index.ts';
import type { CudaProductType } from '../../compiler/targets/cuda/kernel-source.ts';
import { emitUnits } from '../../compiler/targets/cuda/units.ts';
import { loadLibrary } from '../../runtime/ffi.ts';
import { type GraphNeeds, homesOfGraph, regions, runInMemory } from '../graph-memory.ts';
import { buildEmulated } from '../simt/build.ts';
import { programFolder } from './build.ts';

/** Graphs as CUDA functions. */
export interface CudaGraphs {
  /** The files of their kernels: nvcc compiles them too. */
  readonly units: readonly string[];
  /** Kernels that the files define. */
  readonly kernels: number;
  /**
   * Compiles them for the emulator, which checks every access to memory, unless they were.
   * @param seed of the order in which it runs threads and blocks; that of MALC_SIMT_SEED where it is not given
   */
  build(seed?: number): Promise<RunOnCuda>;
}

/**
 * Runs one of the graphs: see runInMemory.
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

/** Fuses, plans and emits every graph. Kernels see float32 copies of what they are given. */
export function cudaGraphs(graphs: readonly Graph[], dtype: CudaProductType): CudaGraphs {
  const kernels = new KernelLibrary([]);
  const functions = new Map(graphs.map((graph, n) => [graph, emit(graph, n, kernels, dtype)]));
  const folder = programFolder();
  const units = emitUnits(kernels.reports, headersFor(dtype));
  const most = Math.max(...graphs.flatMap(({ inputs, outputs }) => [inputs.length, outputs.length]));
  const host = [frame(most), ...[...functions.values()].flatMap(({ text, wrapper }) => [text, wrapper])];
  for (const [name, text] of Object.entries({ ...units, 'graphs.cu': host.join('\n') }))
    writeFileSync(join(folder, name), text);
  const sources = Object.keys(units)
    .filter(name => name.endsWith('.cu'))
    .map(name => join(folder, name));

  const compiled = join(folder, 'graphs.so');
  const source = { sources: [join(folder, 'graphs.cu'), ...sources], include: [folder], output: compiled };
  let compiling: Promise<void> | null = null;

  const build = async (seed?: number): Promise<RunOnCuda> => {
    compiling ??= buildEmulated({ ...source, library: true });
    await compiling;
    const output = join(folder, `graphs_${seed ?? 'first'}.so`); // the emulator asks for its order once
    copyFileSync(compiled, output);
    const names = [...functions.values()].map(({ name }) => name);
    const before = process.env.MALC_SIMT_SEED;
    if (seed !== undefined) process.env.MALC_SIMT_SEED = String(seed);
    const library = loadLibrary(
      output,
      Object.fromEntries(names.map(name => [name, `const char *${name}(${parameters})`])),
    );
    if (before === undefined) delete process.env.MALC_SIMT_SEED;
    else process.env.MALC_SIMT_SEED = before;
    return (graph, given, sizes, adds = true) => {
      const emitted = functions.get(graph)!;
      return runInMemory(graph, emitted, given, sizes, (numbers, { places, ends }, memory) => {
        const terms = Int32Array.from([...numbers, adds ? 1 : 0]);
        const fault = library[emitted.name]!(terms, places, ends, memory, memory.length);
        if (fault) throw new Error(`${graph.name}: ${fault}`);
      });
    };
  };
  return {
    units: sources,
    kernels: [
      ...Object.values(units)
        .join('')
        .matchAll(/__global__/g),
    ].length,
    build,
  };
}

const parameters = 'const int32_t *sizes, const int32_t *places, const int32_t *ends, float *memory, int32_t floats';

/** What all graphs share: what is in program.h and not called by these does not matter. */
const frame = (buffers: number) => `#pragma GCC diagnostic ignored "-Wunused-function"
#include "kernels.h"
#include "program.h"

struct malc_run {
  int64_t batch, time, sequences, longest, context;
  bool adds;
  float *${regions.join(', *')};
  float *given[${buffers}], *results[${buffers}];
  cudaStream_t queue;
  malc_status *status;
};

/* Runs a function on a copy of all buffers: buffer n is memory[places[n]] to memory[ends[n]], and no kernel may touch
 * what lies between two. Returns what went wrong. */
static const char *run_on_device(void (*function)(const malc_run *), int inputs, int outputs, ${parameters}) {
  const size_t bytes = (size_t)floats * sizeof(float);
  malc_status status = {cudaSuccess, nullptr};
  float *device = nullptr;
  malc_note(&status, cudaMalloc((void **)&device, bytes), "memory");
  malc_note(&status, cudaMemcpy(device, memory, bytes, cudaMemcpyHostToDevice), "inputs");
  malc_run run = {};
  run.batch = sizes[0], run.time = run.longest = sizes[1], run.sequences = sizes[2], run.context = sizes[3];
  run.adds = sizes[4] != 0;
  run.status = &status;
  int buffer = 0;
  const auto next = [&] {
    const int32_t end = ends[buffer], after = buffer + 1 < ${regions.length} + inputs + outputs ? places[buffer + 1] : floats;
    malc_guard(device + end, (size_t)(after - end) * sizeof(float));
    return device + places[buffer++];
  };
${regions.map(region => `  run.${region} = next();\n`).join('')}\
  for (int i = 0; i < inputs; i++) run.given[i] = next();
  for (int i = 0; i < outputs; i++) run.results[i] = next();
  function(&run);
  malc_note(&status, cudaStreamSynchronize(run.queue), "the graph");
  malc_note(&status, cudaMemcpy(memory, device, bytes, cudaMemcpyDeviceToHost), "outputs");
  cudaFree(device);
  return status.error == cudaSuccess ? nullptr : cudaGetErrorString(status.error);
}
`;

interface Emitted extends GraphNeeds {
  /** The exported wrapper's name. */
  readonly name: string;
  readonly text: string;
  readonly wrapper: string;
}

function emit(original: Graph, number: number, kernels: KernelLibrary, dtype: CudaProductType): Emitted {
  const graph = { ...original, name: `graph_${number}` };
  const schedule = fuse(graph, { fuse: true });
  const plan = planMemory(graph, schedule);
  const { text, workspaces } = emitFunction(
    { graph, schedule, plan, storage: storedAsFloat },
    graph.name,
    'const malc_run *run',
    homesOfGraph(graph),
    kernels,
    dtype,
    () => false,
  );
  const name = `run_${number}`;
  const counts = `${graph.inputs.length}, ${graph.outputs.length}`;
  const wrapper = `extern "C" const char *${name}(${parameters}) {
  return run_on_device(${graph.name}, ${counts}, sizes, places, ends, memory, floats);
}
`;
  return { name, text, wrapper, workspaces, scratch: 0, totals: plan.totals };
}
