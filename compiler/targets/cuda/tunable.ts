// Launches that can be computed in several ways: products, those of experts, attention's gradient; and what is chosen among
// these: runtime/autotune-cuda.ts measures, and the compiler takes its choices as a part of its input.
import type { Node } from '../../graph/graph.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import { groupedShape } from '../../ops/grouped.ts';
import type { Storage } from '../../plan/storage.ts';
import { attentionGradientSchedules, emitAttention } from './attention.ts';
import { emitGrouped, groupedSchedules } from './grouped.ts';
import { type AttentionSchedule, describeAttentionSchedule } from './hopper-attention.ts';
import {
  type Circumstances,
  describeSchedule,
  type HopperSchedule,
  type RankedSchedule,
  worthMeasuring,
} from './hopper-schedule.ts';
import type { KernelSource, Surroundings } from './kernel-source.ts';
import { emitMatmul, hopperSchedules } from './matmul.ts';
import { type QueuedKernel, queuedKernel } from './queued-kernel.ts';

/** What Hopper GPUs follow: in products, or in attention's gradient. */
export type Schedule = HopperSchedule | AttentionSchedule;

/** A way to compute a launch. */
export interface Choice {
  /** On Hopper GPUs; null for what the cost model says, and where there are no kernels for these alone. */
  readonly schedule: Schedule | null;
  /** Whether cuBLASLt multiplies instead, where the machine that runs the program has it. */
  readonly library: boolean;
}

export interface Tunable {
  readonly kind: Kernel['kind'];
  /** The function that launches it and what it makes, for people. */
  readonly name: string;
  /** The same text for what is computed alike: the cost model's kernel, without its comments. */
  readonly key: string;
  /** Positions that a call of its function has at most; null where it has all of a step's. */
  readonly part: number | null;
  /** Whether cuBLASLt could multiply. */
  readonly hasLibrary: boolean;
  /** Experts that its slots choose among; 1 where it has none. */
  readonly experts: number;
  readonly storageOf: Storage;
  /**
   * What there is to choose among on Hopper GPUs, the cost model's best first; nothing where these run the same kernel as
   * others.
   * @param anyOrder whether sums may be added up in the order in which they come
   */
  candidates(circumstances: Circumstances, anyOrder: boolean): readonly Schedule[];
  emit(choice: Choice): QueuedKernel;
}

/** The choice for a launch; null for the cost model's. */
export type ChoiceOf = (tunable: Tunable) => Choice | null;

/**
 * A launch as one that there may be several ways for; null where there is one.
 * @param part positions that a call of the function has at most; null where it has all
 */
export function tunableOf(
  kernel: Kernel,
  surroundings: Surroundings,
  functionName: string,
  part: number | null,
): Tunable | null {
  const ways = waysOf(kernel, surroundings);
  if (ways === null) return null;
  const { nameOf, storageOf } = surroundings;
  return {
    kind: kernel.kind,
    name: `${functionName}: ${kernel.outputs.map(nameOf).join(', ')}`,
    key: ways.emit({ schedule: null, library: false }).text.replace(/\/\*[\s\S]*?\*\/\n*/g, ''),
    part,
    storageOf,
    ...ways,
    emit: choice => queuedKernel(ways.emit(choice), storageOf),
  };
}

interface Ways extends Pick<Tunable, 'hasLibrary' | 'experts' | 'candidates'> {
  emit(choice: Choice): KernelSource;
}

function waysOf(kernel: Kernel, surroundings: Surroundings): Ways | null {
  const measured = (ranked: readonly RankedSchedule[]) => worthMeasuring(ranked.map(({ schedule }) => schedule));
  switch (kernel.kind) {
    case 'matmul':
      return {
        hasLibrary: emitMatmul(kernel, surroundings, undefined, true).library !== undefined,
        experts: 1,
        candidates: circumstances => measured(hopperSchedules(kernel, surroundings, circumstances)),
        emit: ({ schedule, library }) => emitMatmul(kernel, surroundings, ofProducts(schedule), library),
      };
    case 'grouped':
    case 'grouped-gradient': {
      const [node] = kernel.members as [Node];
      const [left, right, index] = node.inputs as [Node, Node, Node];
      const matrices = kernel.kind === 'grouped' ? right : node;
      return {
        hasLibrary: false,
        experts: groupedShape(left, matrices, index).experts.size!,
        candidates: circumstances => measured(groupedSchedules(kernel, surroundings, circumstances)),
        emit: ({ schedule }) => emitGrouped(kernel, surroundings, ofProducts(schedule)),
      };
    }
    case 'attention-gradient':
      return {
        hasLibrary: false,
        experts: 1,
        candidates: (_, anyOrder) => attentionGradientSchedules(kernel, surroundings, anyOrder),
        emit: ({ schedule }) => emitAttention(kernel, surroundings, ofAttention(schedule)),
      };
    default:
      return null;
  }
}

const isOfAttention = (schedule: Schedule): schedule is AttentionSchedule => 'queryGradient' in schedule;

function ofProducts(schedule: Schedule | null): HopperSchedule | undefined {
  if (schedule && isOfAttention(schedule)) throw new Error('products have no schedule of attention');
  return schedule ?? undefined;
}

function ofAttention(schedule: Schedule | null): AttentionSchedule | undefined {
  if (schedule && !isOfAttention(schedule)) throw new Error("attention's gradient has no schedule of products");
  return schedule ?? undefined;
}

/** Whether a choice's sums are added up in the order in which they come, so that the last bits differ from run to run. */
export const isInAnyOrder = ({ schedule }: Choice): boolean =>
  schedule !== null && isOfAttention(schedule) && schedule.queryGradient === 'as-they-come';

/** The same text for the same choice. */
export function describeChoice({ schedule, library }: Choice): string {
  if (library) return 'cuBLASLt';
  if (schedule === null) return 'the kernel of all GPUs';
  return isOfAttention(schedule) ? describeAttentionSchedule(schedule) : describeSchedule(schedule);
}
