// The architectures of GPUs that a program is compiled for: which there are, and what nvcc is told.
import { UserError } from '../../diagnostic.ts';

/** Ampere, with code for all that is newer, and Hopper, with the instructions that only it has. */
export const usualArchitectures: readonly string[] = ['sm_80', 'sm_90a'];

/** The oldest that kernels are written for: cp.async and bfloat16 matrices came with it. */
const oldest = 80;

/**
 * The architectures of a list such as `sm_80,sm_90a`, each once.
 * @param known what nvcc --list-gpu-code says: since CUDA 13 without those that are one generation's own, such as sm_90a
 * @throws UserError for one that it has not, or that is too old
 */
export function parseArchitectures(list: string, known: readonly string[]): string[] {
  const wanted = [...new Set(list.split(',').map(name => name.trim()))];
  const own = known.filter(name => /^sm_\d+$/.test(name) && numberOf(name) >= 90).map(name => `${name}a`);
  const able = [...new Set([...known, ...own])].filter(name => !isOld(name));
  for (const name of wanted) {
    if (isOld(name)) throw new UserError(`--arch ${name}: kernels need sm_${oldest} (Ampere) or newer`);
    if (!able.includes(name)) {
      throw new UserError(`--arch ${name}: there is no such architecture; this nvcc knows ${able.join(', ')}`);
    }
  }
  return wanted;
}

const numberOf = (name: string): number => Number(/^sm_(\d+)/.exec(name)?.[1] ?? NaN);
const isOld = (name: string): boolean => numberOf(name) < oldest;

/**
 * What nvcc is told: machine code for each architecture; of the highest that is generic (those with a letter are not), the
 * code from which drivers compile for GPUs that are newer; and whether launchers have Hopper's kernels to choose
 * (malc_on_hopper of templates/cuda/launch.h).
 */
export function architectureFlags(architectures: readonly string[]): string[] {
  const generic = architectures.filter(name => /^sm_\d+$/.test(name));
  const highest = generic.reduce<string | null>((a, b) => (a && numberOf(a) > numberOf(b) ? a : b), null);
  const codes = architectures.flatMap(name => {
    const virtual = name.replace('sm_', 'compute_');
    return ['-gencode', `arch=${virtual},code=${name === highest ? `[${name},${virtual}]` : name}`];
  });
  return [...codes, ...(architectures.includes('sm_90a') ? ['-DMALC_HOPPER'] : [])];
}
