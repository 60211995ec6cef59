// The part that trains GPT-2 by llm.c, where its source lies on the machine: LLM_C names the folder. It is built in a
// copy, with its own Makefile, and trains on random tokens from random weights.
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Measurement, summarize } from '../../runtime/bench/measurement.ts';
import { Random } from '../../runtime/data/random.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call, lastLines } from './programs.ts';

interface Trained extends Item {
  readonly tokens_per_second: Measurement | null;
  readonly build_seconds: number;
  /** Why it was not measured. */
  readonly problem: string | null;
}

const [batch, time] = [64, 1024];
/** Of which the first few warm up. */
const [STEPS, WARM_UP] = [24, 4];
/** Share of the part's seconds that its compiler has. */
const BUILD = 0.6;
/** What llm.c's files of tokens begin with: 256 numbers, of which these, and how many tokens follow, count. */
const [MAGIC, VERSION] = [20240520, 1];
const TOKENS = 2_000_000;
const VOCABULARY = 50257;

export const llmC: Part = {
  name: 'llm.c',
  title: `llm.c, GPT-2 124M, ${batch} x ${time}, bf16`,
  seconds: 100,
  async measure({ seconds, report }) {
    const source = process.env.LLM_C?.trim();
    const none = { tokens_per_second: null, build_seconds: 0 };
    if (!source || !existsSync(join(source, 'train_gpt2.cu'))) {
      const problem = source ? `${source} holds no train_gpt2.cu` : 'LLM_C names no folder with its source';
      report<Trained>({ ...none, problem });
      return;
    }
    const folder = mkdtempSync(join(tmpdir(), 'malc-llm-c-'));
    try {
      cpSync(source, folder, { recursive: true, dereference: true });
      const words = ['train_gpt2cu', 'NO_MULTI_GPU=1', 'NO_USE_MPI=1', 'PRECISION=BF16'];
      const built = await call('make', words, { folder, seconds: BUILD * seconds });
      if (built.code !== 0) {
        report<Trained>({ ...none, build_seconds: built.seconds, problem: lastLines(built.output, 6) });
        return;
      }
      writeFileSync(join(folder, 'tokens.bin'), randomTokenFile());
      const { output } = await call(join(folder, 'train_gpt2cu'), flags, {
        folder,
        seconds: seconds - built.seconds - 5,
      });
      const speeds = speedsIn(output).slice(WARM_UP);
      const problem = speeds.length > 0 ? null : lastLines(output, 6);
      const measured = speeds.length > 0 ? summarize(speeds) : null;
      report<Trained>({ tokens_per_second: measured, build_seconds: built.seconds, problem });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  table(items) {
    const rows = (items as readonly Trained[]).map(({ tokens_per_second: speed, build_seconds, problem }) => [
      speed
        ? `${(speed.median / 1e3).toFixed(1)}k (${(speed.low / 1e3).toFixed(1)} to ${(speed.high / 1e3).toFixed(1)})`
        : '',
      build_seconds.toFixed(0),
      problem ?? '',
    ]);
    return markdownTable(['tokens/s', 'built in s', 'why not'], rows);
  },
};

/** One micro-batch a step from random weights; validation, of one batch, and samples come later than the last step. */
const flags = [
  ...['-e', 'd12', '-i', 'tokens.bin', '-j', 'tokens.bin', '-b', String(batch), '-t', String(time)],
  ...['-d', String(batch * time), '-x', String(STEPS), '-v', '1000', '-m', '1', '-s', '1000', '-h', '0'],
];

/** `step 5/24 | loss .. | 140.02 ms | 38.1% bf16 MFU | 468034 tok/s`: the time, for the speed is a mean so far. */
export function speedsIn(output: string): number[] {
  const steps = [...output.matchAll(/^step\s+\d+\/\d+ \|.*?\|\s*([\d.]+) ms \|/gm)];
  return steps.map(([, milliseconds]) => (1000 * batch * time) / Number(milliseconds));
}

function randomTokenFile(): Buffer {
  const random = new Random(1);
  const header = new Int32Array(256);
  header.set([MAGIC, VERSION, TOKENS]);
  const tokens = Uint16Array.from({ length: TOKENS }, () => random.below(VOCABULARY));
  return Buffer.concat([Buffer.from(header.buffer), Buffer.from(tokens.buffer)]);
}
