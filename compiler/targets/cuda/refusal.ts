// What this target's kernels cannot hold is refused by name, before anything is emitted.
import type { Program } from '../../build/program.ts';
import { UserError } from '../../diagnostic.ts';
import { attentionSizes } from '../../emission/attention-kernel.ts';
import type { Lowered } from '../../emission/memory-needs.ts';
import type { Node } from '../../graph/graph.ts';
import type { Kernel } from '../../kernels/kernel.ts';

/** Elements of a head whose sums a block's threads can hold in registers: eight rows of them in attention_f32.h. */
const widestHead = 1024;
/** The slots of so many experts can be counted in an A100's shared memory: malc_sorting_bytes of slots.h. */
const mostExperts = 4096;

/** Whether it is attention with wider heads. */
function isTooWide(kernel: Kernel): boolean {
  if (kernel.kind !== 'attention' && kernel.kind !== 'attention-gradient') return false;
  const [query, key, value] = kernel.members[0]!.inputs as [Node, Node, Node];
  const { headDim, valueWidth } = attentionSizes(query, key, value);
  return Math.max(headDim, valueWidth) > widestHead;
}

/** @throws UserError where the program needs more. */
export function refuseTooLarge({ model }: Program, lowered: Lowered): void {
  const kernels = [...lowered.values()].flatMap(({ schedule }) => schedule.kernels);
  const names: string[] = [];
  if (kernels.some(isTooWide)) names.push(`attention heads of more than ${widestHead} elements`);
  if (model.blocks.some(({ ffn }) => (ffn?.moe?.experts ?? 0) > mostExperts))
    names.push(`more than ${mostExperts} experts`);
  if (names.length === 0) return;
  throw new UserError(
    `${model.name} needs ${names.join(', and ')}, which the target cuda does not have; use --target cpu`,
  );
}
