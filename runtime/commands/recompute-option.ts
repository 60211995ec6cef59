// `--recompute` of the commands that build programs which train: the option, and what it says.
import type { Recompute } from '../../compiler/plan/recompute.ts';
import { type Option, UsageError } from './command.ts';

export const recomputeOption = {
  type: 'string',
  describe: 'Layers that are computed again to save memory: none, block for all, or a share of them, as 0.5',
} as const satisfies Option;

/** What the option says. @throws UsageError for what is neither of its words nor a share from 0 to 1 */
export function readRecompute(text: string | undefined): Recompute {
  if (text === undefined || text === 'none') return 'none';
  if (text === 'block') return 'block';
  const share = text.trim() === '' ? Number.NaN : Number(text);
  if (share >= 0 && share <= 1) return share;
  throw new UsageError(
    `--recompute expects none, block or a share of the layers from 0 to 1, such as 0.5, not '${text}'`,
  );
}
