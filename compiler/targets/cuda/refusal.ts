// What this target has no kernels for yet is refused by name, before anything is emitted.
import type { Program } from '../../build/program.ts';
import { UserError } from '../../diagnostic.ts';
import type { Lowered } from '../../emission/memory-needs.ts';
import type { Kernel } from '../../kernels/kernel.ts';

const missing: Partial<Record<Kernel['kind'], string>> = {
  scan: 'a selective scan (a state space)',
  'scan-gradient': 'a selective scan (a state space)',
  convolution: 'a convolution',
  'convolution-gradient': 'a convolution',
  recent: 'a convolution',
};

/** The slots of so many experts can be counted in an A100's shared memory: malc_sorting_bytes of slots.h. */
const mostExperts = 4096;

/** @throws UserError where the program needs what is not there. */
export function refuseMissing({ model, modules }: Program, lowered: Lowered): void {
  const kinds = [...lowered.values()].flatMap(({ schedule }) => schedule.kernels.map(({ kind }) => kind));
  const names = kinds.flatMap(kind => missing[kind] ?? []);
  if (modules) names.push('prediction of further tokens (mtp)');
  if (model.blocks.some(({ ffn }) => (ffn?.moe?.experts ?? 0) > mostExperts))
    names.push(`more than ${mostExperts} experts`);
  if (names.length === 0) return;
  const all = [...new Set(names)].join(', and ');
  throw new UserError(`${model.name} needs ${all}, which the target cuda does not have yet; use --target cpu`);
}
