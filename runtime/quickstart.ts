// The first run: text, tokenizer, model, native program and training, each told in a line, and what to do next.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { countParameters } from '../compiler/check/count.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { packagePath } from '../compiler/package-files.ts';
import { writeFileAtomic } from './atomic-file.ts';
import { buildModel } from './build.ts';
import { Batches, ValidationBatches } from './data/batches.ts';
import { writeStories } from './data/stories.ts';
import { NativeModel } from './native.ts';
import { paint } from './show/color.ts';
import { StepLine } from './show/step-line.ts';
import { tokenizerHash, writeTokenizer } from './tokenizer/json.ts';
import { type Corpus, readCorpus } from './train/corpus.ts';
import { deriveSettings } from './train/derive.ts';
import { train } from './train/loop.ts';
import { RunFolder } from './train/run-folder.ts';
import { Sampling } from './train/samples.ts';
import type { Settings } from './train/settings.ts';

const MODEL = 'mal/examples/01-stories.mal';
const STORIES = 'stories.txt';
const STORY_BYTES = 2_000_000;
const SEED = 1;
const PROMPT = 'Once upon a time';
/** What two cores do in about three quarters of a minute. */
const LENGTH = { steps: 300, 'batch-size': 8, 'seq-len': 128, warmup: 20, 'validation-share': 0.05, seed: SEED };
const SAMPLES = 5;
const LINES = 20;

/**
 * Trains the first example in `folder`, replacing an earlier quickstart there, and prints how it goes.
 *
 * @throws UserError where the folder holds something else.
 */
export async function runQuickstart(folder: string): Promise<void> {
  clear(folder);
  console.log(`${paint('bold', 'A story teller from nothing, in about a minute.')}\n`);

  const stories = join(folder, STORIES);
  const text = writeStories(SEED, STORY_BYTES);
  mkdirSync(folder, { recursive: true });
  writeFileAtomic(stories, text);
  tell('text', `${(text.length / 1e6).toFixed(1)} MB of small stories that a grammar wrote`, stories);

  const example = readModel(packagePath(MODEL));
  const corpus = readCorpus([stories], {
    validationShare: LENGTH['validation-share'],
    tokenizer: null,
    vocabularySize: example.model.vocab_size,
  });
  const model = { ...example.model, vocab_size: corpus.tokenizer.vocabularySize };
  const tokens = corpus.training.length + corpus.validation.length;
  tell('tokenizer', `${number(model.vocab_size)} tokens, learned from it`, join(folder, 'tokenizer.json'));
  tell('tokens', `${number(tokens)}, ${(text.length / tokens).toFixed(1)} bytes each`);
  const size = `${model.layers.length} layers, ${model.hidden_size} wide, ${number(countParameters(model).total)} parameters`;
  tell('model', size, relative('', example.path));

  const { settings } = deriveSettings(LENGTH, null, model, time => batchesOf(corpus, time, 1).samplesPerEpoch);
  const sampling = new Sampling(PROMPT, corpus.tokenizer, model.max_seq_len, SEED);
  const build = await buildModel(model);
  const native = NativeModel.open(build.libraryPath, {
    maxBatch: settings['batch-size'],
    maxTime: settings['seq-len'],
    maxContext: sampling.contextLength,
    training: true,
  });
  tell('program', build.cached ? 'C, built before' : `C, built in ${build.seconds.toFixed(1)} s`, build.sourceFolder);
  console.log();

  const run = await RunFolder.open(folder, { resume: false });
  try {
    run.writeModel(example.text, model, corpus.tokenizer.endOfText);
    writeTokenizer(join(folder, 'tokenizer.json'), corpus.tokenizer);
    await native.initialize(SEED);
    const interrupted = await trainOn({ native, run, corpus, settings, sampling });
    if (interrupted) {
      console.log(`\nSaved. To go on: ${paint('cyan', `npx malc train --resume -o ${folder}`)}`);
      process.exitCode = 130;
    } else {
      sayWhatIsNext(folder, build.sourceFolder);
    }
  } finally {
    run.close();
    native.close();
  }
}

interface Training {
  readonly native: NativeModel;
  readonly run: RunFolder;
  readonly corpus: Corpus;
  readonly settings: Settings;
  readonly sampling: Sampling;
}

/** Trains and shows it; true where Ctrl-C ended it early. */
async function trainOn({ native, run, corpus, settings, sampling }: Training): Promise<boolean> {
  const { steps, 'batch-size': batch, 'grad-accum': accumulation, 'seq-len': time } = settings;
  const logEvery = Math.round(steps / LINES);
  const tokensPerStep = batch * accumulation * time;
  const line = new StepLine(process.stdout, { steps, start: 0, logEvery, tokensPerStep });
  const interruption = new AbortController();
  const interrupt = () => interruption.abort();
  process.once('SIGINT', interrupt);
  try {
    const every = Math.round(steps / SAMPLES);
    const { interrupted } = await train({
      model: native,
      settings,
      training: batchesOf(corpus, time, batch * accumulation),
      validation: new ValidationBatches(corpus.validation, { batch, time }),
      run,
      from: null,
      origin: { data: corpus.paths, dataHash: corpus.hash, tokenizerHash: tokenizerHash(corpus.tokenizer) },
      cadence: { evaluate: every, save: steps, saveSeconds: Number.POSITIVE_INFINITY, sample: every },
      sample: () => sampling.write(native),
      observer: { step: record => line.step(record), sample: (_, text) => line.sample(text), saved: () => {} },
      stop: interruption.signal,
    });
    return interrupted;
  } finally {
    process.removeListener('SIGINT', interrupt);
  }
}

function batchesOf(corpus: Corpus, time: number, batch: number): Batches {
  return new Batches(corpus.training, { batch, time, seed: SEED });
}

/** Removes an earlier quickstart, and nothing else. */
function clear(folder: string): void {
  if (!existsSync(folder) || readdirSync(folder).length === 0) return;
  if (!existsSync(join(folder, STORIES))) {
    throw new UserError(`${folder} holds something that no quickstart wrote; choose another folder with --output`);
  }
  rmSync(folder, { recursive: true });
  console.log(paint('dim', `The quickstart in ${folder} is replaced.`));
}

function tell(name: string, what: string, place = ''): void {
  console.log(`  ${name.padEnd(11)}${what.padEnd(50)}${paint('dim', place)}`.trimEnd());
}

function sayWhatIsNext(folder: string, sources: string): void {
  const next = [
    [`npx malc generate -c ${folder} -p "${PROMPT}"`, 'lets it write'],
    [`npx malc train -m ${relative('', packagePath(MODEL))} -d your.txt -o runs/mine`, 'trains it on a text of yours'],
    [`less ${join(sources, 'model.c')}`, 'the program that did it'],
  ] as const;
  console.log(`\n${paint('bold', 'Next')}`);
  for (const [command, does] of next) console.log(`  ${paint('cyan', command)}\n      ${does}`);
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}
