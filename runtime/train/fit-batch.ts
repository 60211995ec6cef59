// `--batch-size auto`: the largest micro-batch whose memory, which the compiled program knows to the byte, is free.
import { MachineError, UserError } from '../../compiler/diagnostic.ts';
import { describeMemory } from '../show/quantities.ts';

/** What of the free memory is left to others: to Node itself, which grows a little, and to the rest of the machine. */
export const LEFT_TO_OTHERS = 0.1;

export interface BatchRequest {
  /** Bytes of the program with so many sequences in a micro-batch; null where it refuses them. */
  bytesOf(batch: number): number | null;
  /** Bytes that are free. */
  readonly free: number;
  /** Whose they are. */
  readonly owner: string;
  /** Tokens in a sequence. */
  readonly time: number;
  /** Tokens in an update, where they are asked for: whole micro-batches must have as many. */
  readonly tokensPerStep?: number | undefined;
  /** More sequences than that make no sense. */
  readonly most: number;
}

/**
 * @throws MachineError where a single sequence does not fit; UserError where no number of whole sequences has the tokens that
 * an update is to have.
 */
export function fitBatch({ bytesOf, free, owner, time, tokensPerStep, most }: BatchRequest): number {
  const room = Math.floor((1 - LEFT_TO_OTHERS) * free);
  const fits = (batch: number): boolean => (bytesOf(batch) ?? Number.POSITIVE_INFINITY) <= room;
  const perStep = tokensPerStep === undefined ? null : tokensPerStep / time;
  if (perStep !== null && !Number.isInteger(perStep))
    throw new UserError(
      `--tokens-per-step is ${tokensPerStep}, no whole number of sequences of --seq-len ${time} tokens`,
    );
  if (!fits(1)) {
    const needed = bytesOf(1);
    throw new MachineError(
      `one sequence of ${time} tokens needs ${needed === null ? 'too much' : describeMemory(needed)}; ${owner} has ` +
        `${describeMemory(free)} free, of which a tenth is left to others. Use a shorter --seq-len or a smaller model.`,
    );
  }
  // Between a batch that fits and one that does not.
  let [fitting, tooLarge] = [1, Math.min(most, perStep ?? most) + 1];
  while (tooLarge - fitting > 1) {
    const middle = Math.floor((fitting + tooLarge) / 2);
    if (fits(middle)) fitting = middle;
    else tooLarge = middle;
  }
  if (perStep === null) return fitting;
  while (perStep % fitting !== 0) fitting--;
  return fitting;
}
