// Programs for CUDA, compiled for the emulator: libraries that NativeModel opens as it does the CPU's.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { type CompileOptions, compile } from '../../compiler/index.ts';
import type { CudaProductType } from '../../compiler/targets/cuda/kernel-source.ts';
import { NativeModel } from '../../runtime/native.ts';
import type { VerifyTarget } from '../../runtime/verify/verify.ts';
import { buildEmulated } from '../simt/build.ts';

const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

let programs = 0;

/** What of the compiler's options tests ask for. */
type Compiled = Omit<CompileOptions, 'target' | 'dtype' | 'scheduleOf' | 'verify' | 'onStage'>;

export interface EmulatedOptions extends Compiled {
  readonly dtype: CudaProductType;
  /** The token that ends a document, where documents are masked. */
  readonly separator?: number;
  /** Changes each file of kernels, and model.cu: plants a fault. */
  readonly change?: (source: string) => string;
  /** Whether every access to memory is checked: slower. */
  readonly checked?: boolean;
}

/** A folder for a program, which goes with the process. */
export function programFolder(): string {
  const path = join(folder, String(programs++));
  mkdirSync(path);
  return path;
}

const same = (source: string) => source;

/** The library of a model's program. */
export async function buildEmulatedModel(model: Model, options: EmulatedOptions) {
  const { checked = false, change = same, separator, ...compiled } = options;
  const masksDocuments = separator !== undefined;
  const sources = programFolder();
  const { files } = compile(model, { target: 'cuda', verify: true, masksDocuments, ...compiled });
  for (const [name, text] of Object.entries(files))
    writeFileSync(join(sources, name), name.endsWith('.cu') ? change(text) : text);
  const output = join(sources, 'model.so');
  const units = Object.keys(files).filter(name => name.endsWith('.cu'));
  const source = { sources: units.map(name => join(sources, name)), include: [sources] };
  await buildEmulated({ ...source, output, library: true, checked });
  return output;
}

/** What verifyFolder compiles for where a test has the emulator's programs compared with PyTorch. */
export const emulatedTarget = (checked = false): VerifyTarget => ({
  name: 'cuda',
  build: async (model, dtype) => ({ libraryPath: await buildEmulatedModel(model, { dtype, checked }) }),
});

/** The same, opened for training with a cache for all positions. */
export async function openEmulated(
  model: Model,
  options: EmulatedOptions & { readonly averages?: boolean },
  sizes: { readonly batch: number; readonly time: number },
): Promise<NativeModel> {
  return NativeModel.open(await buildEmulatedModel(model, options), {
    maxBatch: sizes.batch,
    maxTime: sizes.time,
    maxContext: model.max_seq_len,
    training: true,
    seed: 5,
    averages: options.averages,
    separator: options.separator,
  });
}
