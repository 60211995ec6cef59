// The CUDA target: a program as CUDA C++ source: model.cu for the host, a file for each group of kernels, and the headers
// that they include.
import type { Program } from '../../build/program.ts';
import { parameterKey, unusedParameters } from '../../emission/homes.ts';
import { KernelLibrary, type KernelReport, type LaunchReport } from '../../emission/kernel-library.ts';
import {
  functionsInParts,
  headTokensOnDevice,
  type Lowered,
  memoryFields,
  needs,
} from '../../emission/memory-needs.ts';
import { modelFields } from '../../emission/model-fields.ts';
import { shortName } from '../../emission/naming.ts';
import { momentsOf, type Updating, updateFields } from '../../emission/optimizer.ts';
import { type Prepared, PreparedWeights } from '../../emission/prepared.ts';
import { type EmitFunction, emitStages } from '../../emission/stages.ts';
import { stepLaunches } from '../../emission/step-launches.ts';
import { readPackageFile } from '../../package-files.ts';
import { renderTemplate } from '../../template.ts';
import { emitFunction, type FunctionSource } from './functions.ts';
import { allIncludedBy } from './included.ts';
import { type CudaProductType, elementType } from './kernel-source.ts';
import { refuseTooLarge } from './refusal.ts';
import type { ChoiceOf } from './tunable.ts';
import { asksLibrary, emitUnits } from './units.ts';
import { copyName, ways } from './weight-copies.ts';

export interface CudaSource {
  /** File names and texts, to be written side by side; each `.cu` is a translation unit. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
  readonly launches: readonly (LaunchReport & {
    /** Positions that one run of the function takes at most; null where it takes all of the call. */
    readonly part: number | null;
  })[];
  /** Bytes of which the place of every buffer is a multiple: cut_bytes of templates/cuda/memory.cu.hbs. */
  readonly alignment: number;
}

export interface CudaOptions {
  /** What products multiply. */
  readonly dtype: CudaProductType;
  /** Whether the program takes the time of its launches, which are then queued one by one. */
  readonly profile: boolean;
  /** What was measured to be fastest; the cost model chooses where it is not given. */
  readonly choiceOf?: ChoiceOf | undefined;
  /** How many blocks, from the lowest that is trained on, run their forward pass again before their backward pass. */
  readonly recomputed: number;
  readonly updating: Updating;
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs by name, and those of blocks that run again
 * @throws UserError where a kernel cannot hold what the model needs.
 */
export function emitCuda(program: Program, lowered: Lowered, options: CudaOptions): CudaSource {
  const { dtype, profile, choiceOf, recomputed, updating } = options;
  refuseTooLarge(program, lowered);
  const kernels = new KernelLibrary([...lowered.keys()], profile);
  // Logits are handed to the host in parts besides.
  const inParts = new Set([...functionsInParts(program), program.head.logits.name]);
  const stored = new Set<string>();
  const copies = new PreparedWeights(ways);
  const emitter =
    (need: 'always' | 'training'): EmitFunction<FunctionSource> =>
    (graph, stage, parameters, homes) => {
      const isParameter = (label: string) => stage.parameters.some(({ name }) => name === label);
      const own = lowered.get(graph.name)!;
      const part = inParts.has(graph.name) ? headTokensOnDevice(program) : null;
      const choices = choiceOf && { choiceOf, part };
      const source = emitFunction(own, stage.name, parameters, homes, kernels, dtype, isParameter, choices);
      for (const label of source.stored) stored.add(parameterKey(program, stage, label.slice('gradient.'.length)));
      for (const copy of source.copies) copies.add(parameterKey(program, stage, copy.parameter), copy, need);
      return source;
    };
  const emit = { always: emitter('always'), training: emitter('training') };
  const { forward, backward } = emitStages(program, lowered, 'pointers', emit, true);
  const functions = [...forward, ...backward];
  const step = stepLaunches(program, kernels, updating);
  const units = emitUnits(kernels.reports, headersFor(dtype));
  const fields = {
    ...modelFields(program, lowered, recomputed, {
      preparedFields: (stage, { name }) => copyFields(shortName(name), copies.get(parameterKey(program, stage, name))),
      isStored: (stage, name) => !program.modules && stored.has(parameterKey(program, stage, name)),
      moments: momentsOf(updating),
      elementType,
      literalArray: null,
    }),
    trains: true,
    prepared: copies.isEmpty ? null : allCopies,
    update: updateFields(updating),
    in_panels: false,
    profile: profile ? { ...step, names: kernels.launches.map(({ name }) => name) } : null,
    launch_count: kernels.launches.length,
    asks_library: asksLibrary(kernels.reports),
    draws: functions.some(({ text }) => text.includes('noise_of(')),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    memory: memoryFields(needs(functions, lowered, inParts), needs(forward, lowered, inParts)),
    head_tokens: headTokensOnDevice(program),
  };
  const furtherAhead = program.modules ? ['modules'] : [];
  const own = ['model', 'memory', ...furtherAhead, 'interface', 'step', 'decoding'].map(part => `cuda/${part}.cu.hbs`);
  const frames = [...own, 'cpu/profile.c.hbs'];
  const files: Record<string, string> = {
    'model.cu': frames.map(frame => renderTemplate(frame, fields)).join(''),
    ...units,
    'malc.h': readPackageFile('templates/cpu/malc.h'),
  };
  const read = (name: string) => files[name] ?? readPackageFile(`templates/cuda/${name}`);
  return {
    files: { ...files, ...Object.fromEntries(allIncludedBy(Object.values(files).join('\n'), read)) },
    functions,
    kernels: kernels.reports,
    launches: kernels.launches.map(launch => ({
      ...launch,
      part: inParts.has(launch.function) ? headTokensOnDevice(program) : null,
    })),
    alignment: 256,
  };
}

/** What the program says of all copies of weights. */
const allCopies = {
  type: '__nv_bfloat16',
  ways: ways.length,
  about: [
    'A matrix that products read has a copy in bfloat16: `rows` are those of the matrix, 0 where there is none, and',
    '`needs` says when there is one.',
  ],
};

/** The copy of a parameter that products read, where they do. */
function copyFields(identifier: string, prepared: Prepared<'copy'> | undefined) {
  const { rows, needs } = prepared ?? { rows: 0, needs: { copy: 'never' } };
  const forms = prepared ? [{ identifier: copyName(identifier), about: 'in bfloat16' }] : [];
  return { rows, needs: needs.copy.toUpperCase(), forms };
}

/** Headers of templates/cuda that kernels of a kind need, in a program whose products multiply `dtype`. */
export const headersFor = (dtype: CudaProductType) => (kind: string) =>
  headersOf.filter(header => header.kind === kind && header.dtypes.includes(dtype)).flatMap(header => header.included);

const headersOf: readonly {
  readonly kind: string;
  readonly dtypes: readonly CudaProductType[];
  readonly included: readonly string[];
}[] = [
  { kind: 'matmul', dtypes: ['f32', 'bf16'], included: ['product_f32.h'] },
  { kind: 'matmul', dtypes: ['bf16'], included: ['product_bf16.h', 'product_sm90.h', 'totals.h', 'statistics.h'] },
  { kind: 'top-k', dtypes: ['f32', 'bf16'], included: ['top_k.h'] },
  { kind: 'scatter', dtypes: ['f32', 'bf16'], included: ['scatter.h'] },
  { kind: 'within-capacity', dtypes: ['f32', 'bf16'], included: ['slots.h'] },
  ...['grouped', 'grouped-gradient', 'contract-each'].flatMap(kind => [
    { kind, dtypes: ['f32', 'bf16'] as const, included: ['product_f32.h', 'grouped.h'] },
    { kind, dtypes: ['bf16'] as const, included: ['product_bf16.h'] },
  ]),
  ...['grouped', 'grouped-gradient'].map(kind => ({ kind, dtypes: ['bf16'] as const, included: ['grouped_sm90.h'] })),
  { kind: 'attention', dtypes: ['f32', 'bf16'], included: ['attention_f32_forward.h'] },
  { kind: 'attention', dtypes: ['bf16'], included: ['attention_bf16_forward.h', 'attention_sm90_forward.h'] },
  { kind: 'attention-gradient', dtypes: ['f32', 'bf16'], included: ['attention_f32_backward.h'] },
  {
    kind: 'attention-gradient',
    dtypes: ['bf16'],
    included: ['attention_bf16_backward.h', 'attention_sm90_backward.h', 'attention_sm90_gradient.h'],
  },
  { kind: 'scan', dtypes: ['f32', 'bf16'], included: ['scan_forward.h'] },
  { kind: 'scan-gradient', dtypes: ['f32', 'bf16'], included: ['scan_backward.h'] },
  // Where there is one, there is its gradient.
  { kind: 'convolution', dtypes: ['f32', 'bf16'], included: ['convolution.h'] },
];
