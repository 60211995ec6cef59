// The CPU target: a program as C source, one file for the model beside the headers that it includes.
import type { Program } from '../../build/program.ts';
import type { Stage } from '../../build/stage.ts';
import { parameterKey, unusedParameters } from '../../emission/homes.ts';
import { KernelLibrary, type KernelReport, type LaunchReport } from '../../emission/kernel-library.ts';
import { functionsInParts, headTokens, type Lowered, memoryFields, needs } from '../../emission/memory-needs.ts';
import { modelFields } from '../../emission/model-fields.ts';
import { shortName } from '../../emission/naming.ts';
import { momentsOf, type Updating, updateFields } from '../../emission/optimizer.ts';
import type { Homes } from '../../emission/places.ts';
import { type Prepared, PreparedWeights } from '../../emission/prepared.ts';
import { emitStages } from '../../emission/stages.ts';
import { stepLaunches } from '../../emission/step-launches.ts';
import type { Graph } from '../../graph/graph.ts';
import { readPackageFile } from '../../package-files.ts';
import { renderTemplate } from '../../template.ts';
import { emitFunction, type FunctionSource } from './functions.ts';
import { elementType, type ProductType } from './kernel-source.ts';
import { formName, type Way, ways } from './prepared.ts';
import type { ScheduleOf } from './schedule.ts';

export interface CpuSource {
  /** File names and texts, to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
  /** In the order of the profile of a program that has one. */
  readonly launches: readonly ProgramLaunch[];
  /** Bytes of which the place of every buffer is a multiple: cut_bytes of templates/cpu/memory.c.hbs. */
  readonly alignment: number;
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
  /** How products are divided into tasks. */
  readonly scheduleOf: ScheduleOf;
  /** How many blocks, from the lowest that is trained on, run their forward pass again before their backward pass. */
  readonly recomputed: number;
  readonly updating: Updating;
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs by name, and those of blocks that run again
 */
export function emitCpu(program: Program, lowered: Lowered, options: CpuOptions): CpuSource {
  const { dtype, profile, scheduleOf, recomputed, updating } = options;
  const { modules } = program;
  const kernels = new KernelLibrary([...lowered.keys()], profile);
  const prepared = new PreparedWeights(ways);
  const inParts = functionsInParts(program);
  const stored = new Set<string>();
  const emitter = (need: 'always' | 'training') => (graph: Graph, stage: Stage, parameters: string, homes: Homes) => {
    // A form that a step reads once is not worth its memory: the launch packs what it reads.
    const isReadAgain = need === 'always' || inParts.has(graph.name);
    const isParameter = (label: string) => isReadAgain && stage.parameters.some(({ name }) => name === label);
    const own = lowered.get(graph.name)!;
    const source = emitFunction(own, stage.name, parameters, homes, kernels, dtype, isParameter, scheduleOf);
    for (const label of source.stored) stored.add(parameterKey(program, stage, label.slice('gradient.'.length)));
    for (const form of source.prepared) prepared.add(parameterKey(program, stage, form.parameter), form, need);
    return source;
  };
  const trains = dtype !== 'int8';
  const emitted = emitStages(
    program,
    lowered,
    'themselves',
    { always: emitter('always'), training: emitter('training') },
    trains,
  );
  const { forward, backward } = emitted;
  const functions = [...forward, ...backward];
  const step = stepLaunches(program, kernels, updating);
  const grouped = kernels.reports.some(({ kind }) => groupedKinds.has(kind));
  const attends = kernels.reports.some(({ kind }) => kind === 'attention' || kind === 'attention-gradient');
  const fields = {
    ...modelFields(program, lowered, recomputed, {
      preparedFields: (stage, { name }) =>
        preparedFields(shortName(name), prepared.get(parameterKey(program, stage, name))),
      isStored: (stage, name) => !modules && stored.has(parameterKey(program, stage, name)),
      moments: momentsOf(updating),
      elementType,
      literalArray: number => `(const float[]){ ${number} }`,
    }),
    trains,
    grouped,
    attends,
    bf16: dtype === 'bf16',
    int8: dtype === 'int8',
    prepared: prepared.isEmpty ? null : preparedForms,
    update: updateFields(updating),
    in_panels: !prepared.isEmpty,
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    memory: memoryFields(needs(functions, lowered, inParts), needs(forward, lowered, inParts)),
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
      'optimizer.h': header('optimizer.h'),
      'random.h': header('random.h'),
      'runtime.h': header('runtime.h'),
      'sequences.h': header('sequences.h'),
      ...(updating.optimizer === 'muon' ? { 'muon.h': header('muon.h') } : {}),
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
    alignment: 64,
  };
}

/** Headers that products of other numbers than float32 need. */
export const headersOf: Readonly<Record<ProductType, readonly string[]>> = {
  f32: [],
  bf16: ['matmul_bf16.h', 'bf16_packing.h', 'bf16_pairs.h', 'bf16_tiles.h', 'matmul_streamed.h'],
  int8: ['bf16_packing.h', 'matmul_streamed.h', 'matmul_int8.h'],
};

/** Kernels that call functions of grouped.h. */
const groupedKinds: ReadonlySet<string> = new Set(['top-k', 'grouped', 'grouped-gradient', 'contract-each']);

/** What the program says of all forms. */
const preparedForms = {
  type: 'float',
  ways: ways.length,
  about: [
    'A matrix that products read is kept packed besides: `rows` are those of the matrix, 0 where there is no other form,',
    'and `needs` says when there is one for sums over its columns (forward), and one for sums over its rows (backward).',
  ],
};

/** The forms of a parameter that products read. */
function preparedFields(identifier: string, prepared: Prepared<Way> | undefined) {
  const needs = ways.map(way => prepared?.needs[way] ?? 'never');
  return {
    rows: prepared?.rows ?? 0,
    needs: needs.map(need => need.toUpperCase()).join(', '),
    forms: ways
      .filter((_, n) => needs[n] !== 'never')
      .map(way => ({ identifier: formName(identifier, way), about: `packed for products, ${way}` })),
  };
}
