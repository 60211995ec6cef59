// malc train: from a model, a text and a few numbers to a trained model in a run folder.
import { fstatSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Model } from '../../compiler/check/model.ts';
import { anyOrderOption, autotuneOption, checkAnyOrder, requireTunable, tellTuning } from '../autotune-option.ts';
import { collectGarbage } from '../garbage.ts';
import type { Unbatched } from '../train/prepare.ts';
import type { StartingWeights } from '../train/starting-weights.ts';
import { type Command, UsageError } from './command.ts';
import { configOptions } from './config-words.ts';
import { dataOption, documentOptions } from './data.ts';
import { readRecompute, recomputeOption } from './recompute-option.ts';
import { chooseTarget, targetOption } from './target-option.ts';
import { advanced, givenCadence, givenSettings, habits, settingOptions, usuallyKept } from './train-options.ts';
import { buildOptions, fitBatchOf, openOptions } from './train-program.ts';
import { loadRunModules, trainIn } from './train-run.ts';
import { type Stage, terminal } from './train-stage.ts';

export const train = {
  name: 'train',
  describe: 'Train a model on text files',
  options: {
    model: { type: 'string', alias: 'm', describe: 'A .mal file, or the name of a well-known model' },
    data: dataOption,
    ...documentOptions,
    output: { type: 'string', alias: 'o', describe: 'The run folder to write', whenAbsent: 'runs/MODEL' },
    resume: { type: 'boolean', default: false, describe: 'Go on from the last checkpoint in --output' },
    checkpoint: {
      type: 'string',
      describe: 'Weights to begin with: a run, a folder of transformers, a .safetensors file',
    },
    tokenizer: { type: 'string', alias: 't', describe: 'A tokenizer.json', whenAbsent: 'learned from the text' },
    target: targetOption,
    ...settingOptions,
    'dry-run': { type: 'boolean', default: false, describe: 'Show what the run will take, and write nothing' },
    'self-check': {
      type: 'boolean',
      default: true,
      describe: 'Try model, tokenizer and disk before the first step; --no-self-check does not',
    },
    prompt: { type: 'string', describe: 'What the samples begin with', whenAbsent: 'nothing' },
    'eval-every': advanced('count', 'Steps between evaluations', 'a tenth of all'),
    'save-every': advanced('count', 'Steps between checkpoints', 'a tenth of all, at least 100'),
    'save-minutes': advanced('aboveZero', 'Minutes after which one is saved in any case', '15'),
    keep: advanced('count', 'Checkpoints that stay, besides the best', `${usuallyKept}`),
    patience: advanced('count', 'Evaluations without a new lowest loss that end the run', 'any number'),
    'sample-every': advanced('count', 'Steps between samples', 'a tenth of all'),
    'log-every': advanced('count', 'Steps between lines', 'a fiftieth of all'),
    autotune: {
      type: 'boolean',
      advanced: true,
      describe: autotuneOption.describe,
      whenAbsent: 'as the cost model says',
    },
    recompute: { ...recomputeOption, advanced: true, whenAbsent: 'none' },
    'any-order': { ...anyOrderOption, advanced: true },
    threads: advanced('threads', 'Threads of the native program', 'all'),
    'num-gpus': advanced('count', 'GPUs of a run; malc trains on one so far', '1'),
    name: { type: 'string', advanced: true, describe: 'Which model, where the file has several' },
    ...configOptions,
  },
  examples: [
    ['malc train -m nano -d input.txt', 'derive everything else, and show it'],
    ['malc train -m nano -d hf:roneneldan/TinyStories', 'a data set of Hugging Face, kept in the cache'],
    ['malc train -m nano -d wiki.jsonl:0.7 code.txt:0.3', 'a mixture: seven samples of ten are from wiki.jsonl'],
    ['malc train --resume -o runs/nano', 'go on where that run stopped, bit for bit'],
    ['malc train -m gpt2-small -d input.txt --target cuda', 'on an NVIDIA GPU, in bfloat16'],
  ],

  async run(words, stage: Stage = terminal) {
    const readsInput = words.data === undefined && !words.resume && isPiped();
    const given = readsInput ? { ...words, data: ['-'] } : words;
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { buildModel } = await import('../build.ts');
    const { NativeModel } = await import('../native.ts');
    const { prepare } = await import('../train/prepare.ts');
    const { RunFolder, readOptions } = await import('../train/run-folder.ts');
    const { Sampling } = await import('../train/samples.ts');
    const { Skipped } = await import('../data/documents/skipped.ts');
    const { DataLine } = await import('../show/data-line.ts');

    checkTogether(given);
    if (readsInput) stage.tell('reading the text from standard input, as no --data is given');
    const { openStartingWeights, warningOfTokenizer } = await import('../train/starting-weights.ts');
    const weights = given.checkpoint === undefined ? undefined : openStartingWeights(given.checkpoint as string);
    const read =
      given.model === undefined ? undefined : readModel(given.model as string, given.name as string | undefined);
    for (const warning of read?.warnings ?? []) stage.warn(warning);
    const source = read ?? (weights && sourceOf(weights));
    const output = (given.output as string | undefined) ?? `runs/${source!.model.name}`;
    const before = given.resume ? Object.entries(readOptions(output)).filter(([name]) => habits.includes(name)) : [];
    const args = { ...Object.fromEntries(before), ...given };
    const chosen = await chooseTarget(args, RunFolder.peek(output, args.resume as boolean)?.target);
    const { target, device } = chosen;
    checkAnyOrder(args, target);
    // Before the text is read, which may take minutes.
    readRecompute(args.recompute as string | undefined);
    const fit = (run: Unbatched) => {
      stage.tell(`building the native program of ${run.model.name}, which knows what a batch takes ...`);
      return fitBatchOf(run, args, chosen);
    };
    const skipped = new Skipped(stage.warn);
    const progress = new DataLine(process.stderr);
    const prepared = await prepare({
      source,
      target,
      data: args.data as readonly string[] | undefined,
      tokenizer: args.tokenizer as string | undefined,
      textField: args['text-field'] as string | undefined,
      onSkipped: args.strict ? undefined : skipped.tell,
      onProgress: progress.tell,
      output,
      resume: args.resume as boolean,
      settings: givenSettings(args),
      weights,
      fitBatch: args['batch-size'] === 'auto' ? fit : undefined,
      cadence: givenCadence(args),
    }).finally(progress.clear);
    skipped.report();
    const { model, settings, corpus, frozen } = prepared;
    if (frozen.length > 0 && !weights && !prepared.from) stage.warn(frozenAtRandom);
    const otherTokenizer = weights && args.tokenizer ? warningOfTokenizer(weights, prepared.tokenizerHash) : null;
    if (otherTokenizer !== null) stage.warn(otherTokenizer);
    const isDerived = args.steps === undefined && args['tokens-per-step'] === undefined && !prepared.from;
    if (args['batch-size'] === 'auto' && isDerived && settings.steps < FEW_STEPS)
      stage.warn(
        `warning: the largest batch leaves a run of ${settings.steps} update(s); --tokens-per-step makes them smaller`,
      );
    if (args.patience !== undefined && prepared.validation === null)
      throw new UsageError('--patience waits for the validation loss, and --validation-share 0 leaves none');
    if ((model.embeddings.role_embeddings ?? 1) > 1) stage.warn(rolesUntrained);
    if (!stage.prepared(prepared)) return;
    const sampling = new Sampling(
      (args.prompt as string | undefined) ?? '',
      corpus.tokenizer,
      model.max_seq_len,
      settings.seed,
    );

    stage.tell(`building the native program of ${model.name} ...`);
    const tuneHere = async () => {
      const { tune } = await import('../tuning.ts');
      const threads = (args.threads as number | undefined) ?? availableParallelism();
      const [batch, time] = [settings['batch-size'], settings['seq-len']];
      const anyOrder = args['any-order'] === true;
      const masksDocuments = settings['mask-documents'];
      const request = { model, dtype: settings.dtype, batch, time, threads, frozen, masksDocuments, anyOrder };
      return await tune({ ...request, onStart: tellTuning }, device);
    };
    if (args.autotune) requireTunable(settings.dtype, target);
    const tuning = args.autotune ? { tune: tuneHere } : {};
    const build = await buildModel(model, { ...(await buildOptions(prepared, args, chosen)), ...tuning });
    const native = NativeModel.open(build.libraryPath, openOptions(prepared, args, chosen, sampling.contextLength));
    try {
      const built = build.cached ? 'built before' : `built in ${build.seconds.toFixed(1)} s`;
      await loadRunModules();
      // What it took to come this far would be in the run's memory for long, more of it or less.
      collectGarbage();
      await stage.opening(args, output, prepared, native, chosen, `${build.sourceFolder}, ${built}`);
      if (args['dry-run']) {
        const keep = (args.keep as number | undefined) ?? usuallyKept;
        await stage.forecast(prepared, native, sampling, build.plan.kept, keep);
        return;
      }
      const result = await trainIn(args, output, prepared, native, sampling, target, build.sourceFolder, stage);
      stage.report(output, prepared, result);
    } finally {
      native.close();
    }
  },
} satisfies Command;

/** Fewer updates teach a model little, however large. */
const FEW_STEPS = 100;

const rolesUntrained =
  'warning: the text says no roles, so that every token has role 0: of `role_embeddings`, only row 0 trains';

const frozenAtRandom = 'warning: what is frozen stays random; --checkpoint gives weights to begin with';

/** The model that weights say they are of. */
function sourceOf({ path, model, text }: StartingWeights): { model: Model; text: string } {
  if (model !== null && text !== null) return { model, text };
  throw new UsageError(`--model is needed: ${path} has no MAL file of the model whose weights it holds`);
}

/** Whether somebody gives text to standard input, which then needs no `--data -`. */
function isPiped(): boolean {
  const input = fstatSync(0);
  return input.isFIFO() || input.isFile();
}

/** Refuses options that are nothing without another, or contradict one. */
function checkTogether(args: Readonly<Record<string, unknown>>): void {
  const gpus = (args['num-gpus'] as number | undefined) ?? 1;
  if (gpus > 1)
    throw new UsageError(
      `--num-gpus is ${gpus}, and malc trains on one GPU so far; leave it out, and for as large an update give ` +
        `--grad-accum ${gpus * ((args['grad-accum'] as number | undefined) ?? 1)}`,
    );
  const lengths = ['steps', 'epochs', 'tokens'].filter(name => args[name] !== undefined).map(name => `--${name}`);
  if (lengths.length > 1) throw new UsageError(`${lengths.join(' and ')} both say how long to train; give one of them`);
  if (args['grad-accum'] !== undefined && args['tokens-per-step'] !== undefined) {
    throw new UsageError('--grad-accum and --tokens-per-step both say how much an update takes; give one of them');
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
    if (args[name] === undefined && !(name === 'model' && args.checkpoint !== undefined))
      throw new UsageError(`--${name} is needed: ${what}`);
  }
}
