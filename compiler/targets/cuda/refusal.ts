// What this target has no kernels for yet is refused by name, before anything is emitted.
import type { Program } from '../../build/program.ts';
import { UserError } from '../../diagnostic.ts';
import type { Lowered } from '../../emission/memory-needs.ts';
import type { Kernel } from '../../kernels/kernel.ts';

const missing: Partial<Record<Kernel['kind'], string>> = {
  'top-k': 'a mixture of experts',
  'within-capacity': 'a mixture of experts',
  grouped: 'a mixture of experts',
  'grouped-gradient': 'a mixture of experts',
  'contract-each': 'a product for each head',
};

/** @throws UserError where the program needs what is not there. */
export function refuseMissing({ model }: Program, lowered: Lowered): void {
  const kinds = [...lowered.values()].flatMap(({ schedule }) => schedule.kernels.map(({ kind }) => kind));
  const names = kinds.flatMap(kind => missing[kind] ?? []);
  if (names.length === 0) return;
  const all = [...new Set(names)].join(', and ');
  throw new UserError(`${model.name} needs ${all}, which the target cuda does not have yet; use --target cpu`);
}
