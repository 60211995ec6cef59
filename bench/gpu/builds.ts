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
  seconds: 150,
  async measure({ dry, report }) {
    const names = dry ? ['nano'] : ['gpt2-small', 'llama3-1b'];
    await Promise.all(
      names.map(async name => {
        const { model } = readModel(name);
        // The profile's program, which has the same kernels, is measured by parts that come late.
        for (const profile of dry ? [false] : [false, true]) {
          const options = { target: targetOf(dry), dtype: 'bf16', profile } as const;
          const { seconds, cached } = await buildModel(model, options);
          report<Built>({ model: `${name}${profile ? ', with a profile' : ''}`, seconds, cached });
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
