// Runs graphs as the CUDA target compiles them, by the emulator: every graph of a test becomes a function of one library.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KernelLibrary } from '../../compiler/emission/kernel-library.ts';
import type { Sizes } from '../../compiler/graph/dimension.ts';
import type { Graph } from '../../compiler/graph/graph.ts';
import type { Tensor } from '../../compiler/graph/tensor.ts';
import { fuse } from '../../compiler/kernels/fuse.ts';
import { planMemory } from '../../compiler/plan/plan.ts';
import { storedAsFloat } from '../../compiler/plan/storage.ts';
import { emitFunction } from '../../compiler/targets/cuda/functions.ts';
import { loadLibrary } from '../../runtime/ffi.ts';
import { type GraphNeeds, homesOfGraph, regions, runInMemory } from '../graph-memory.ts';
import { buildEmulated } from '../simt/build.ts';
import { emulatorObject, programFolder } from './build.ts';

/** Runs one of the graphs, and returns its outputs: see runInMemory. */
export type RunOnCuda = (graph: Graph, given: ReadonlyMap<string, Tensor>, sizes: Sizes) => Map<string, Tensor>;

/**
 * Fuses, plans and emits every graph, and compiles them to one library with every access of a kernel checked. Kernels see
 * float32 copies of what they are given.
 * @param headers of templates/cuda that the kernels need besides those of every program
 */
export async function runOnCuda(graphs: readonly Graph[], headers: readonly string[]): Promise<RunOnCuda> {
  const kernels = new KernelLibrary([]);
  const functions = new Map(graphs.map((graph, n) => [graph, emit(graph, n, kernels)] as const));
  const most = Math.max(...graphs.flatMap(({ inputs, outputs }) => [inputs.length, outputs.length]));
  const source = ['program.h', 'scalars.h', 'sequences.h', ...headers].map(header => `#include "${header}"\n`);
  // The headers' functions are for whole programs: not every set of graphs calls all of them.
  source.unshift('#pragma GCC diagnostic ignored "-Wunused-function"\n');
  source.push(runStructure(most), kernels.toString());
  for (const { text, wrapper } of functions.values()) source.push(text, wrapper);
  const folder = programFolder();
  writeFileSync(join(folder, 'graphs.cu'), source.join('\n'));
  const output = join(folder, 'graphs.so');
  await buildEmulated({
    sources: [join(folder, 'graphs.cu')],
    emulator: await emulatorObject(),
    output,
    library: true,
  });
  const library = loadLibrary(
    output,
    Object.fromEntries([...functions.values()].map(({ name }) => [name, `const char *${name}(${parameters})`])),
  );
  return (graph, given, sizes) => {
    const emitted = functions.get(graph)!;
    return runInMemory(graph, emitted, given, sizes, (numbers, places, memory) => {
      const fault = library[emitted.name]!(Int32Array.from(numbers), places, memory, memory.length);
      if (fault) throw new Error(`${graph.name}: ${fault}`);
    });
  };
}

const parameters = 'const int32_t *sizes, const int32_t *places, float *memory, int32_t floats';

const runStructure = (most: number) => `struct malc_run {
  int64_t batch, time, sequences, longest, context;
  bool adds;
  float *${regions.join(', *')};
  float *given[${most}], *results[${most}];
  cudaStream_t queue;
  malc_status *status;
};
`;

interface Emitted extends GraphNeeds {
  /** The exported wrapper's name. */
  readonly name: string;
  readonly text: string;
  readonly wrapper: string;
}

function emit(original: Graph, number: number, kernels: KernelLibrary): Emitted {
  const graph = { ...original, name: `graph_${number}` };
  const schedule = fuse(graph, { fuse: true });
  const plan = planMemory(graph, schedule);
  const { text, workspaces } = emitFunction(
    { graph, schedule, plan, storage: storedAsFloat },
    graph.name,
    'const malc_run *run',
    homesOfGraph(graph),
    kernels,
    'f32',
    () => false,
  );
  const name = `run_${number}`;
  const wrapper = `extern "C" const char *${name}(${parameters}) {
  malc_status status = {cudaSuccess, nullptr};
  malc_run run = {};
  run.batch = sizes[0], run.time = run.longest = sizes[1], run.sequences = sizes[2], run.context = sizes[3];
  run.adds = true;
  float *device = nullptr;
  const size_t bytes = (size_t)floats * sizeof(float);
  malc_note(&status, cudaMalloc((void **)&device, bytes), "memory");
  malc_note(&status, cudaMemcpy(device, memory, bytes, cudaMemcpyHostToDevice), "inputs");
  run.status = &status;
${regions.map(region => `  run.${region} = device + *places++;\n`).join('')}\
  for (int i = 0; i < ${graph.inputs.length}; i++) run.given[i] = device + *places++;
  for (int i = 0; i < ${graph.outputs.length}; i++) run.results[i] = device + *places++;
  ${graph.name}(&run);
  malc_note(&status, cudaStreamSynchronize(run.queue), "the graph");
  malc_note(&status, cudaMemcpy(memory, device, bytes, cudaMemcpyDeviceToHost), "outputs");
  cudaFree(device);
  return status.error == cudaSuccess ? nullptr : cudaGetErrorString(status.error);
}
`;
  return { name, text, wrapper, workspaces, scratch: 0, totals: plan.totals };
}
