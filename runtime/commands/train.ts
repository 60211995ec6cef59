// malc train: from a model, a text and a few numbers to a trained model in a run folder.
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { trainingTypes } from '../../compiler/targets/cpu/kernel-source.ts';
import type { Compiler } from '../../compiler/targets/cpu/toolchain.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { autotuneOption, requireTunable, tellTuning } from '../autotune-option.ts';
import type { NativeModel } from '../native.ts';
import type { OpeningRow } from '../show/opening-table.ts';
import type { TrainState } from '../train/checkpoint.ts';
import type { GivenSettings, SettingName } from '../train/derive.ts';
import type { Cadence, Observer, TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';
import type { RunFolder } from '../train/run-folder.ts';
import type { Sampling } from '../train/samples.ts';
import { type Command, type Option, UsageError } from './command.ts';
import { type ChosenTarget, chooseTarget, targetOption } from './target-option.ts';

/** Options that are settings of the run's mathematics; what is left out is derived or, on --resume, as the run has it. */
const settingOptions: Readonly<Record<SettingName | 'epochs', Option>> = {
  steps: setting('count', 'Updates of the weights', 'one pass over the text', ['iters', 'max-steps']),
  epochs: setting('aboveZero', 'Passes over the text, in place of --steps', undefined, 'e'),
  'batch-size': setting('count', 'Sequences in one micro-batch', '8', 'b'),
  'seq-len': setting('count', 'Tokens in a sequence', 'the model’s, at most 256', 'block-size'),
  lr: setting('aboveZero', 'Peak learning rate', 'by the model’s width'),
  'grad-accum': advanced('count', 'Micro-batches in one update', '1'),
  warmup: advanced('countOrNone', 'Steps up to the peak of --lr', 'a tenth of the steps'),
  'min-lr-share': advanced('share', 'Where the cosine of --lr ends, as a share of it', '0.1'),
  'weight-decay': advanced('zeroOrAbove', 'Decay of tensors of 2 and more dimensions', '0.1'),
  'grad-clip': advanced('zeroOrAbove', 'Largest gradient norm, 0 for any', '1'),
  beta1: advanced('shareBelowOne', 'Decay of AdamW’s first moment', '0.9'),
  beta2: advanced('shareBelowOne', 'Decay of AdamW’s second moment', '0.95'),
  seed: advanced('countOrNone', 'Seed of the first weights and of the text’s order', '1337'),
  'validation-share': advanced('shareBelowOne', 'Share of the text held out, 0 for none', '0.1'),
  dtype: { type: 'string', choices: trainingTypes, describe: 'What products multiply', whenAbsent: 'the faster' },
};

function setting(
  number: NonNullable<Option['number']>,
  describe: string,
  whenAbsent?: string,
  alias?: string | readonly string[],
): Option {
  return {
    type: 'number',
    number,
    describe,
    ...(whenAbsent !== undefined && { whenAbsent }),
    ...(alias !== undefined && { alias }),
  };
}

function advanced(number: NonNullable<Option['number']>, describe: string, whenAbsent: string): Option {
  return { ...setting(number, describe, whenAbsent), advanced: true };
}

/** The loop's cadence by the option that sets it. */
const cadenceOptions = {
  'eval-every': 'evaluate',
  'save-every': 'save',
  'sample-every': 'sample',
} as const satisfies Record<string, keyof Cadence>;

export const train: Command = {
  name: 'train',
  describe: 'Train a model on text files',
  options: {
    model: { type: 'string', alias: 'm', describe: 'A .mal file, or the name of a well-known model' },
    data: { type: 'string', alias: 'd', array: true, describe: 'Text files to learn from, or - for standard input' },
    output: { type: 'string', alias: 'o', describe: 'The run folder to write', whenAbsent: 'runs/MODEL' },
    resume: { type: 'boolean', default: false, describe: 'Go on from the last checkpoint in --output' },
    tokenizer: { type: 'string', alias: 't', describe: 'A tokenizer.json', whenAbsent: 'learned from the text' },
    target: targetOption,
    ...settingOptions,
    prompt: { type: 'string', default: '', describe: 'What the samples begin with' },
    'eval-every': advanced('count', 'Steps between evaluations', 'a tenth of all'),
    'save-every': advanced('count', 'Steps between checkpoints', 'a tenth of all, at least 100'),
    'sample-every': advanced('count', 'Steps between samples', 'a tenth of all'),
    'log-every': advanced('count', 'Steps between lines', 'a fiftieth of all'),
    autotune: { ...autotuneOption, advanced: true },
    threads: advanced('threads', 'Threads of the native program', 'all'),
    name: { type: 'string', advanced: true, describe: 'Which model, where the file has several' },
  },
  examples: [
    ['malc train -m nano -d input.txt', 'derive everything else, and show it'],
    ['malc train --resume -o runs/nano', 'go on where that run stopped, bit for bit'],
    ['malc train -m gpt2-small -d input.txt --target cuda', 'on an NVIDIA GPU, in bfloat16'],
  ],

  async run(args) {
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { buildModel } = await import('../build.ts');
    const { NativeModel } = await import('../native.ts');
    const { prepare } = await import('../train/prepare.ts');
    const { RunFolder } = await import('../train/run-folder.ts');
    const { Sampling } = await import('../train/samples.ts');

    checkTogether(args);
    const source =
      args.model === undefined ? undefined : readModel(args.model as string, args.name as string | undefined);
    for (const warning of source?.warnings ?? []) console.error(warning);
    const output = (args.output as string | undefined) ?? `runs/${source!.model.name}`;
    const chosen = await chooseTarget(args, RunFolder.peek(output, args.resume as boolean)?.target);
    const { target, device } = chosen;
    const prepared = await prepare({
      source,
      target,
      data: args.data as readonly string[] | undefined,
      tokenizer: args.tokenizer as string | undefined,
      output,
      resume: args.resume as boolean,
      settings: givenSettings(args),
      cadence: givenCadence(args),
    });
    const { model, settings, corpus } = prepared;
    if ((model.embeddings.role_embeddings ?? 1) > 1) console.error(rolesUntrained);
    const sampling = new Sampling(args.prompt as string, corpus.tokenizer, model.max_seq_len, settings.seed);

    console.log(`building the native program of ${model.name} ...`);
    const tune = async (compiler: Compiler) => {
      const { autotune } = await import('../autotune.ts');
      const threads = (args.threads as number | undefined) ?? availableParallelism();
      const [batch, time] = [settings['batch-size'], settings['seq-len']];
      return await autotune({ model, dtype: settings.dtype, batch, time, threads, onStart: tellTuning }, compiler);
    };
    if (args.autotune) requireTunable(settings.dtype);
    const build = await buildModel(model, { target, dtype: settings.dtype, tune: args.autotune ? tune : undefined });
    const native = NativeModel.open(build.libraryPath, {
      maxBatch: settings['batch-size'],
      maxTime: settings['seq-len'],
      maxContext: sampling.contextLength,
      training: true,
      threads: args.threads as number | undefined,
      seed: settings.seed,
      device,
    });
    try {
      const built = build.cached ? 'built before' : `built in ${build.seconds.toFixed(1)} s`;
      await showOpening(args, output, prepared, native, chosen, `${build.sourceFolder}, ${built}`);
      report(output, await trainIn(args, output, prepared, native, sampling, target, build.sourceFolder));
    } finally {
      native.close();
    }
  },
};

const rolesUntrained =
  'warning: the text says no roles, so that every token has role 0: of `role_embeddings`, only row 0 trains';

/** Refuses options that are nothing without another, or contradict one. */
function checkTogether(args: Readonly<Record<string, unknown>>): void {
  if (args.steps !== undefined && args.epochs !== undefined) {
    throw new UsageError('--steps and --epochs both say how long to train; give one of them');
  }
  if (args.model === undefined && args.name !== undefined) {
    throw new UsageError('--name chooses a model of a file; give the file as --model');
  }
  if (args.resume) {
    if (args.output === undefined && args.model === undefined) {
      throw new UsageError('--output is needed: the run to go on with');
    }
    return;
  }
  const needed = { model: 'what to train', data: 'a text file to learn from' };
  for (const [name, what] of Object.entries(needed)) {
    if (args[name] === undefined) throw new UsageError(`--${name} is needed: ${what}`);
  }
}

/** Opens the run folder, brings the model to where the run stands, and trains. */
async function trainIn(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  sampling: Sampling,
  target: RunTarget,
  sourceFolder: string,
): Promise<TrainResult> {
  const { StepLine } = await import('../show/step-line.ts');
  const { listenForInterrupts } = await import('../train/interrupt.ts');
  const loop = await import('../train/loop.ts');

  const { settings, from, corpus } = prepared;
  const run = await openRun(args.resume as boolean, output, prepared, native, sourceFolder);
  const line = new StepLine(process.stdout, {
    steps: settings.steps,
    start: from?.step ?? 0,
    logEvery: (args['log-every'] as number | undefined) ?? Math.max(1, Math.round(settings.steps / 50)),
    tokensPerStep: settings['batch-size'] * settings['grad-accum'] * settings['seq-len'],
  });
  const observer: Observer = {
    step: record => line.step(record),
    sample: (_step, text) => line.sample(text),
    saved() {},
  };
  const interrupts = listenForInterrupts(() => line.note('  stopping after this step; once more leaves at once'));
  try {
    if (from) line.note(resumed(from, target));
    else await native.initialize(settings.seed);
    return await loop.train({
      model: native,
      settings,
      training: prepared.training,
      validation: prepared.validation,
      run,
      from,
      origin: { target, data: corpus.paths, dataHash: corpus.hash, tokenizerHash: prepared.tokenizerHash },
      cadence: prepared.cadence,
      sample: () => sampling.write(native),
      observer,
      stop: interrupts.signal,
    });
  } finally {
    interrupts.release();
    run.close();
  }
}

function resumed({ step, target: before }: TrainState, target: RunTarget): string {
  const change = `; it was trained on ${before} so far, and from here on ${target} rounds in its own way`;
  return `resumed after step ${step}${before === target ? '' : change}`;
}

/** Opens the run folder with all that stands in it before the first step; on resume, reads the last checkpoint. */
async function openRun(
  resume: boolean,
  output: string,
  { from, text, model, corpus }: Prepared,
  native: NativeModel,
  sourceFolder: string,
): Promise<RunFolder> {
  const { writeTokenizer } = await import('../tokenizer/json.ts');
  const { loadTraining } = await import('../train/checkpoint.ts');
  const { RunFolder } = await import('../train/run-folder.ts');

  // Read before anything is written: a damaged checkpoint leaves the folder as it was.
  if (from) loadTraining(join(output, `step-${from.step}`), native);
  const run = await RunFolder.open(output, { resume });
  try {
    run.writeSources(sourceFolder);
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

function report(output: string, result: TrainResult): void {
  if (result.interrupted) {
    console.log(`\nsaved at step ${result.step}; go on with: malc train --resume -o ${output}`);
    process.exitCode = 130;
    return;
  }
  const loss = result.validationLoss === null ? '' : `, validation loss ${result.validationLoss.toFixed(4)}`;
  console.log(`\n${result.step} steps done${loss}; write with it: malc generate -c ${output} -p "..."`);
}

/** Every setting and where it came from. */
async function showOpening(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  { text: runsOn, automatic: isChosen }: ChosenTarget,
  program: string,
): Promise<void> {
  const { countParameters } = await import('../../compiler/check/count.ts');
  const { openingTable } = await import('../show/opening-table.ts');
  const { describeMemory } = await import('../show/quantities.ts');

  const { model, statedVocabulary, corpus, settings, automatic, cadence, tokenizerPath } = prepared;
  const differs = model.vocab_size !== statedVocabulary;
  const vocabulary = `${number(model.vocab_size)} tokens${differs ? `; the model file says ${number(statedVocabulary)}` : ''}`;
  const rows = [
    row('model', `${model.name}, ${number(countParameters(model).total)} parameters`),
    row('tokenizer', tokenizerPath ?? 'learned from the text', args.tokenizer === undefined),
    row('vocabulary', vocabulary, differs),
    row('data', `${number(corpus.training.length)} tokens, and ${number(corpus.validation.length)} for validation`),
    row('output', output, args.output === undefined),
    row('target', runsOn, isChosen),
    ...Object.entries(settings).map(([name, value]) => row(name, String(value), automatic.has(name as SettingName))),
    ...Object.entries(cadenceOptions).map(([name, key]) => row(name, String(cadence[key]), args[name] === undefined)),
    row('memory', describeMemory(native.bytes)),
    row('program', program),
  ];
  console.log(`${openingTable(rows)}\n`);
}

function row(name: string, value: string, automatic = false): OpeningRow {
  return { name, value, automatic };
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function givenSettings(args: Readonly<Record<string, unknown>>): GivenSettings {
  const given = Object.keys(settingOptions).filter(name => args[name] !== undefined);
  return Object.fromEntries(given.map(name => [name, args[name]]));
}

function givenCadence(args: Readonly<Record<string, unknown>>): Partial<Cadence> {
  const given = Object.entries(cadenceOptions).filter(([name]) => args[name] !== undefined);
  return Object.fromEntries(given.map(([name, key]) => [key, args[name]]));
}
