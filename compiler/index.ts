// The compiler as a function, top to bottom: a checked Model becomes a program of graphs, kernels and C source.
import { buildProgram, graphsOf } from './build/program.ts';
import type { Model } from './check/model.ts';
import { formulaLibrary } from './check/standard-library.ts';
import type { Graph } from './graph/graph.ts';
import { printGraph } from './graph/print.ts';
import { verify } from './graph/verify.ts';
import { explainKernel } from './kernels/explain.ts';
import { fuse } from './kernels/fuse.ts';
import type { Schedule } from './kernels/kernel.ts';
import { compose } from './passes/compose.ts';
import { type LoweredFunction, planMemory } from './plan/plan.ts';
import type { KernelReport } from './targets/cpu/functions.ts';
import { emitCpu, type ProgramLaunch } from './targets/cpu/index.ts';
import type { ProductType } from './targets/cpu/kernel-source.ts';

export interface CompileOptions {
  /** False for a kernel for each operation: slower, the same result within rounding. */
  readonly fuse?: boolean;
  /** What products multiply: float32 numbers, or these rounded to bfloat16, with float32 sums. Default f32. */
  readonly dtype?: ProductType;
  /** Makes a program that takes the time of each launch: malc_profile_* of malc.h. */
  readonly profile?: boolean;
  /** Checks every graph against the rules of graph/verify.ts. */
  readonly verify?: boolean;
  /** Called after each stage: for `--time` and `--dump STAGE`. */
  readonly onStage?: (name: string, milliseconds: number, print: () => string) => void;
}

export interface Compiled {
  /** Source files to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly plan: PlanSummary;
  /** Every distinct kernel, in the order of the source. */
  readonly kernels: readonly KernelReport[];
  /** Every launch and its work, in the order of the profile. */
  readonly launches: readonly ProgramLaunch[];
}

/** What will be launched and kept, for plan.json. */
export interface PlanSummary {
  readonly model: string;
  readonly functions: readonly {
    readonly name: string;
    readonly launches: readonly string[];
    /** Floats of intermediate values, by what they grow with: '' (fixed), time, batch*time. */
    readonly intermediate: Readonly<Record<string, number>>;
  }[];
}

/** Compiles a model to C. */
export function compile(model: Model, options: CompileOptions = {}): Compiled {
  const stage = <T>(name: string, run: () => T, print: (value: T) => string): T => {
    const before = performance.now();
    const value = run();
    options.onStage?.(name, performance.now() - before, () => print(value));
    return value;
  };
  const fused = options.fuse ?? true;
  const library = stage(
    'library',
    () => formulaLibrary(model),
    formulas => [...formulas.keys()].join('\n'),
  );
  const program = stage(
    'graph',
    () => buildProgram(model, library),
    value => printGraphs(graphsOf(value)),
  );
  const graphs = stage('compose', () => graphsOf(program).map(graph => (fused ? compose(graph) : graph)), printGraphs);
  if (options.verify) for (const graph of [...graphsOf(program), ...graphs]) verify(graph);
  const schedules = stage('fuse', () => graphs.map(graph => fuse(graph, { fuse: fused })), printSchedules);
  const lowered = stage(
    'plan',
    () => graphs.map((graph, n) => ({ graph, schedule: schedules[n]!, plan: planMemory(graph, schedules[n]!) })),
    functions => functions.map(printPlan).join('\n'),
  );
  const byName = new Map(lowered.map(value => [value.graph.name, value]));
  const source = stage(
    'source',
    () => emitCpu(program, byName, { dtype: options.dtype ?? 'f32', profile: options.profile ?? false }),
    value => value.files['model.c']!,
  );
  const functions = source.functions.map(({ name, launches }) => ({
    name,
    launches,
    intermediate: Object.fromEntries(byName.get(name)!.plan.totals),
  }));
  return {
    files: source.files,
    plan: { model: model.name, functions },
    kernels: source.kernels,
    launches: source.launches,
  };
}

const printGraphs = (graphs: readonly Graph[]): string => graphs.map(printGraph).join('\n');

const printSchedules = (schedules: readonly Schedule[]): string =>
  schedules
    .flatMap(({ kernels }) => [...kernels.map(kernel => explainKernel(kernel, node => node.label).join('\n')), ''])
    .join('\n');

const printPlan = ({ graph, plan }: LoweredFunction): string =>
  [
    graph.name,
    ...[...plan.placements].map(
      ([node, { growth, offset }]) => `  ${node.label} (%${node.id}): ${growth || 'fixed'} + ${offset}`,
    ),
    ...[...plan.totals].map(([growth, count]) => `  in all: ${count} floats for each of ${growth || 'one'}`),
  ].join('\n');
