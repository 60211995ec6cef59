// The compiler as a function, top to bottom: a checked Model becomes a program of graphs, kernels and C source.
import { buildProgram, graphsOf, type Program, trainingFunctions } from './build/program.ts';
import type { Model } from './check/model.ts';
import { formulaLibrary } from './check/standard-library.ts';
import { UserError } from './diagnostic.ts';
import type { KernelReport } from './emission/kernel-library.ts';
import type { Graph } from './graph/graph.ts';
import { printGraph } from './graph/print.ts';
import { verify } from './graph/verify.ts';
import { explainKernel } from './kernels/explain.ts';
import { fuse } from './kernels/fuse.ts';
import type { Schedule } from './kernels/kernel.ts';
import { compose } from './passes/compose.ts';
import { type LoweredFunction, planMemory } from './plan/plan.ts';
import { roundOperands } from './plan/round.ts';
import { chooseStorage, type Scheduled, type Storage, storedAsFloat } from './plan/storage.ts';
import { emitCpu, type ProgramLaunch } from './targets/cpu/index.ts';
import { cpuStoring, type ProductType } from './targets/cpu/kernel-source.ts';
import { chooseSchedule, type ProductShape, type ScheduleOf, shapeKey } from './targets/cpu/schedule.ts';
import { emitCuda } from './targets/cuda/index.ts';
import { type CudaProductType, cudaStoring } from './targets/cuda/kernel-source.ts';
import type { ChoiceOf } from './targets/cuda/tunable.ts';
import type { Target } from './targets/names.ts';

export interface CompileOptions {
  /** What the program runs on. Default cpu. */
  readonly target?: Target;
  /** False for a kernel for each operation: slower, the same result within rounding. */
  readonly fuse?: boolean;
  /**
   * Keeps the documents of a sequence apart: no position sees one of another. malc_options.separator says where they end.
   * Default false.
   */
  readonly masksDocuments?: boolean;
  /** What products multiply: float32 numbers, or these rounded to bfloat16, with float32 sums. Default f32. */
  readonly dtype?: ProductType;
  /** Makes a program that takes the time of each launch: malc_profile_* of malc.h. */
  readonly profile?: boolean;
  /** How products are divided into tasks; the cost model's choice where it is not given. */
  readonly scheduleOf?: ScheduleOf;
  /** On cuda: how products are computed; the cost model's choice where it is not given. */
  readonly choiceOf?: ChoiceOf;
  /** Checks every graph against the rules of graph/verify.ts. */
  readonly verify?: boolean;
  /** Called after each stage: for `--time` and `--dump STAGE`. */
  readonly onStage?: (name: string, milliseconds: number, print: () => string) => void;
}

export interface Compiled {
  /** Source files to be written side by side; `model.c`, or each `.cu`, is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly plan: PlanSummary;
  /** Every distinct kernel, in the order of the source. */
  readonly kernels: readonly KernelReport[];
  /** Every launch and its work, in the order of the profile. */
  readonly launches: readonly ProgramLaunch[];
  /** Every distinct shape of its products that a schedule divides. */
  readonly products: readonly ProductShape[];
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

/** Compiles a model to C, or to CUDA C++. */
export function compile(model: Model, options: CompileOptions = {}): Compiled {
  const stage = <T>(name: string, run: () => T, print: (value: T) => string): T => {
    const before = performance.now();
    const value = run();
    options.onStage?.(name, performance.now() - before, () => print(value));
    return value;
  };
  const { dtype = 'f32' } = options;
  const fused = options.fuse ?? true;
  const library = stage(
    'library',
    () => formulaLibrary(model),
    formulas => [...formulas.keys()].join('\n'),
  );
  const program = stage(
    'graph',
    () => buildProgram(model, library, options),
    value => printGraphs(graphsOf(value)),
  );
  const graphs = stage('compose', () => graphsOf(program).map(graph => (fused ? compose(graph) : graph)), printGraphs);
  if (options.verify) for (const graph of [...graphsOf(program), ...graphs]) verify(graph);
  const scheduled = stage(
    'fuse',
    () => {
      // The CPU's products round what they read while they pack it anyway.
      const rounds = dtype === 'bf16' && options.target === 'cuda';
      const fusion = { fuse: fused, exactApart: rounds, totals: rounds };
      const functions = graphs.map((graph): Scheduled => ({ graph, schedule: fuse(graph, fusion) }));
      if (!rounds) return functions;
      const groups = trainingGroups(program, functions);
      const rounded = new Map(groups.flatMap(group => [...roundOperands(group, cudaStoring, fusion)]));
      return functions.map(each => rounded.get(each) ?? each);
    },
    functions => printSchedules(functions.map(({ schedule }) => schedule)),
  );
  if (options.verify) for (const { graph } of scheduled) verify(graph);
  const lowered = stage(
    'plan',
    () => {
      const storages =
        dtype !== 'bf16' ? new Map<string, Storage>() : storagesOf(program, scheduled, options.target ?? 'cpu');
      return scheduled.map(({ graph, schedule }): LoweredFunction => {
        const storage = storages.get(graph.name) ?? storedAsFloat;
        return { graph, schedule, storage, plan: planMemory(graph, schedule, storage) };
      });
    },
    functions => functions.map(printPlan).join('\n'),
  );
  const byName = new Map(lowered.map(value => [value.graph.name, value]));
  const products = new Map<string, ProductShape>();
  const scheduleOf: ScheduleOf = shape => {
    products.set(shapeKey(shape), shape);
    return (options.scheduleOf ?? chooseSchedule)(shape);
  };
  const { choiceOf } = options;
  if (choiceOf && options.target !== 'cuda') throw new Error('choices of products are for the target cuda');
  const emit = () => {
    if (options.target === 'cuda')
      return emitCuda(program, byName, { dtype: cudaType(options), profile: options.profile ?? false, choiceOf });
    return emitCpu(program, byName, { dtype, profile: options.profile ?? false, scheduleOf });
  };
  const isUnit = (name: string) => name === 'model.c' || name.endsWith('.cu');
  const source = stage('source', emit, ({ files }) =>
    Object.keys(files)
      .filter(isUnit)
      .map(name => files[name])
      .join('\n'),
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
    products: [...products.values()],
  };
}

/** What products multiply on CUDA, where these options are for it. */
function cudaType({ dtype = 'f32', scheduleOf }: CompileOptions): CudaProductType {
  if (dtype === 'int8') throw new UserError('the target cuda has no weights of 8 bits yet; use --dtype bf16');
  if (scheduleOf) throw new Error('the target cuda takes no schedules of tasks: products have choices');
  return dtype;
}

/** The functions of training, in groups that hand values to one another. */
const trainingGroups = (program: Program, functions: readonly Scheduled[]): Scheduled[][] =>
  trainingFunctions(program).map(names => functions.filter(({ graph }) => names.includes(graph.name)));

/** How the functions of training store values, by name. */
function storagesOf(program: Program, scheduled: readonly Scheduled[], target: Target): Map<string, Storage> {
  return new Map(
    trainingGroups(program, scheduled).flatMap(functions => {
      const storage = chooseStorage(functions, target === 'cuda' ? cudaStoring : cpuStoring);
      return functions.map(({ graph }) => [graph.name, storage] as const);
    }),
  );
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
