// The compiler as a function, top to bottom: a checked Model becomes a program of graphs, kernels and C source.
import { blockKinds, buildProgram, graphsOf, type Program, trainingFunctions } from './build/program.ts';
import type { Model } from './check/model.ts';
import { formulaLibrary } from './check/standard-library.ts';
import { UserError } from './diagnostic.ts';
import type { KernelReport } from './emission/kernel-library.ts';
import type { Optimizer } from './emission/optimizer.ts';
import { type TrainingState, trainingState } from './emission/training-state.ts';
import type { Graph } from './graph/graph.ts';
import { printGraph } from './graph/print.ts';
import { verify } from './graph/verify.ts';
import { explainKernel } from './kernels/explain.ts';
import { fuse } from './kernels/fuse.ts';
import type { Schedule } from './kernels/kernel.ts';
import { compose } from './passes/compose.ts';
import { defer } from './passes/defer.ts';
import { type LoweredFunction, planMemory } from './plan/plan.ts';
import { againName, forwardAgain, type Kept, type Recompute, recomputedBlocks, valuesKept } from './plan/recompute.ts';
import { roundOperands } from './plan/round.ts';
import { chooseStorage, type Scheduled, type Storage, storedAsFloat } from './plan/storage.ts';
import { emitCpu, type ProgramLaunch } from './targets/cpu/index.ts';
import { cpuStoring, type ProductType } from './targets/cpu/kernel-source.ts';
import { chooseSchedule, type ProductShape, type ScheduleOf, shapeKey } from './targets/cpu/schedule.ts';
import { emitCuda } from './targets/cuda/index.ts';
import { type CudaProductType, cudaStoring } from './targets/cuda/kernel-source.ts';
import { type ChoiceOf, describeChoice, isInAnyOrder } from './targets/cuda/tunable.ts';
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
  /** Which blocks compute their forward pass again in training, and keep less for it: see plan/recompute.ts. Default none. */
  readonly recompute?: Recompute;
  /** How training moves the weights. Default adamw. */
  readonly optimizer?: Optimizer;
  /** Of the optimizer sgd: false for steps along the gradient alone, which need no memory of those before. Default true. */
  readonly momentum?: boolean;
  /** Makes a program that takes the time of each launch: malc_profile_* of malc.h. */
  readonly profile?: boolean;
  /** How products are divided into tasks; the cost model's choice where it is not given. */
  readonly scheduleOf?: ScheduleOf;
  /** On cuda: how launches are computed that there are several ways for; the cost model's choice where it is not given. */
  readonly choiceOf?: ChoiceOf;
  /**
   * On cuda: whether `choiceOf` may choose sums that are added up in the order in which they come, so that the last bits
   * differ from run to run. Default false.
   */
  readonly anyOrder?: boolean;
  /** Parameters that training leaves as they are, by their names in checkpoints; none where nothing is said. */
  readonly frozen?: readonly string[];
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
  readonly state: TrainingState;
  /** What blocks keep from their forward to their backward pass; of modules for further tokens the blocks alone. */
  readonly kept: Kept;
}

/** Compiles a model to C, or to CUDA C++. */
export function compile(model: Model, options: CompileOptions = {}): Compiled {
  const stage = <T>(name: string, run: () => T, print: (value: T) => string): T => {
    const before = performance.now();
    const value = run();
    options.onStage?.(name, performance.now() - before, () => print(value));
    return value;
  };
  const { dtype = 'f32', optimizer = 'adamw', momentum = true, profile = false } = options;
  if (dtype === 'int8') refuseTraining(options);
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
  // The CPU's products round what they read while they pack it anyway.
  const rounds = dtype === 'bf16' && options.target === 'cuda';
  const trained = new Set(trainingFunctions(program).flat());
  const composed = (graph: Graph): Graph => {
    if (!fused) return graph;
    return rounds && trained.has(graph.name) ? compose(defer(compose(graph))) : compose(graph);
  };
  const graphs = stage('compose', () => graphsOf(program).map(composed), printGraphs);
  if (options.verify) for (const graph of [...graphsOf(program), ...graphs]) verify(graph);
  const scheduled = stage(
    'fuse',
    () => {
      const fusion = { fuse: fused, exactApart: rounds, totals: rounds };
      const ofTraining = { ...fusion, statistics: rounds };
      const functions = graphs.map((graph): Scheduled => {
        return { graph, schedule: fuse(graph, trained.has(graph.name) ? ofTraining : fusion) };
      });
      if (!rounds) return functions;
      const groups = trainingGroups(program, functions);
      const rounded = new Map(groups.flatMap(group => [...roundOperands(group, cudaStoring, ofTraining)]));
      return functions.map(each => rounded.get(each) ?? each);
    },
    functions => printSchedules(functions.map(({ schedule }) => schedule)),
  );
  if (options.verify) for (const { graph } of scheduled) verify(graph);
  const kinds = blockKinds(program).slice(program.lowest);
  const recomputed = recomputedBlocks(options.recompute ?? 'none', kinds.length);
  const lowered = stage(
    'plan',
    () => {
      const storages =
        dtype !== 'bf16' ? new Map<string, Storage>() : storagesOf(program, scheduled, options.target ?? 'cpu');
      const functions = scheduled.map(({ graph, schedule }): LoweredFunction => {
        const storage = storages.get(graph.name) ?? storedAsFloat;
        return { graph, schedule, storage, plan: planMemory(graph, schedule, storage) };
      });
      const again = [...new Set(kinds.slice(0, recomputed))].map(kind => {
        const { name, forward } = program.blocks[kind]!;
        return forwardAgain(functions.find(({ graph }) => graph.name === forward.name)!, againName(name));
      });
      return [...functions, ...again];
    },
    functions => functions.map(printPlan).join('\n'),
  );
  const byName = new Map(lowered.map(value => [value.graph.name, value]));
  const products = new Map<string, ProductShape>();
  const scheduleOf: ScheduleOf = shape => {
    products.set(shapeKey(shape), shape);
    return (options.scheduleOf ?? chooseSchedule)(shape);
  };
  const choiceOf = orderedChoices(options);
  const common = { profile, recomputed, updating: { optimizer, momentum } };
  const emit = () => {
    if (options.target === 'cuda') return emitCuda(program, byName, { dtype: cudaType(options), ...common, choiceOf });
    return emitCpu(program, byName, { dtype, ...common, scheduleOf });
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
  const kept: Kept = {
    blocks: kinds.map(kind => program.blocks[kind]!.name),
    recomputed,
    alignment: source.alignment,
    values: Object.fromEntries(
      program.blocks.map(({ name, forward }) => [name, valuesKept(byName.get(forward.name)!)]),
    ),
  };
  return {
    files: source.files,
    plan: { model: model.name, functions, state: trainingState(program, { optimizer, momentum }), kept },
    kernels: source.kernels,
    launches: source.launches,
    products: [...products.values()],
  };
}

/**
 * What programs with weights of 8 bits have no use for.
 * @throws UserError for an option of training, by its name
 */
function refuseTraining({ optimizer = 'adamw', recompute = 'none', frozen = [] }: CompileOptions): void {
  const [first] = [
    ...(optimizer === 'adamw' ? [] : [`the optimizer ${optimizer}`]),
    ...(recompute === 'none' || recompute === 0 ? [] : ['recompute']),
    ...(frozen.length === 0 ? [] : ['freezing']),
  ];
  if (first)
    throw new UserError(
      `${first} is for training, and weights of 8 bits (int8) are for inference alone; leave one out`,
    );
}

/** What is chosen, held to one order of sums where any will not do. */
function orderedChoices({ target, choiceOf, anyOrder = false }: CompileOptions): ChoiceOf | undefined {
  if (target !== 'cuda') {
    if (choiceOf) throw new Error('choices of how launches are computed are for the target cuda');
    if (anyOrder)
      throw new UserError('sums in any order are for the target cuda: on the CPU they have one; leave it out');
    return undefined;
  }
  return (
    choiceOf &&
    (tunable => {
      const choice = choiceOf(tunable);
      if (choice && isInAnyOrder(choice) && !anyOrder)
        throw new Error(`${tunable.name}: ${describeChoice(choice)} is chosen, and its order is to be the same`);
      return choice;
    })
  );
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
