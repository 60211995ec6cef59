// The part that builds: the programs that later parts train with, side by side, and how long each takes.
import { readModel } from '../../compiler/check/read-model.ts';
import { buildModel } from '../../runtime/build.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { targetOf } from './programs.ts';

interface Built extends Item {
  readonly model: string;
  readonly seconds: number;
  /** True where an earlier run had built it. */
  readonly cached: boolean;
}

export const builds: Part = {
  name: 'builds',
  title: 'Time from the model to its library, bf16',
  seconds: 140,
  async measure({ dry, report }) {
    const names = dry ? ['nano'] : ['gpt2-small', 'llama3-1b'];
    await Promise.all(
      names.map(async name => {
        const { model } = readModel(name);
        // The profile's program, which has the same kernels, is measured by parts that come late.
        for (const profile of dry ? [false] : [false, true]) {
          const called = `${name}${profile ? ', with a profile' : ''}`;
          const options = { target: targetOf(dry), dtype: 'bf16', profile } as const;
          const failed = (error: Error) => ({ seconds: 0, cached: false, failed: `${called}: ${error.message}` });
          const { seconds, cached, ...fault } = await buildModel(model, options).catch(failed);
          report<Built>({ model: called, seconds, cached, failed: 'failed' in fault ? fault.failed : null });
        }
      }),
    );
  },
  table: items =>
    markdownTable(
      ['model', 'seconds', 'cached'],
      (items as readonly Built[]).map(({ model, seconds, cached }) => [
        model,
        seconds.toFixed(1),
        cached ? 'yes' : 'no',
      ]),
    ),
};
