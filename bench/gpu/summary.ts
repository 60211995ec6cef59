// What a run comes to, at the head of its page: is it right, is it fast enough, and where is the time that is left.
import type { Kernels } from './kernels.ts';
import { markdownTable, type PartResult } from './part.ts';
import { kinds, measuredModels } from './predict.ts';
import type { Compared } from './steps.ts';
import { type TorchProfile, torchSeconds } from './torch-profile.ts';

/** Kernels that lose most time to a library. */
const SHOWN = 6;

/** Markdown; empty where nothing of it was measured. */
export function summaryOf(parts: readonly PartResult[]): string {
  const itemsOf = (name: string) => parts.find(part => part.name === name)?.items ?? [];
  const right = ['references', 'tests'].flatMap(name => {
    const items = itemsOf(name);
    const good = items.filter(({ failed }) => !failed).length;
    return items.length > 0 ? [`${good} of ${items.length} ${name}`] : [];
  });
  const ofModels = measuredModels.flatMap(({ part, goal }) =>
    [`${part}`, `${part}-tuned`].map(name => {
      const steps = itemsOf(`${name}-step`);
      const compared = steps.filter((item): item is Compared => 'ratio' in item);
      const profile = steps.find((item): item is TorchProfile => 'profile' in item) ?? null;
      const [kernels] = itemsOf(name === part ? `${part}-kernels` : name) as readonly Kernels[];
      return [speedOf(goal, compared), kindsOf(kernels, profile), lossesOf(kernels)].filter(Boolean);
    }),
  );
  const head = right.length > 0 ? [`Right on the device: ${right.join(', ')}.`] : [];
  return [...head, ...ofModels.flat()].join('\n\n');
}

function speedOf(goal: number, compared: readonly Compared[]): string {
  const measured = compared.find(({ malc }) => malc);
  if (!measured?.malc) return '';
  const { configuration, malc: own } = measured;
  const speed = own.tokens_per_second.median;
  const share = own.mfu === null ? '' : `, ${(100 * own.mfu).toFixed(1)}% MFU`;
  const peers = compared
    .filter(({ torch }) => torch)
    .map(({ variant, ratio }) => `${ratio!.median.toFixed(2)} x ${variant}`);
  const verdict = speed >= goal ? 'reached' : `${((100 * speed) / goal).toFixed(0)}% of it`;
  const beside = peers.length > 0 ? `; PyTorch: ${peers.join(', ')}` : '';
  const tokens = (value: number) => `${Math.round(value).toLocaleString('en')}`;
  return `**${configuration}: ${tokens(speed)} tokens/s**${share}${beside}. The goal of ${tokens(goal)}: ${verdict}.`;
}

/** Where a step's time goes, beside the prediction and torch.compile's own kernels. */
function kindsOf(found: Kernels | undefined, profile: TorchProfile | null): string {
  if (!found || found.kernels.length === 0) return '';
  const rows = kinds.map(kind => {
    const own = found.kernels.filter(kernel => kernel.kind === kind);
    const seconds = own.reduce((sum, kernel) => sum + kernel.seconds, 0);
    const predicted = own.reduce((sum, kernel) => sum + (kernel.predicted_seconds ?? 0), 0);
    return [kind, ...[seconds, predicted, profile && torchSeconds(profile, kind)].map(milliseconds)];
  });
  return markdownTable(['ms a step', 'malc', 'predicted', 'PyTorch'], rows);
}

/** The kernels that would gain most by being as quick as the libraries. */
function lossesOf(found: Kernels | undefined): string {
  const losses = (found?.kernels ?? [])
    .flatMap(({ name, seconds, peer, limit }) => (peer ? [{ name, limit, lost: seconds - peer.seconds }] : []))
    .filter(({ lost }) => lost > 0)
    .sort((a, b) => b.lost - a.lost)
    .slice(0, SHOWN);
  if (losses.length === 0) return '';
  const rows = losses.map(({ name, lost, limit }) => [name, milliseconds(lost), limit]);
  return markdownTable(['slower than a library', 'by ms a step', 'held back by'], rows);
}

const milliseconds = (seconds: number | null) => (seconds === null ? '' : (seconds * 1e3).toFixed(2));
