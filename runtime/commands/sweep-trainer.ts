// How `malc sweep` has its runs made: by `malc train` itself, which is told to be quiet and to hand back what it found.
import { MachineError, UserError } from '../../compiler/diagnostic.ts';
import type { Trainer, TrainOptions } from '../sweep/trainer.ts';
import type { TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';
import type { Option } from './command.ts';
import { train } from './train.ts';
import type { Stage } from './train-stage.ts';

const options: Readonly<Record<string, Option>> = train.options;

/** All arguments of a run, as the command line would give them. */
function argumentsOf(given: TrainOptions): Record<string, unknown> {
  const usual = Object.entries(options).flatMap(([name, option]) =>
    option.default === undefined ? [] : [[name, option.default]],
  );
  return { ...Object.fromEntries(usual), ...given };
}

/** A run that tells nothing of itself. */
const quiet: Stage = {
  tell() {},
  warn() {},
  prepared: () => true,
  async opening() {},
  async forecast() {},
  line: async () => ({ step() {}, sample() {}, note() {} }),
  report() {},
};

export const trainer: Trainer = {
  async prepare(given) {
    const found: Prepared[] = [];
    const prepared = (each: Prepared) => {
      found.push(each);
      return false;
    };
    await train.run(argumentsOf(given), { ...quiet, prepared });
    return found[0]!;
  },

  async measure(given) {
    const { forecast } = await import('../train/dry-run.ts');
    const found = { bytes: 0, secondsPerStep: 0 };
    await train.run(argumentsOf({ ...given, 'dry-run': true }), {
      ...quiet,
      async forecast(prepared, native, sampling) {
        found.bytes = native.bytes;
        found.secondsPerStep = (await forecast(native, prepared, () => sampling.write(native))).secondsPerStep;
      },
    });
    return found;
  },

  async train(given, { step, note }) {
    const { WriteError } = await import('../atomic-file.ts');
    const results: TrainResult[] = [];
    let isPrepared = false;
    try {
      await train.run(argumentsOf(given), {
        ...quiet,
        prepared() {
          isPrepared = true;
          return true;
        },
        line: async () => ({ step, sample() {}, note }),
        report: (_output, _prepared, result) => void results.push(result),
      });
    } catch (error) {
      const isOwn = error instanceof UserError || error instanceof MachineError;
      if (!isPrepared || !isOwn || error instanceof WriteError) throw error;
      return { ending: 'failed', reason: error.message };
    }
    return results[0]!;
  },
};
