// `--autotune` and `--any-order` of the commands that build programs: the options, and what they say. runtime/autotune.ts and
// runtime/autotune-cuda.ts do the work.
import { UserError } from '../compiler/diagnostic.ts';
import type { ProductType, TrainingType } from '../compiler/targets/cpu/kernel-source.ts';
import type { RunTarget } from '../compiler/targets/names.ts';

export const autotuneOption = {
  type: 'boolean',
  describe: 'Measure once how this machine computes products best, and keep it',
  default: false,
} as const;

export const anyOrderOption = {
  type: 'boolean',
  describe:
    'With --autotune on a GPU: try sums in the order in which they come, too; the last bits may then differ from run to run',
} as const;

/** Says on stderr that something takes a while. */
export const tellTuning = (launches: number): void =>
  console.error(`tuning ${launches} ${launches === 1 ? 'launch' : 'launches'} ...`);

/** @throws UserError where `--any-order` would do nothing */
export function checkAnyOrder(args: Readonly<Record<string, unknown>>, target: RunTarget): void {
  if (args['any-order'] !== true) return;
  if (target === 'cpu')
    throw new UserError(
      '--any-order is for a GPU: on the CPU all sums have one order, whatever the threads; leave it out, or give ' +
        '--no-any-order where the run has it',
    );
  if (args.autotune !== true)
    throw new UserError('--any-order is one way more for --autotune to measure; add --autotune, or leave it out');
}

/** @throws UserError where there would be nothing to tune */
export function requireTunable(dtype: ProductType, target: RunTarget): asserts dtype is TrainingType {
  if (dtype === 'int8')
    throw new UserError(
      '--autotune divides the products of many rows, as training has them; those of --dtype int8 stream weights past few ' +
        'rows, and have one way; leave it out',
    );
  if (target === 'cuda' && dtype === 'f32')
    throw new UserError(
      '--autotune on a GPU chooses among ways to multiply bfloat16, and products of --dtype f32 have one; leave it out',
    );
}
