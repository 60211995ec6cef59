// Runs graphs as the CPU target compiles them: every graph of a test becomes a function of one library.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { KernelLibrary } from '../../compiler/emission/kernel-library.ts';
import type { Sizes } from '../../compiler/graph/dimension.ts';
import type { Graph } from '../../compiler/graph/graph.ts';
import type { Tensor } from '../../compiler/graph/tensor.ts';
import { fuse } from '../../compiler/kernels/fuse.ts';
import { readPackageFile } from '../../compiler/package-files.ts';
import { planMemory } from '../../compiler/plan/plan.ts';
import { storedAsFloat } from '../../compiler/plan/storage.ts';
import { emitFunction } from '../../compiler/targets/cpu/functions.ts';
import { findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { loadLibrary } from '../../runtime/ffi.ts';
import { type GraphNeeds, homesOfGraph, regions, runInMemory } from '../graph-memory.ts';

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
    const needs = { ...emitted, scratch: emitted.scratch * threads };
    return runInMemory(graph, needs, given, sizes, (numbers, { places }, memory) =>
      library[emitted.name]!(threads, Int32Array.from([...numbers, emitted.scratch]), places, memory),
    );
  };
}

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
  const { text, workspaces, scratch } = emitFunction(
    { graph, schedule, plan, storage: storedAsFloat },
    `graph_${number}`,
    'const malc_run *run',
    homesOfGraph(graph),
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
