// What the program of `malc train` is built and opened with; and `--batch-size auto`, which asks it what batches take.
import type { Model } from '../../compiler/check/model.ts';
import type { BuildOptions } from '../build.ts';
import type { NativeOptions } from '../native.ts';
import type { Unbatched } from '../train/prepare.ts';
import type { Settings } from '../train/settings.ts';
import { readRecompute } from './recompute-option.ts';
import type { ChosenTarget } from './target-option.ts';

/** What a run needs of its program. */
interface Run {
  readonly model: Model;
  readonly frozen: readonly string[];
  readonly settings: Settings;
  /** The token that ends a document, where attention does not cross it. */
  readonly separator: number | null;
}

/** What the program is built with. */
export async function buildOptions(
  { settings, frozen }: Run,
  args: Readonly<Record<string, unknown>>,
  { target }: ChosenTarget,
): Promise<BuildOptions> {
  const { updatingOf } = await import('../train/settings.ts');
  return {
    target,
    dtype: settings.dtype,
    recompute: readRecompute(args.recompute as string | undefined),
    frozen,
    masksDocuments: settings['mask-documents'],
    ...updatingOf(settings),
  };
}

/** What it is opened with. @param contextLength positions that samples need */
export const openOptions = (
  { settings, separator }: Run,
  args: Readonly<Record<string, unknown>>,
  { device }: ChosenTarget,
  contextLength: number,
): NativeOptions => ({
  maxBatch: settings['batch-size'],
  maxTime: settings['seq-len'],
  maxContext: contextLength,
  training: true,
  threads: args.threads as number | undefined,
  seed: settings.seed,
  averages: settings.ema > 0,
  separator: separator ?? undefined,
  device,
});

/** The largest batch that there is memory for, as the program of the run says, which is built for it. */
export async function fitBatchOf(
  run: Unbatched,
  args: Readonly<Record<string, unknown>>,
  chosen: ChosenTarget,
): Promise<number> {
  const { buildModel } = await import('../build.ts');
  const { freeDeviceMemory } = await import('../cuda-device.ts');
  const { availableMemory } = await import('../machine.ts');
  const { NativeModel } = await import('../native.ts');
  const { fitBatch } = await import('../train/fit-batch.ts');
  const { Sampling } = await import('../train/samples.ts');

  const { model, tokenizer, settings, tokensPerStep, most } = run;
  const sampling = new Sampling((args.prompt as string | undefined) ?? '', tokenizer, model.max_seq_len, 0);
  const { libraryPath } = await buildModel(model, await buildOptions(run, args, chosen));
  const options = openOptions(run, args, chosen, sampling.contextLength);
  const { device } = chosen;
  return fitBatch({
    bytesOf: maxBatch => NativeModel.bytesOf(libraryPath, { ...options, maxBatch }),
    free: device ? freeDeviceMemory() : availableMemory(),
    owner: device ? device.name : 'this machine',
    time: settings['seq-len'],
    ...{ tokensPerStep, most },
  });
}
