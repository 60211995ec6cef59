// `--autotune` of the commands that build programs: the option, and what it says. runtime/autotune.ts does the work.
import { UserError } from '../compiler/diagnostic.ts';
import type { ProductType, TrainingType } from '../compiler/targets/cpu/kernel-source.ts';
import type { RunTarget } from '../compiler/targets/names.ts';

export const autotuneOption = {
  type: 'boolean',
  describe: 'Measure once how this machine computes products best, and keep it',
  default: false,
} as const;

/** Says on stderr that something takes a while. */
export const tellTuning = (products: number): void =>
  console.error(`tuning ${products} ${products === 1 ? 'product' : 'products'} ...`);

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
