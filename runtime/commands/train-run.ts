// The run of `malc train` once its program is there: the folder, the check before it, and the steps.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { RunTarget } from '../../compiler/targets/names.ts';
import type { NativeModel } from '../native.ts';
import type { TrainState } from '../train/checkpoint.ts';
import type { Observer, TrainOptions, TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';
import type { RunFolder } from '../train/run-folder.ts';
import type { Sampling } from '../train/samples.ts';
import { cadenceOptions, usuallyKept } from './train-options.ts';
import type { Stage } from './train-stage.ts';

/** What a run needs of malc, of which the memory is the run's too. */
export async function loadRunModules() {
  const { StepLine } = await import('../show/step-line.ts');
  const { writeTokenizer } = await import('../tokenizer/json.ts');
  const { loadTraining } = await import('../train/checkpoint.ts');
  const { EventFile } = await import('../train/event-file.ts');
  const { listenForInterrupts } = await import('../train/interrupt.ts');
  const loop = await import('../train/loop.ts');
  const { readOptions, RunFolder } = await import('../train/run-folder.ts');
  const { selfCheck } = await import('../train/self-check.ts');
  return {
    ...{ StepLine, EventFile, listenForInterrupts, loop, selfCheck },
    ...{ writeTokenizer, loadTraining, readOptions, RunFolder },
  };
}

/** Opens the run folder, brings the model to where the run stands, and trains. */
export async function trainIn(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  sampling: Sampling,
  target: RunTarget,
  sourceFolder: string,
  stage: Stage,
): Promise<TrainResult> {
  const { EventFile, listenForInterrupts, loop } = await loadRunModules();
  const { settings, from, corpus } = prepared;
  const run = await openRun(args, output, prepared, native, target, sourceFolder);
  const line = await stage.line({
    steps: settings.steps,
    start: from?.step ?? 0,
    logEvery: (args['log-every'] as number | undefined) ?? Math.max(1, Math.round(settings.steps / 50)),
    tokensPerStep: settings['batch-size'] * settings['grad-accum'] * settings['seq-len'],
    averages: settings.ema > 0,
  });
  const origin = { target, data: corpus.paths, dataHash: corpus.hash, tokenizerHash: prepared.tokenizerHash };
  // From here on: what Ctrl-C leaves of a run that is being checked would be in the way of the next.
  const interrupts = listenForInterrupts(() => line.note('  stopping after this step; once more leaves at once'));
  try {
    if (!from && args['self-check']) await checkBefore(output, prepared, native, run, origin, stage);
    const events = new EventFile(output, (from?.step ?? 0) + 1);
    const observer: Observer = {
      step(record) {
        line.step(record);
        events.step(record);
      },
      sample(step, text) {
        line.sample(text);
        events.sample(step, text);
      },
      saved() {},
    };
    try {
      if (from) line.note(resumed(from, target));
      else await begin(prepared, native);
      return await loop.train({
        model: native,
        settings,
        training: prepared.training,
        validation: prepared.validation,
        run,
        from,
        origin,
        cadence: prepared.cadence,
        patience: (args.patience as number | undefined) ?? null,
        sample: () => sampling.write(native),
        observer,
        stop: interrupts.signal,
      });
    } finally {
      events.close();
      run.close();
    }
  } finally {
    interrupts.release();
  }
}

/** Gives a model the weights that a run begins with. */
async function begin({ settings, weights }: Prepared, native: NativeModel): Promise<void> {
  await native.initialize(settings.seed);
  weights?.load(native);
  if (weights) for (const { average, data } of native.writableParameters()) average?.set(data);
}

/** Tries what a run relies on, and shows what was found; a run that fails leaves the folder as it was. */
async function checkBefore(
  output: string,
  prepared: Prepared,
  native: NativeModel,
  run: RunFolder,
  origin: TrainOptions['origin'],
  stage: Stage,
): Promise<void> {
  const { selfCheck } = await loadRunModules();
  const { model, settings, corpus, training } = prepared;
  const size = settings['batch-size'] * settings['seq-len'];
  const [tokens, labels] = [0, 1].map(() => new Int32Array(size * settings['grad-accum'])) as [Int32Array, Int32Array];
  training.fill(0, tokens, labels);
  const began = performance.now();
  try {
    const findings = await selfCheck({
      model: native,
      hiddenSize: model.hidden_size,
      settings,
      tokens: tokens.subarray(0, size),
      labels: labels.subarray(0, size),
      tokenizer: corpus.tokenizer,
      lines: corpus.lines,
      folder: output,
      begin: () => begin(prepared, native),
      isFresh: prepared.weights === null && prepared.frozen.length === 0,
      origin,
    });
    for (const { text, warns } of findings) stage.tell(`  ${warns ? 'note ' : 'check'}  ${text}`);
    stage.tell(`  checked in ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
  } catch (error) {
    run.abandon();
    throw error;
  }
}

function resumed({ step, target: before }: TrainState, target: RunTarget): string {
  const change = `; it was trained on ${before} so far, and from here on ${target} rounds in its own way`;
  return `resumed after step ${step}${before === target ? '' : change}`;
}

/** Opens the run folder with all that stands in it before the first step; on resume, reads the last checkpoint. */
async function openRun(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  target: RunTarget,
  sourceFolder: string,
): Promise<RunFolder> {
  const { writeTokenizer, loadTraining, readOptions, RunFolder } = await loadRunModules();
  const { from, weights, text, model, corpus } = prepared;
  // Read before anything is written: a damaged checkpoint leaves the folder as it was.
  if (from) loadTraining(join(output, `step-${from.step}`), native);
  else weights?.load(native);
  const keep = (args.keep as number | undefined) ?? usuallyKept;
  const run = await RunFolder.open(output, { resume: args.resume as boolean, keep });
  try {
    run.writeSources(sourceFolder);
    const former = from ? readOptions(output) : {};
    run.writeOptions({ ...former, ...optionsOf({ tokenizer: former.tokenizer, ...args }, output, prepared, target) });
    if (!from) {
      run.writeModel(text, model, corpus.tokenizer.endOfText);
      writeTokenizer(join(output, 'tokenizer.json'), corpus.tokenizer);
    }
    return run;
  } catch (error) {
    run.abandon();
    throw error;
  }
}

/**
 * What run.json says: with it as --config, and another --output, the run is done again. A resumed run says the tokenizer
 * that it began with, though it reads its own copy.
 */
function optionsOf(
  args: Readonly<Record<string, unknown>>,
  output: string,
  { settings, cadence, corpus, tokenizerPath, weights }: Prepared,
  target: RunTarget,
): Record<string, unknown> {
  const habitual = ['name', 'text-field', 'prompt', 'log-every', 'keep', 'patience', 'threads'];
  const told = [...habitual, 'autotune', 'any-order', 'recompute'];
  return {
    ...Object.fromEntries(told.filter(name => args[name] !== undefined).map(name => [name, args[name]])),
    ...(args.model !== undefined && { model: placeOf(args.model as string) }),
    ...(weights && { checkpoint: weights.path }),
    data: corpus.paths,
    tokenizer: resolve((args.tokenizer as string | undefined) ?? tokenizerPath ?? join(output, 'tokenizer.json')),
    target,
    ...settings,
    ...Object.fromEntries(Object.entries(cadenceOptions).map(([name, key]) => [name, cadence[key]])),
  };
}

/** A file by its whole path, so that it is found from anywhere; a well-known model by its name. */
const placeOf = (model: string): string => (existsSync(model) ? resolve(model) : model);
