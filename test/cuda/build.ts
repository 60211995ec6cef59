// Programs for CUDA, compiled for the emulator: libraries that NativeModel opens as it does the CPU's.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { compile } from '../../compiler/index.ts';
import type { CudaProductType } from '../../compiler/targets/cuda/kernel-source.ts';
import type { ChoiceOf } from '../../compiler/targets/cuda/tunable.ts';
import { NativeModel } from '../../runtime/native.ts';
import type { VerifyTarget } from '../../runtime/verify/verify.ts';
import { buildEmulated } from '../simt/build.ts';

const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

let programs = 0;

export interface EmulatedOptions {
  readonly dtype: CudaProductType;
  readonly fuse?: boolean;
  /** Whether the program takes the time of its launches. */
  readonly profile?: boolean;
  /** The token that ends a document, where documents are masked. */
  readonly separator?: number;
  /** How products are computed; as the cost model says where it is not given. */
  readonly choiceOf?: ChoiceOf;
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
  const { dtype, fuse = true, checked = false, profile = false, change = same, choiceOf, separator } = options;
  const sources = programFolder();
  const { files } = compile(model, {
    target: 'cuda',
    dtype,
    fuse,
    profile,
    verify: true,
    masksDocuments: separator !== undefined,
    ...(choiceOf && { choiceOf }),
  });
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
  options: EmulatedOptions,
  sizes: { readonly batch: number; readonly time: number },
): Promise<NativeModel> {
  return NativeModel.open(await buildEmulatedModel(model, options), {
    maxBatch: sizes.batch,
    maxTime: sizes.time,
    maxContext: model.max_seq_len,
    training: true,
    seed: 5,
    separator: options.separator,
  });
}
