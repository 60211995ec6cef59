// What this target has no kernels for yet is refused by name, before anything is emitted.
import type { Program } from '../../build/program.ts';
import { UserError } from '../../diagnostic.ts';
import { attentionSizes } from '../../emission/attention-kernel.ts';
import type { Lowered } from '../../emission/memory-needs.ts';
import type { Node } from '../../graph/graph.ts';
import type { Kernel } from '../../kernels/kernel.ts';

const missing: Partial<Record<Kernel['kind'], string>> = {
  scan: 'a selective scan (a state space)',
  'scan-gradient': 'a selective scan (a state space)',
  convolution: 'a convolution',
  'convolution-gradient': 'a convolution',
  recent: 'a convolution',
  'top-k': 'a mixture of experts',
  'within-capacity': 'a mixture of experts',
  grouped: 'a mixture of experts',
  'grouped-gradient': 'a mixture of experts',
  'contract-each': 'a product for each head',
};

/** Elements of a head whose sums a block's threads can hold in registers: eight rows of them in attention_f32.h. */
const widestHead = 1024;

/** Whether it is attention with wider heads. */
function isTooWide(kernel: Kernel): boolean {
  if (kernel.kind !== 'attention' && kernel.kind !== 'attention-gradient') return false;
  const [query, key, value] = kernel.members[0]!.inputs as [Node, Node, Node];
  const { headDim, valueWidth } = attentionSizes(query, key, value);
  return Math.max(headDim, valueWidth) > widestHead;
}

/** @throws UserError where the program needs what is not there. */
export function refuseMissing({ model, modules }: Program, lowered: Lowered): void {
  const kernels = [...lowered.values()].flatMap(({ schedule }) => schedule.kernels);
  const names = kernels.flatMap(({ kind }) => missing[kind] ?? []);
  if (kernels.some(isTooWide)) names.push(`attention heads of more than ${widestHead} elements`);
  if (modules) names.push('prediction of further tokens (mtp)');
  if (names.length === 0) return;
  const all = [...new Set(names)].join(', and ');
  throw new UserError(`${model.name} needs ${all}, which the target cuda does not have yet; use --target cpu`);
}
