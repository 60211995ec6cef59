// The CUDA target: a program as CUDA C++ source: model.cu for the host, a file for each group of kernels, and the headers
// that they include.
import { graphsOf, type Program } from '../../build/program.ts';
import { parameterKey, unusedParameters } from '../../emission/homes.ts';
import { KernelLibrary, type KernelReport, type LaunchReport } from '../../emission/kernel-library.ts';
import { functionsInParts, headTokens, type Lowered, needs } from '../../emission/memory-needs.ts';
import { modelFields } from '../../emission/model-fields.ts';
import { type EmitFunction, emitStages } from '../../emission/stages.ts';
import { readPackageFile } from '../../package-files.ts';
import { renderTemplate } from '../../template.ts';
import { emitFunction, type FunctionSource } from './functions.ts';
import { allIncludedBy } from './included.ts';
import { type CudaProductType, elementType } from './kernel-source.ts';
import { refuseMissing } from './refusal.ts';
import { emitUnits } from './units.ts';

export interface CudaSource {
  /** File names and texts, to be written side by side; each `.cu` is a translation unit. */
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
  const units = emitUnits(kernels.reports, kind =>
    headersOf
      .filter(header => header.kind === kind && header.dtypes.includes(dtype))
      .flatMap(header => header.included),
  );
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
    draws: functions.some(({ text }) => text.includes('noise_of(')),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: needs(functions, lowered, inParts),
    inference: needs(forward, lowered, inParts),
    head_tokens: headTokens(program),
  };
  const own = ['model', 'memory', 'interface', 'step', 'decoding'].map(part => `cuda/${part}.cu.hbs`);
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
      part: inParts.has(launch.function) ? headTokens(program) : null,
    })),
  };
}

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
