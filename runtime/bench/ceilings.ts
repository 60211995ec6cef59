// What this machine can do at most, measured: templates/cpu/ceilings.c, or cuda/ceilings.cu, built as models are.
import { freemem } from 'node:os';
import { MachineError } from '../../compiler/diagnostic.ts';
import { readPackageFile } from '../../compiler/package-files.ts';
import { allIncludedBy } from '../../compiler/targets/cuda/included.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { buildCachedBy } from '../cache.ts';
import { callAsync, loadLibrary, type NativeFunction } from '../ffi.ts';
import { describeMemory } from '../show/quantities.ts';
import type { Place } from './place.ts';

/** All in a second. */
export interface Ceilings {
  /** Float32 operations of multiply-adds in registers. */
  readonly float32: number;
  /** The same of bf16 products summed in float32; 0 where the machine has no instruction for them that malc knows. */
  readonly bfloat16: number;
  /** Bytes read from memory, by all threads. */
  readonly read: number;
  /** Bytes read and written by a copy. */
  readonly copy: number;
  /** Bytes read and written where each value is changed in place. */
  readonly update: number;
}

const PROTOTYPES = {
  malc_ceiling_float32: 'double malc_ceiling_float32(int32_t threads, double seconds)',
  malc_ceiling_bfloat16: 'double malc_ceiling_bfloat16(int32_t threads, double seconds)',
  malc_ceiling_reserve: 'int32_t malc_ceiling_reserve(int32_t threads, int64_t bytes)',
  malc_ceiling_release: 'void malc_ceiling_release(void)',
  malc_ceiling_read: 'double malc_ceiling_read(int32_t threads, double seconds)',
  malc_ceiling_copy: 'double malc_ceiling_copy(int32_t threads, double seconds)',
  malc_ceiling_update: 'double malc_ceiling_update(int32_t threads, double seconds)',
};

/** For each ceiling. */
const SECONDS = 0.35;
const LARGEST_ARRAY = 2 ** 30;

/**
 * Measures the ceilings of so many threads, or of the device, in about two seconds.
 *
 * @throws MachineError where there is no memory for an array that is larger than the caches.
 */
export async function measureCeilings({ target, builder, device }: Place, threads: number): Promise<Ceilings> {
  const { libraryPath } = await buildCachedBy(ceilingSources(target), builder);
  const native = loadLibrary(libraryPath, PROTOTYPES);
  const best = async (measure: NativeFunction) => Number(await callAsync(measure, threads, SECONDS));
  const float32 = await best(native.malc_ceiling_float32);
  const bfloat16 = await best(native.malc_ceiling_bfloat16);
  const bytes = Math.floor(Math.min(LARGEST_ARRAY, (device?.memory ?? freemem()) / 4));
  if (!(await callAsync(native.malc_ceiling_reserve, threads, bytes)))
    throw new MachineError(`${describeMemory(bytes)} of memory are needed to measure its speed`);
  try {
    const read = await best(native.malc_ceiling_read);
    const copy = await best(native.malc_ceiling_copy);
    const update = await best(native.malc_ceiling_update);
    return { float32, bfloat16, read, copy, update };
  } finally {
    native.malc_ceiling_release();
  }
}

/** As a program's files. */
export function ceilingSources(target: RunTarget): Readonly<Record<string, string>> {
  if (target === 'cpu') return { 'model.c': readPackageFile('templates/cpu/ceilings.c') };
  const read = (name: string) => readPackageFile(`templates/cuda/${name}`);
  const source = read('ceilings.cu');
  return { 'model.cu': source, ...Object.fromEntries(allIncludedBy(source, read)) };
}

/** The least time for so many bytes: memory reads so fast, and reads and writes at once so fast. */
export const memorySeconds = ({ read, copy, update }: Ceilings, reads: number, writes: number): number =>
  Math.max(reads / read, (reads + writes) / Math.max(copy, update, read));
