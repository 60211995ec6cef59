// The part that trains without a pause: whether clock, power and speed hold while products and attention alternate.
import { startRunner } from '../peers/turns.ts';
import { meanOf, watchDevice } from './clock.ts';
import type { Item, Part, PartResult } from './part.ts';
import { markdownTable } from './part.ts';
import { programWords } from './programs.ts';

/** Some seconds of training. */
interface Slice extends Item {
  readonly configuration: string;
  /** Since the first step. */
  readonly from_seconds: number;
  readonly steps: number;
  readonly tokens_per_second: number;
  readonly clock: PartResult['clock'];
}

/** Of a slice. */
const SECONDS = 3;
/** Of the part, for the start. */
const START = 0.35;

export const sustained: Part = {
  name: 'sustained',
  title: 'Training without a pause',
  seconds: 45,
  async measure({ dry, seconds, report }) {
    const [model, batch, time] = dry ? ['tiny', 1, 16] : ['gpt2-small', 64, 1024];
    const configuration = `${model}:${batch}:${time}`;
    const words = [...programWords('bench/gpu/run.ts'), '--turn', configuration, ...(dry ? ['--dry'] : [])];
    const end = performance.now() + (dry ? 4 : seconds - 5) * 1000;
    const runner = await startRunner('malc', process.execPath, words, {}, dry ? seconds : START * seconds);
    const stop = watchDevice();
    const began = performance.now();
    let slice = { from: began, steps: 0 };
    const slices: { from: number; to: number; steps: number }[] = [];
    while (performance.now() < end || slices.length === 0) {
      await runner.step();
      slice.steps += 1;
      const now = performance.now();
      if (now - slice.from < (dry ? 1000 : SECONDS * 1000)) continue;
      slices.push({ ...slice, to: now });
      slice = { from: now, steps: 0 };
    }
    const samples = stop();
    for (const { from, to, steps } of slices)
      report<Slice>({
        configuration,
        from_seconds: (from - began) / 1000,
        steps,
        tokens_per_second: (1000 * steps * batch * time) / (to - from),
        clock: meanOf(samples.filter(({ at }) => at >= from && at < to)),
      });
    await runner.close();
  },
  table(items) {
    const rows = (items as readonly Slice[]).map(({ configuration, from_seconds, tokens_per_second, clock }) => [
      configuration,
      from_seconds.toFixed(0),
      (tokens_per_second / 1e3).toFixed(1),
      clock ? clock.mhz.toFixed(0) : '',
      clock ? clock.watts.toFixed(0) : '',
    ]);
    return markdownTable(['model', 'from s', 'thousand tokens/s', 'MHz', 'W'], rows);
  },
};
