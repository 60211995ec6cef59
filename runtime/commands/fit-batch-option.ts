// `--batch-size auto` of `malc train`: builds the run's program, and asks it what batches take.
import type { Unbatched } from '../train/prepare.ts';
import type { ChosenTarget } from './target-option.ts';

/** The largest batch that there is memory for, as the program of the run says. */
export async function fitBatchOf(
  { model, frozen, tokenizer, dtype, time, tokensPerStep, most }: Unbatched,
  args: Readonly<Record<string, unknown>>,
  { target, device }: ChosenTarget,
): Promise<number> {
  const { buildModel } = await import('../build.ts');
  const { freeDeviceMemory } = await import('../cuda-device.ts');
  const { availableMemory } = await import('../machine.ts');
  const { NativeModel } = await import('../native.ts');
  const { fitBatch } = await import('../train/fit-batch.ts');
  const { Sampling } = await import('../train/samples.ts');

  const { contextLength } = new Sampling((args.prompt as string | undefined) ?? '', tokenizer, model.max_seq_len, 0);
  console.log(`building the native program of ${model.name}, which knows what a batch takes ...`);
  const { libraryPath } = await buildModel(model, { target, dtype, frozen });
  const options = { maxTime: time, maxContext: contextLength, training: true, device };
  const threads = args.threads as number | undefined;
  return fitBatch({
    bytesOf: maxBatch => NativeModel.bytesOf(libraryPath, { ...options, maxBatch, threads }),
    free: device ? freeDeviceMemory() : availableMemory(),
    owner: device ? device.name : 'this machine',
    ...{ time, tokensPerStep, most },
  });
}
