// What a run is evaluated on: of each source of its corpus the first batches of what was held out, the same each time.
import { UserError } from '../../compiler/diagnostic.ts';
import { ValidationBatches } from '../data/batches.ts';
import type { Source } from './corpus.ts';
import type { ValidationPart, ValidationSamples } from './loop.ts';
import type { Settings } from './settings.ts';

/** Of all sources together at most so many batches, of each at least a few: enough for a steady number, and soon done. */
const BATCHES = 32;
const LEAST_BATCHES = 4;

/** @throws UserError where nothing of a source was held out. */
export function validationSamples(
  sources: readonly Source[],
  { 'batch-size': batch, 'seq-len': time }: Settings,
): ValidationSamples {
  const most = Math.max(LEAST_BATCHES, Math.floor(BATCHES / sources.length));
  const all = sources.map(source => batchesOf(source, sources.length > 1, batch, time));
  let count = 0;
  const parts = sources.map(({ name, share }, index): ValidationPart => {
    const first = count;
    count += Math.min(all[index]!.count, sources.length > 1 ? most : BATCHES);
    return { name, share, first, end: count };
  });
  const bytesPerToken = sources.reduce(
    (sum, { share, validation, validationBytes }) =>
      sum + share * ((validationBytes ?? Number.NaN) / validation.length),
    0,
  );
  return {
    count,
    ...(parts.length > 1 && { parts }),
    ...(!Number.isNaN(bytesPerToken) && { bytesPerToken }),
    fill(index, tokens, labels) {
      const part = parts.findIndex(({ end }) => index < end);
      all[part]!.fill(index - parts[part]!.first, tokens, labels);
    },
  };
}

function batchesOf(
  { name, validation }: Source,
  isOneOfSeveral: boolean,
  batch: number,
  time: number,
): ValidationBatches {
  try {
    return new ValidationBatches(validation, { batch, time });
  } catch (error) {
    throw error instanceof UserError && isOneOfSeveral ? new UserError(`${name}: ${error.message}`) : error;
  }
}
