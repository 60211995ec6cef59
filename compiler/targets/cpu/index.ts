// The CPU target: a program as C source, one file for the model beside the headers that it includes.
import { graphsOf, type Program } from '../../build/program.ts';
import { type SharedInput, sharedInputs } from '../../build/site.ts';
import type { BlockStage, HeadStage, JoinStage, Stage } from '../../build/stage.ts';
import type { Graph } from '../../graph/graph.ts';
import { readPackageFile } from '../../package-files.ts';
import { renderTemplate } from '../../template.ts';
import {
  emitFunction,
  type FunctionSource,
  type Homes,
  KernelLibrary,
  type KernelReport,
  type LaunchReport,
  shortName,
} from './functions.ts';
import type { ProductType } from './kernel-source.ts';
import { type Lowered, memoryNeeds } from './memory-needs.ts';
import { modelFields, parameterKey } from './model-fields.ts';
import { PreparedWeights } from './prepared.ts';
import { stepLaunches } from './profile.ts';
import type { ScheduleOf } from './schedule.ts';

export interface CpuSource {
  /** File names and texts, to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
  /** In the order of the profile of a program that has one. */
  readonly launches: readonly ProgramLaunch[];
}

/** A launch of the program. The function `step` stands for what a step does besides calling functions. */
export interface ProgramLaunch extends LaunchReport {
  /** Positions that one run of the function takes at most; null where it takes all of the call. */
  readonly part: number | null;
}

export interface CpuOptions {
  /** What products multiply. */
  readonly dtype: ProductType;
  /** Whether the program takes the time of its launches. */
  readonly profile: boolean;
  /** How products of float32 are divided into tasks. */
  readonly scheduleOf: ScheduleOf;
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs, by name
 */
export function emitCpu(program: Program, lowered: Lowered, options: CpuOptions): CpuSource {
  const { dtype, profile, scheduleOf } = options;
  const { embedding, blocks, head, modules } = program;
  const kernels = new KernelLibrary(
    graphsOf(program).map(graph => graph.name),
    profile,
  );
  const prepared = new PreparedWeights();
  const stored = new Set<string>();
  const emitter = (need: 'always' | 'training') => (graph: Graph, stage: Stage, parameters: string, homes: Homes) => {
    const isParameter = (label: string) => stage.parameters.some(({ name }) => name === label);
    const own = lowered.get(graph.name)!;
    const source = emitFunction(own, stage.name, parameters, homes, kernels, dtype, isParameter, scheduleOf);
    for (const label of source.stored) stored.add(parameterKey(program, stage, label.slice('gradient.'.length)));
    for (const form of source.prepared) prepared.add(parameterKey(program, stage, form.parameter), form, need);
    return source;
  };
  const emit = emitter('always');
  const emitTraining = emitter('training');
  const reads = (stage: Stage) => `const malc_run *run, const ${stage.name}_parameters *p`;
  const writes = (stage: Stage) => `${reads(stage)}, const ${stage.name}_parameters *g`;

  const train = (stage: HeadStage) =>
    emitTraining(stage.train, stage, `${writes(stage)}, const float *x, float *x_gradient`, homes(stage));
  const backOf = (stage: BlockStage | JoinStage) =>
    emitTraining(
      stage.backward,
      stage,
      `${writes(stage)}, const ${stage.name}_saved *s, const float *x, const float *y_gradient, float *x_gradient`,
      homes(stage),
    );
  const forthOf = (stage: BlockStage | JoinStage, emit: ReturnType<typeof emitter>) =>
    emit(stage.forward, stage, `${reads(stage)}, const ${stage.name}_saved *s, const float *x, float *y`, homes(stage));
  const forward = [
    emit(embedding.forward, embedding, `${reads(embedding)}, float *y`, homes(embedding)),
    ...blocks.flatMap(block => [
      forthOf(block, emit),
      emit(
        block.decode,
        block,
        `${reads(block)}, const ${block.name}_cache *c, const float *x, float *y`,
        homes(block),
      ),
    ]),
    emit(head.logits, head, `${reads(head)}, const float *x, float *logits`, homes(head)),
    emit(head.loss, head, `${reads(head)}, const float *x`, homes(head)),
  ];
  const trains = dtype !== 'int8';
  const emitBackward = () => [
    train(head),
    ...(modules ? [forthOf(modules.join, emitTraining), train(modules.head), backOf(modules.join)] : []),
    ...blocks.map(backOf),
    emitTraining(embedding.backward, embedding, `${writes(embedding)}, const float *y_gradient`, homes(embedding)),
  ];
  const backward = trains ? emitBackward() : [];
  const functions = [...forward, ...backward];
  const step = stepLaunches(program, kernels);
  const inParts = functionsInParts(program);
  const grouped = kernels.reports.some(({ kind }) => groupedKinds.has(kind));
  const attends = kernels.reports.some(({ kind }) => kind === 'attention' || kind === 'attention-gradient');
  const fields = {
    // Modules add to gradients that the head would store.
    ...modelFields(program, lowered, prepared, modules ? new Set() : stored),
    trains,
    grouped,
    attends,
    bf16: dtype === 'bf16',
    int8: dtype === 'int8',
    prepared: !prepared.isEmpty,
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: memoryNeeds(functions, lowered, inParts),
    inference: memoryNeeds(forward, lowered, inParts),
    head_tokens: headTokens(program),
    profile: profile ? { ...step, names: kernels.launches.map(({ name }) => name) } : null,
    launch_count: kernels.launches.length,
  };
  const furtherAhead = modules && trains ? ['modules'] : [];
  const names = ['model', 'memory', ...furtherAhead, 'weights', 'interface', 'step', 'decoding', 'profile'];
  const parts = names.map(part => renderTemplate(`cpu/${part}.c.hbs`, fields));

  const header = (file: string) => readPackageFile(`templates/cpu/${file}`);
  return {
    files: {
      'model.c': parts.join(''),
      'malc.h': header('malc.h'),
      'malc_math.h': header('math.h'),
      'matmul.h': header('matmul.h'),
      'matmul_few.h': header('matmul_few.h'),
      'random.h': header('random.h'),
      'runtime.h': header('runtime.h'),
      'sequences.h': header('sequences.h'),
      ...(grouped ? { 'grouped.h': header('grouped.h') } : {}),
      ...(attends ? { 'attention.h': header('attention.h') } : {}),
      ...Object.fromEntries(headersOf[dtype].map(name => [name, header(name)])),
      ...(profile ? { 'profile.h': header('profile.h') } : {}),
    },
    functions,
    kernels: kernels.reports,
    launches: kernels.launches.map(launch => ({
      ...launch,
      part: inParts.has(launch.function) ? headTokens(program) : null,
    })),
  };
}

/** Headers that products of other numbers than float32 need. */
const headersOf: Readonly<Record<ProductType, readonly string[]>> = {
  f32: [],
  bf16: ['matmul_bf16.h', 'bf16_packing.h', 'bf16_pairs.h', 'bf16_tiles.h', 'matmul_streamed.h'],
  int8: ['bf16_packing.h', 'matmul_streamed.h', 'matmul_int8.h'],
};

/** Kernels that call functions of grouped.h. */
const groupedKinds: ReadonlySet<string> = new Set(['top-k', 'grouped', 'grouped-gradient', 'contract-each']);

/** Where a stage's functions find what a label names (build/stage.ts and build/site.ts list the labels). */
const homes =
  (stage: Stage): Homes =>
  (label, isOutput) => {
    if (label === 'x') return 'x';
    if (label === 'y' || label === 'logits') return label;
    if (label === 'gradient.x') return 'x_gradient';
    if (label === 'gradient.y') return 'y_gradient';
    if (isOutput && (label === 'loss' || label === 'auxiliary')) return `run->${label}`;
    if (label.startsWith('rotary_')) return `run->${label}`;
    // Of what all stages share, malc_run points at tensors and holds single numbers.
    if (label in sharedInputs)
      return `${sharedInputs[label as SharedInput].dimensions.length > 0 ? '' : '&'}run->${label}`;
    if (label.startsWith('cache.')) return `c->${label.slice('cache.'.length)}`;
    if (label.startsWith('next.')) return `c->next_${label.slice('next.'.length)}`;
    if (label.startsWith('saved.')) return `s->${label.slice('saved.'.length)}`;
    if (label.startsWith('gradient.')) return `g->${shortName(label.slice('gradient.'.length))}`;
    return stage.parameters.some(parameter => parameter.name === label) ? `p->${shortName(label)}` : null;
  };

/** Names each parameter that a function has by its stage's convention and does not use. */
function unusedParameters(text: string): string {
  const head = text.slice(0, text.indexOf('{'));
  const body = text.slice(head.length);
  const declared = [...head.matchAll(/\*?(\w+)(?=[,)])/g)].map(match => match[1]!);
  const unused = declared.filter(name => !new RegExp(`\\b${name}\\b`).test(body));
  return unused.length === 0 ? text : text.replace('{\n', `{\n  ${unused.map(name => `(void)${name};`).join(' ')}\n`);
}

/**
 * Positions that the head takes at once: enough that adding to its gradients is little work beside the products, and no
 * more, as it holds the logits of so many.
 */
const headTokens = ({ model }: Program) => (model.vocab_size > 65536 ? 256 : 512);

/** The functions that are called for a part of the positions at a time. */
const functionsInParts = ({ head, modules }: Program): ReadonlySet<string> =>
  new Set([head.loss, head.train, ...(modules ? [modules.head.train] : [])].map(graph => graph.name));
