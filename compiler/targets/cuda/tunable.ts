// Launches of products that can be computed in several ways, and what is chosen among these: runtime/autotune-cuda.ts measures,
// and the compiler takes its choices as a part of its input.
import type { MatmulKernel } from '../../kernels/kernel.ts';
import type { Storage } from '../../plan/storage.ts';
import { type Circumstances, describeSchedule, type HopperSchedule, type RankedSchedule } from './hopper-schedule.ts';
import type { Surroundings } from './kernel-source.ts';
import { emitMatmul, hopperSchedules } from './matmul.ts';
import { type QueuedKernel, queuedKernel } from './queued-kernel.ts';

/** A way to compute a launch's products. */
export interface ProductChoice {
  /** On Hopper GPUs; null for what the cost model says, and where there are no kernels for these alone. */
  readonly schedule: HopperSchedule | null;
  /** Whether cuBLASLt multiplies instead, where the machine that runs the program has it. */
  readonly library: boolean;
}

export interface TunableProduct {
  /** The function that launches it and what it makes, for people. */
  readonly name: string;
  /** The same text for what is computed alike: the cost model's kernel, without its comments. */
  readonly key: string;
  /** Positions that a call of its function has at most; null where it has all of a step's. */
  readonly part: number | null;
  /** Whether cuBLASLt could multiply. */
  readonly hasLibrary: boolean;
  readonly storageOf: Storage;
  /** What there is to choose among on Hopper GPUs, the most promising first. */
  schedules(circumstances: Circumstances): readonly RankedSchedule[];
  emit(choice: ProductChoice): QueuedKernel;
}

/** The choice for a launch; null for the cost model's. */
export type ChoiceOf = (product: TunableProduct) => ProductChoice | null;

/** @param part positions that a call of the function has at most; null where it has all */
export function tunableProduct(
  kernel: MatmulKernel,
  surroundings: Surroundings,
  functionName: string,
  part: number | null,
): TunableProduct {
  const { nameOf, storageOf } = surroundings;
  return {
    name: `${functionName}: ${kernel.outputs.map(nameOf).join(', ')}`,
    key: emitMatmul(kernel, surroundings).text.replace(/\/\*[\s\S]*?\*\/\n*/g, ''),
    part,
    storageOf,
    hasLibrary: emitMatmul(kernel, surroundings, undefined, true).library !== undefined,
    schedules: circumstances => hopperSchedules(kernel, surroundings, circumstances),
    emit: ({ schedule, library }) =>
      queuedKernel(emitMatmul(kernel, surroundings, schedule ?? undefined, library), storageOf),
  };
}

/** The same text for the same choice. */
export const describeChoice = ({ schedule, library }: ProductChoice): string =>
  library ? 'cuBLASLt' : schedule ? describeSchedule(schedule) : 'the kernel of all GPUs';
