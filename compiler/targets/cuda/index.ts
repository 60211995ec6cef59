// The CUDA target: a program as CUDA C++ source, one file for the model beside the headers that it includes.
import { graphsOf, type Program } from '../../build/program.ts';
import { parameterKey, unusedParameters } from '../../emission/homes.ts';
import { KernelLibrary, type KernelReport, type LaunchReport } from '../../emission/kernel-library.ts';
import { functionsInParts, headTokens, type Lowered, needs } from '../../emission/memory-needs.ts';
import { modelFields } from '../../emission/model-fields.ts';
import { type EmitFunction, emitStages } from '../../emission/stages.ts';
import { readPackageFile } from '../../package-files.ts';
import { renderTemplate } from '../../template.ts';
import { emitFunction, type FunctionSource } from './functions.ts';
import { type CudaProductType, elementType } from './kernel-source.ts';
import { refuseMissing } from './refusal.ts';

export interface CudaSource {
  /** File names and texts, to be written side by side; `model.cu` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
  readonly launches: readonly (LaunchReport & {
    /** Positions that one run of the function takes at most; null where it takes all of the call. */
    readonly part: number | null;
  })[];
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs, by name
 * @throws UserError where the program needs a kernel that is not there yet.
 */
export function emitCuda(program: Program, lowered: Lowered, dtype: CudaProductType): CudaSource {
  refuseMissing(program, lowered);
  const kernels = new KernelLibrary(graphsOf(program).map(graph => graph.name));
  const stored = new Set<string>();
  const emit: EmitFunction<FunctionSource> = (graph, stage, parameters, homes) => {
    const source = emitFunction(lowered.get(graph.name)!, stage.name, parameters, homes, kernels, dtype);
    for (const label of source.stored) stored.add(parameterKey(program, stage, label.slice('gradient.'.length)));
    return source;
  };
  const { forward, backward } = emitStages(program, 'pointers', { always: emit, training: emit }, true);
  const functions = [...forward, ...backward];
  // Logits are handed to the host in parts besides.
  const inParts = new Set([...functionsInParts(program), program.head.logits.name]);
  const kinds = new Set<string>(kernels.reports.map(({ kind }) => kind));
  const headers = headersOf
    .filter(({ kind, dtypes }) => kinds.has(kind) && dtypes.includes(dtype))
    .flatMap(header => header.included);
  const fields = {
    ...modelFields(program, lowered, {
      preparedFields: () => ({ forms: [] }),
      isStored: (stage, name) => stored.has(parameterKey(program, stage, name)),
      elementType,
      literalArray: null,
    }),
    trains: true,
    prepared: false,
    profile: null,
    headers,
    draws: functions.some(({ text }) => text.includes('noise_of(')),
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: needs(functions, lowered, inParts),
    inference: needs(forward, lowered, inParts),
    head_tokens: headTokens(program),
  };
  const own = ['model', 'memory', 'interface', 'step', 'decoding'].map(part => `cuda/${part}.cu.hbs`);
  const frames = [...own, 'cpu/profile.c.hbs'];
  return {
    files: {
      'model.cu': frames.map(frame => renderTemplate(frame, fields)).join(''),
      'malc.h': readPackageFile('templates/cpu/malc.h'),
      ...withIncluded([...always, ...headers]),
    },
    functions,
    kernels: kernels.reports,
    launches: kernels.launches.map(launch => ({
      ...launch,
      part: inParts.has(launch.function) ? headTokens(program) : null,
    })),
  };
}

/** Headers of every program. */
const always = ['program.h', 'scalars.h', 'sequences.h'];

/** Headers of templates/cuda that kernels of a kind need. */
const headersOf: readonly {
  readonly kind: string;
  readonly dtypes: readonly CudaProductType[];
  readonly included: readonly string[];
}[] = [
  { kind: 'matmul', dtypes: ['f32', 'bf16'], included: ['product_f32.h'] },
  { kind: 'matmul', dtypes: ['bf16'], included: ['product_bf16.h'] },
  { kind: 'attention', dtypes: ['f32', 'bf16'], included: ['attention_f32_forward.h'] },
  { kind: 'attention', dtypes: ['bf16'], included: ['attention_bf16_forward.h'] },
  { kind: 'attention-gradient', dtypes: ['f32', 'bf16'], included: ['attention_f32_backward.h'] },
  { kind: 'attention-gradient', dtypes: ['bf16'], included: ['attention_bf16_backward.h'] },
];

/** These files of templates/cuda and all that they include, by name. */
export function withIncluded(names: readonly string[]): Record<string, string> {
  const files: Record<string, string> = {};
  const add = (name: string): void => {
    // What the emulator has in place of CUDA's own is no part of a program.
    if (name in files || name === 'simt.h') return;
    const text = readPackageFile(`templates/cuda/${name}`);
    files[name] = text;
    for (const [, included] of text.matchAll(/^#include "([^"]+)"$/gm)) add(included!);
  };
  names.forEach(add);
  return files;
}
