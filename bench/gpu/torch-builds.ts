// The part in which PyTorch compiles: how long torch.compile takes from the model to its first step. Its cache has the steps
// then that later parts measure, which start within seconds.
import { packagePath } from '../../compiler/package-files.ts';
import { python } from './machine.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call, lastLines } from './programs.ts';

interface Compiled extends Item {
  readonly configuration: string;
  /** Null where it did not come to a step. */
  readonly seconds: number | null;
  readonly problem: string | null;
}

export const torchBuilds: Part = {
  name: 'torch-builds',
  title: 'Time of torch.compile from the model to the first step, bf16, while malc compiles beside it',
  seconds: 140,
  async measure({ dry, report }) {
    const device = dry ? ['--mode', 'eager', '--device', 'cpu'] : ['--mode', 'compile', '--device', 'cuda'];
    for (const configuration of dry ? ['tiny:1:16'] : ['gpt2-small:64:1024', 'llama-1b:16:2048']) {
      const words = [packagePath('bench/peers/torch_step.py'), configuration, '--dtype', 'bf16', '--repeats', '1'];
      const { printed, output } = await call(python, [...words, ...device]);
      const line = printed.split('\n').find(each => each.startsWith('{'));
      const seconds = line === undefined ? null : (JSON.parse(line).first_step_seconds as number);
      report<Compiled>({ configuration, seconds, problem: seconds === null ? lastLines(output, 2) : null });
    }
  },
  table: items =>
    markdownTable(
      ['model', 'seconds', 'why not'],
      (items as readonly Compiled[]).map(({ configuration, seconds, problem }) => [
        configuration,
        seconds === null ? '' : seconds.toFixed(1),
        problem ?? '',
      ]),
    ),
};
