// Which models can keep documents apart that lie one after another in a sequence: attention can be masked, states cannot.
import type { Model } from '../check/model.ts';
import { UserError } from '../diagnostic.ts';

/** @throws UserError that names a block which carries what it saw into the next document */
export function requireMaskable({ blocks }: Model): void {
  const carrying = blocks.find(({ ssm }) => ssm !== null);
  if (!carrying) return;
  const { name, origin } = carrying;
  throw new UserError(
    `--mask-documents is for attention: the state of \`${name}\`${origin && ` (${origin})`} goes on from one ` +
      'document to the next; leave the option out, or train a model without `ssm`',
  );
}
