// The kernels of PyTorch's own step, as its profiler tells them, and which kind of work each is.
import type { Program } from '../peers/turns.ts';
import type { Item } from './part.ts';
import { markdownTable } from './part.ts';
import { type Kind, kinds } from './predict.ts';

/** A kernel of one step, all its launches together. */
interface TorchKernel {
  readonly name: string;
  readonly calls: number;
  readonly seconds: number;
}

export interface TorchProfile extends Item {
  readonly configuration: string;
  readonly variant: string;
  readonly profile: readonly TorchKernel[];
}

/** Shorter ones stand in the JSON. */
const SHOWN = 24;
/** Letters of a name: templates of C++ go on for lines. */
const LETTERS = 110;
/** The profiler loads its library, and steps three times. */
const SECONDS = 25;

/** The first that fits: FlashAttention's kernels are made by CUTLASS as products are. */
const patterns: readonly (readonly [Kind, RegExp])[] = [
  ['attention', /flash|fmha|sdpa|attention/i],
  ['update', /adam|multi_tensor|foreach|lpnorm/i],
  ['products', /gemm|nvjet|cutlass|xmma|cublas|matmul|splitk|triton_tem|aten::(?:add)?mm/i],
];

export const kindOfTorch = (name: string): Kind => patterns.find(([, pattern]) => pattern.test(name))?.[0] ?? 'rows';

/** Seconds of each kind in a step. */
export function torchSeconds({ profile }: TorchProfile, kind: Kind): number {
  return profile.reduce((sum, { name, seconds }) => sum + (kindOfTorch(name) === kind ? seconds : 0), 0);
}

/** Asks a program of bench/peers/torch_step.py for its kernels; null where it does not answer in time. */
export async function askForProfile(program: Program): Promise<readonly TorchKernel[] | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>(resolve => {
    timer = setTimeout(() => resolve(null), SECONDS * 1000);
  });
  const answer = await Promise.race([program.ask('profile'), late]);
  clearTimeout(timer);
  return answer === null ? null : JSON.parse(answer);
}

export function torchProfileTable(found: TorchProfile): string {
  const { profile, configuration, variant } = found;
  const total = profile.reduce((sum, { seconds }) => sum + seconds, 0);
  const line = (name: string, calls: number | string, seconds: number) => [
    name,
    calls,
    (seconds * 1e3).toFixed(3),
    `${((100 * seconds) / total).toFixed(1)}%`,
  ];
  const ofKind = kinds.map(kind => line(kind, '', torchSeconds(found, kind)));
  const sorted = profile.toSorted((a, b) => b.seconds - a.seconds).slice(0, SHOWN);
  const rows = sorted.map(({ name, calls, seconds }) =>
    line(`${kindOfTorch(name)}: ${name.slice(0, LETTERS)}`, calls, seconds),
  );
  const columns = ['kernel', 'launches', 'ms', 'share'];
  const sum = `${(total * 1e3).toFixed(1)} ms of a step in ${profile.length} kernels`;
  return [
    `PyTorch's own kernels, ${configuration}, ${variant}: ${sum}.`,
    markdownTable(columns, ofKind),
    markdownTable(columns, rows),
  ].join('\n\n');
}
