// malc train: from a model, a text and a few numbers to a trained model in a run folder.
import type { NativeModel } from '../native.ts';
import type { OpeningRow } from '../show/opening-table.ts';
import type { GivenSettings, SettingName } from '../train/derive.ts';
import type { Cadence, Observer, TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';
import type { Sampling } from '../train/samples.ts';
import type { Command, Option } from './command.ts';

/** Options that are settings of the run's mathematics; what is left out is derived or, on --resume, as the run has it. */
const settingOptions: Readonly<Record<SettingName | 'epochs', Option>> = {
  'batch-size': { type: 'number', alias: 'b', describe: 'Sequences in one micro-batch  [default: 8]' },
  'seq-len': {
    type: 'number',
    alias: 'block-size',
    describe: 'Tokens in a sequence  [default: the model’s, at most 256]',
  },
  steps: { type: 'number', alias: ['iters', 'max-steps'], describe: 'Updates  [default: one pass over the text]' },
  epochs: { type: 'number', alias: 'e', describe: 'Passes over the text, in place of --steps' },
  lr: { type: 'number', describe: 'Peak learning rate  [default: by the model’s width]' },
  'grad-accum': { type: 'number', advanced: true, describe: 'Micro-batches in one update  [default: 1]' },
  warmup: { type: 'number', advanced: true, describe: 'Steps up to the peak  [default: a tenth of the steps]' },
  'min-lr-share': {
    type: 'number',
    advanced: true,
    describe: 'Where the cosine ends, as a share of --lr  [default: 0.1]',
  },
  'weight-decay': { type: 'number', advanced: true, describe: 'On tensors of 2 and more dimensions  [default: 0.1]' },
  'grad-clip': { type: 'number', advanced: true, describe: 'Largest gradient norm, 0 for any  [default: 1]' },
  beta1: { type: 'number', advanced: true, describe: 'Decay of AdamW’s first moment  [default: 0.9]' },
  beta2: { type: 'number', advanced: true, describe: 'Decay of AdamW’s second moment  [default: 0.95]' },
  seed: { type: 'number', advanced: true, describe: 'Of the first weights and the text’s order  [default: 1337]' },
  'validation-share': {
    type: 'number',
    advanced: true,
    describe: 'Share of the text held out, 0 for none  [default: 0.1]',
  },
};

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
    data: { type: 'string', alias: 'd', array: true, describe: 'Text files, or - for standard input' },
    model: { type: 'string', alias: 'm', describe: 'A .mal file, or the name of a well-known model' },
    tokenizer: { type: 'string', alias: 't', describe: 'A tokenizer.json  [default: learned from the text]' },
    output: { type: 'string', alias: 'o', describe: 'The run folder to write  [default: runs/MODEL]' },
    resume: { type: 'boolean', default: false, describe: 'Go on from the last checkpoint in --output' },
    prompt: { type: 'string', default: '', describe: 'What samples begin with' },
    ...settingOptions,
    name: { type: 'string', advanced: true, describe: 'Which model, where the file has several' },
    threads: { type: 'number', advanced: true, describe: 'Threads of the native program  [default: all]' },
    'eval-every': { type: 'number', advanced: true, describe: 'Steps between evaluations  [default: a tenth of all]' },
    'save-every': { type: 'number', advanced: true, describe: 'Steps between checkpoints  [default: a tenth of all]' },
    'sample-every': { type: 'number', advanced: true, describe: 'Steps between samples  [default: a tenth of all]' },
    'log-every': { type: 'number', advanced: true, describe: 'Steps between lines  [default: a fiftieth of all]' },
  },
  examples: [
    ['malc train -d input.txt -m nano', 'everything else is derived and shown'],
    ['malc train --resume -o runs/nano', 'goes on where that run stopped, bit for bit'],
  ],

  async run(args) {
    const { UserError } = await import('../../compiler/diagnostic.ts');
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { buildModel } = await import('../build.ts');
    const { NativeModel } = await import('../native.ts');
    const { prepare } = await import('../train/prepare.ts');
    const { Sampling } = await import('../train/samples.ts');

    for (const name of [...Object.keys(cadenceOptions), 'log-every', 'threads'])
      requirePositive(UserError, name, args[name]);
    const source =
      args.model === undefined ? undefined : readModel(args.model as string, args.name as string | undefined);
    for (const warning of source?.warnings ?? []) console.error(warning);
    const output = (args.output as string | undefined) ?? (source && `runs/${source.model.name}`);
    if (output === undefined) {
      throw new UserError(
        args.resume ? '--output is needed: the run to go on with' : '--model is needed: what to train',
      );
    }
    const prepared = prepare({
      source,
      data: args.data as readonly string[] | undefined,
      tokenizer: args.tokenizer as string | undefined,
      output,
      resume: args.resume as boolean,
      settings: givenSettings(args),
      cadence: givenCadence(args),
    });
    const { model, settings, corpus } = prepared;
    const sampling = new Sampling(args.prompt as string, corpus.tokenizer, model.max_seq_len, settings.seed);

    console.log(`building the native program of ${model.name} ...`);
    const build = await buildModel(model);
    const native = NativeModel.open(build.libraryPath, {
      maxBatch: settings['batch-size'],
      maxTime: settings['seq-len'],
      maxContext: sampling.contextLength,
      training: true,
      threads: args.threads as number | undefined,
    });
    try {
      const built = build.cached ? 'built before' : `built in ${build.seconds.toFixed(1)} s`;
      await showOpening(args, output, prepared, native, `${build.sourceFolder}, ${built}`);
      report(output, await trainIn(args, output, prepared, native, sampling, build.sourceFolder));
    } finally {
      native.close();
    }
  },
};

/** Opens the run folder, brings the model to where the run stands, and trains. */
async function trainIn(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  sampling: Sampling,
  sourceFolder: string,
): Promise<TrainResult> {
  const { StepLine } = await import('../show/step-line.ts');
  const { writeTokenizer } = await import('../tokenizer/json.ts');
  const { loadTraining } = await import('../train/checkpoint.ts');
  const { listenForInterrupts } = await import('../train/interrupt.ts');
  const loop = await import('../train/loop.ts');
  const { RunFolder } = await import('../train/run-folder.ts');

  const { settings, from, corpus, model } = prepared;
  const run = await RunFolder.open(output, { resume: args.resume as boolean });
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
    run.writeSources(sourceFolder);
    if (from) {
      loadTraining(run.checkpointPath(from.step), native);
      line.note(`resumed after step ${from.step}`);
    } else {
      run.writeModel(prepared.text, model, corpus.tokenizer.endOfText);
      writeTokenizer(`${output}/tokenizer.json`, corpus.tokenizer);
      await native.initialize(settings.seed);
    }
    return await loop.train({
      model: native,
      settings,
      training: prepared.training,
      validation: prepared.validation,
      run,
      from,
      origin: { data: corpus.paths, dataHash: corpus.hash, tokenizerHash: prepared.tokenizerHash },
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

function requirePositive(UserError: new (message: string) => Error, name: string, value: unknown): void {
  if (value === undefined || (Number.isSafeInteger(value) && (value as number) > 0)) return;
  throw new UserError(`--${name} is ${value}; a whole number of at least 1 is needed`);
}
