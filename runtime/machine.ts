// What this machine has: processor, instruction sets, memory. For `malc doctor` and reports.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import type { TrainingType } from '../compiler/targets/cpu/kernel-source.ts';
import type { RunTarget } from '../compiler/targets/names.ts';

export interface Machine {
  readonly processor: string;
  /** Logical cores that this process may use. */
  readonly cores: number;
  /** Instruction sets that generated kernels can use, widest first. */
  readonly features: readonly string[];
  /** Bytes; what the process may use where a container's limit is lower than the machine's memory. */
  readonly memory: number;
  /** Bytes not in use. */
  readonly memoryFree: number;
}

/** The instruction sets worth telling, by the name that Linux gives them, widest first. */
const FEATURES: readonly (readonly [name: string, shown: string])[] = [
  ['amx_bf16', 'AMX bf16'],
  ['avx512_bf16', 'AVX-512 bf16'],
  ['avx512f', 'AVX-512'],
  ['avx2', 'AVX2'],
  ['fma', 'FMA'],
  ['sve', 'SVE'],
  ['asimd', 'NEON'],
];

export function describeMachine(): Machine {
  const limit = process.constrainedMemory();
  // Without a limit Node gives 0, or a number beyond any machine.
  const memory = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return {
    processor: cpus()[0]?.model.trim() || process.arch,
    cores: availableParallelism(),
    features: features(),
    memory,
    memoryFree: Math.min(freemem(), memory),
  };
}

/**
 * Bytes that this process can still have: what Linux calls MemAvailable, caches that it would give up included, or what is
 * left of a container's limit, where that is less.
 */
export function availableMemory(): number {
  const limit = process.constrainedMemory();
  // Node since 20.13 asks the container what is in use of it; before, at least this process is known to be.
  const left = process.availableMemory?.() ?? (limit > 0 ? limit - process.memoryUsage.rss() : freemem());
  return Math.max(0, Math.min(freemem(), left));
}

/**
 * What training's products multiply on the CPU where nobody says it: bfloat16 where the processor is faster with it than with float32, as
 * templates/cpu/matmul_bf16.h has it: with AMX, and with AVX512-BF16 but on Intel's processors, which have FP16 besides and
 * do half as much with it as with float32.
 * @param words names of instruction sets, as Linux gives them
 */
export function usualTrainingType(words: readonly string[] = featureWords()): TrainingType {
  const has = new Set(words);
  return has.has('amx_bf16') || (has.has('avx512_bf16') && !has.has('avx512_fp16')) ? 'bf16' : 'f32';
}

/** The same for any target: GPUs have been many times faster with bfloat16 since they have had it. */
export const trainingTypeOf = (target: RunTarget): TrainingType => (target === 'cpu' ? usualTrainingType() : 'bf16');

function features(): string[] {
  const found = new Set(featureWords());
  return FEATURES.filter(([name]) => found.has(name)).map(([, shown]) => shown);
}

function featureWords(): string[] {
  if (process.platform === 'linux') {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
    return line?.[1]?.trim().split(/\s+/) ?? [];
  }
  // Every 64-bit Arm processor has NEON; on an Intel Mac the kernel lists the rest.
  if (process.arch === 'arm64') return ['asimd'];
  if (process.platform !== 'darwin') return [];
  const listed = execFileSync('sysctl', ['-n', 'machdep.cpu.features', 'machdep.cpu.leaf7_features'], {
    encoding: 'utf8',
  });
  return listed.toLowerCase().split(/\s+/);
}
