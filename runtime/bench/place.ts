// Where something is measured: a target, the compiler that builds for it, and its device.
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import type { Builder } from '../cache.ts';
import type { CudaDevice } from '../cuda-device.ts';
import type { Ceilings } from './ceilings.ts';

export interface Place {
  readonly target: RunTarget;
  readonly builder: Builder;
  /** Null but for cuda. */
  readonly device: CudaDevice | null;
}

/**
 * The peak that products are held against: of tensor cores where they multiply. Those of the CPU are held against that of
 * float32, which every processor has.
 */
export const peakOfProducts = (ceilings: Ceilings, { target }: Pick<Place, 'target'>, dtype: TrainingType): number =>
  target !== 'cpu' && dtype === 'bf16' ? ceilings.bfloat16 : ceilings.float32;
