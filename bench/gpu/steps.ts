// The parts that train: whole steps of malc and of PyTorch by turns, tokens a second, share of the device's peak, memory.
import { packagePath } from '../../compiler/package-files.ts';
import { type Measurement, summarize } from '../../runtime/bench/measurement.ts';
import { findCudaDevice } from '../../runtime/cuda-device.ts';
import { byTurns, type Program, type Runner, startRunner } from '../peers/turns.ts';
import { useCublas } from './cublas.ts';
import { peakOf } from './devices.ts';
import { python } from './machine.ts';
import type { Context, Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { programWords } from './programs.ts';
import { askForProfile, type TorchProfile, torchProfileTable } from './torch-profile.ts';
import type { TurnFacts } from './turn.ts';

/** One side of a comparison. */
interface Trained {
  readonly tokens_per_second: Measurement;
  /** Of the device's bf16 peak, with the operations of the model's mathematics; null where the peak is not known. */
  readonly mfu: number | null;
  readonly memory_bytes: number;
  /** malc: nvcc's time, 0.x where the cache had it. PyTorch: the first step. */
  readonly start_seconds: number;
}

export interface Compared extends Item {
  readonly configuration: string;
  /** Of PyTorch: mode and type. */
  readonly variant: string;
  readonly malc: Trained | null;
  readonly torch: Trained | null;
  /** malc's speed over PyTorch's, round by round. */
  readonly ratio: Measurement | null;
  /** Why PyTorch was not measured. */
  readonly problem: string | null;
}

/** The most promising first: what comes later may not find the time. */
const variants: readonly string[] = ['compile bf16', 'compile bf16-weights', 'eager bf16'];
const ROUNDS = 15;
/** Shares of a part's seconds: PyTorch's start, after which malc is measured alone; and turns with each variant. */
const START = 0.6;
const SHARE = 0.15;
/** With less, no further variant is started: PyTorch compiles for half a minute. */
const LEAST_SECONDS = 35;
/** Of a step, or of PyTorch's profile: whose GPU hangs, is ended, and leaves the other its turn. */
const ANSWER_SECONDS = 30;

/** As PyTorch says it, or NativeModel.open. */
const isOutOfMemory = (error: unknown) => /out of memory|\(\d+ bytes\) of memory/i.test(String(error));

const openMalc = (text: string, dry: boolean, tunes: boolean, limit: number): Promise<Program> => {
  const flags = [...(dry ? ['--dry'] : []), ...(tunes ? ['--tune'] : [])];
  const words = [...programWords('bench/gpu/run.ts'), '--turn', text, ...flags];
  return startRunner('malc', process.execPath, words, {}, limit, ANSWER_SECONDS);
};

function openTorch(text: string, variant: string, dry: boolean, limit: number): Promise<Program> {
  const [mode = '', dtype = ''] = variant.split(' ');
  const words = [packagePath('bench/peers/torch_step.py'), text, '--turns', '--mode', mode, '--dtype', dtype];
  const device = ['--device', dry ? 'cpu' : 'cuda'];
  const environment = { PYTORCH_CUDA_ALLOC_CONF: 'expandable_segments:True' };
  return startRunner(`PyTorch, ${variant}`, python, [...words, ...device], environment, limit, ANSWER_SECONDS);
}

type Opened = Program | { readonly error: unknown };
const orError = (runner: Promise<Program>): Promise<Opened> => runner.catch(error => ({ error }));
const isRunner = (opened: Opened): opened is Program => 'step' in opened;

/**
 * Compares at one size, until a time of performance.now(). Resolves to false where the device has no memory for both.
 * @param peak operations a second of the device
 * @param tunes whether malc's products are tuned before
 */
async function compare(
  text: string,
  { peak, end, tunes }: { readonly peak: number | null; readonly end: number; readonly tunes: boolean },
  context: Context,
): Promise<boolean> {
  const { dry, seconds, report } = context;
  const [, batch, time] = text.split(':');
  const tokens = Number(batch) * Number(time);
  const all = dry ? variants.slice(-1) : tunes ? variants.slice(0, 1) : variants;
  const left = () => (end - performance.now()) / 1000;
  // Both compile at once: neither is measured meanwhile.
  let [malc, torch] = await Promise.all([
    orError(openMalc(text, dry, tunes && !dry, START * left())),
    orError(openTorch(text, all[0]!, dry, START * left())),
  ]);
  const flops = isRunner(malc) ? (malc.facts as unknown as TurnFacts).flops_per_token : null;
  for (const [n, variant] of all.entries()) {
    if (n > 0) {
      if (left() < LEAST_SECONDS) break;
      torch = await orError(openTorch(text, variant, dry, left() - SHARE * seconds));
    }
    const runners = [malc, torch].filter(isRunner);
    if (n === 0 && [malc, torch].some(opened => 'error' in opened && isOutOfMemory(opened.error))) {
      for (const runner of runners) await runner.close();
      return false;
    }
    const result = await turns(runners);
    report<Compared>({ configuration: text, variant, ...result });
    if (isRunner(torch)) {
      const profile = n === 0 && !tunes && left() > LEAST_SECONDS ? await askForProfile(torch) : null;
      if (profile) report<TorchProfile>({ configuration: text, variant, profile });
      await torch.close();
    }
    if (!isRunner(malc) && !isRunner(torch)) break;
  }
  if (isRunner(malc)) await malc.close();
  return true;

  async function turns(runners: readonly Runner[]): Promise<Omit<Compared, 'configuration' | 'variant'>> {
    const until = Math.min(performance.now() + SHARE * seconds * 1000, end - 5000);
    let measured: number[][] = [];
    let failed = isRunner(malc) ? null : String(malc.error);
    let problem = isRunner(torch) ? null : String(torch.error);
    try {
      measured = await byTurns(runners, dry ? 2 : ROUNDS, until);
    } catch (error) {
      const isMalc = String(error).startsWith('Error: malc ');
      if (isMalc) malc = { error };
      else torch = { error };
      failed ??= isMalc ? String(error) : null;
      problem ??= isMalc ? null : String(error);
      return { malc: null, torch: null, ratio: null, problem, failed };
    }
    const samplesOf = (opened: Opened) => (isRunner(opened) ? (measured[runners.indexOf(opened)] ?? null) : null);
    const [own, peer] = [samplesOf(malc), samplesOf(torch)];
    const trained = (samples: number[] | null, opened: Opened, start: string): Trained | null => {
      if (!samples || !isRunner(opened)) return null;
      const speed = summarize(samples.map(each => tokens / each));
      return {
        tokens_per_second: speed,
        mfu: peak && flops ? (speed.median * flops) / peak : null,
        memory_bytes: Number(opened.facts.memory_bytes),
        start_seconds: Number(opened.facts[start]),
      };
    };
    return {
      malc: trained(own, malc, 'build_seconds'),
      torch: trained(peer, torch, 'first_step_seconds'),
      ratio: own && peer ? summarize(own.map((each, round) => peer[round]! / each)) : null,
      problem,
      failed,
    };
  }
}

/** A part that trains one model: at the batch given, or at half of it, and so on, where memory asks for it. */
export function stepPart(
  name: string,
  model: string,
  batch: number,
  time: number,
  seconds: number,
  tunes = false,
): Part {
  return {
    name,
    title: `Training steps of ${model}, by turns with PyTorch, bf16${tunes ? ', products tuned' : ''}`,
    seconds,
    async measure(context) {
      const device = findCudaDevice();
      const sizes = context.dry ? ['tiny:1:16'] : [batch, batch / 2, batch / 4].map(each => `${model}:${each}:${time}`);
      const end = performance.now() + context.seconds * 1000;
      if (tunes && !context.dry) await useCublas();
      const given = { peak: device && peakOf(device.name), end, tunes };
      for (const text of sizes) if (await compare(text, given, context)) return;
      context.report({ failed: `${model} with PyTorch beside it does not fit the device, even at ${sizes.at(-1)}` });
    },
    table: items => table(items, `${model}:${batch}:${time}`),
  };
}

/** @param wanted the configuration that another one may stand for: a smaller one, or in a dry run a tiny one */
function table(items: readonly Item[], wanted: string): string {
  const thousands = ({ median, low, high }: Measurement) =>
    `${(median / 1e3).toFixed(1)}k (${(low / 1e3).toFixed(1)} to ${(high / 1e3).toFixed(1)})`;
  const side = (trained: Trained | null) => {
    if (!trained) return ['', '', '', ''];
    const { tokens_per_second, mfu, memory_bytes, start_seconds } = trained;
    const share = mfu === null ? '' : `${(100 * mfu).toFixed(1)}%`;
    return [thousands(tokens_per_second), share, (memory_bytes / 1e9).toFixed(1), start_seconds.toFixed(0)];
  };
  const compared = items.filter((item): item is Compared => 'ratio' in item);
  const profiles = items.filter((item): item is TorchProfile => 'profile' in item);
  const rows = compared.map(({ configuration, variant, malc, torch, ratio }) => {
    const text = ratio ? `${ratio.median.toFixed(2)} (${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)})` : '';
    return [configuration, variant, ...side(malc), ...side(torch), text];
  });
  const columns = ['tokens/s', 'MFU', 'GB', 'start s'];
  const heads = [
    'model',
    'PyTorch',
    ...columns.map(each => `malc ${each}`),
    ...columns.map(each => `its ${each}`),
    'ratio',
  ];
  const problems = compared.flatMap(({ variant, problem }) =>
    problem ? [`PyTorch, ${variant}, was not measured: ${problem.split('\n').slice(0, 3).join(' ')}`] : [],
  );
  const others = new Set(compared.flatMap(({ configuration: own }) => (own === wanted ? [] : [own])));
  const notes = [...others].map(own => `${own} stands for ${wanted}.`);
  return [markdownTable(heads, rows), ...notes, ...problems, ...profiles.map(torchProfileTable)].join('\n\n');
}
