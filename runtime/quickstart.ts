// The first run: text, tokenizer, model, native program and training, each told in a line, and what to do next.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, relative } from 'node:path';
import { countParameters } from '../compiler/check/count.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { packagePath } from '../compiler/package-files.ts';
import type { RunTarget } from '../compiler/targets/names.ts';
import { checkFolderWritable, makeFolder, writeFileAtomic } from './atomic-file.ts';
import { buildModel } from './build.ts';
import type { CudaDevice } from './cuda-device.ts';
import { writeStories } from './data/stories.ts';
import { NativeModel } from './native.ts';
import { paint } from './show/color.ts';
import { StepLine } from './show/step-line.ts';
import { writeTokenizer } from './tokenizer/json.ts';
import { type Observer, train } from './train/loop.ts';
import { type Prepared, prepare } from './train/prepare.ts';
import { RunFolder } from './train/run-folder.ts';
import { requireIdle } from './train/run-mark.ts';
import { Sampling } from './train/samples.ts';

const MODEL = 'mal/examples/01-stories.mal';
const STORIES = 'stories.txt';
const STORY_BYTES = 2_000_000;
const SEED = 1;
const PROMPT = 'Once upon a time';
/** What two cores do in about three quarters of a minute. */
const STEPS = 600;
const SETTINGS = { steps: STEPS, 'batch-size': 8, 'seq-len': 128, warmup: 20, 'validation-share': 0.05, seed: SEED };
const LINES = 15;
const SAMPLES = 5;

/** What it runs on. */
interface Place {
  readonly target: RunTarget;
  readonly device: CudaDevice | null;
}

/**
 * Trains the first example in `folder`, replacing an earlier quickstart there, and prints how it goes.
 *
 * @throws UserError where the folder holds something else.
 */
export async function runQuickstart(folder: string, place: Place): Promise<void> {
  const replaced = clear(folder);
  console.log(paint('bold', 'A story teller from nothing, in about a minute.\n'));
  if (replaced) tell('output', 'replaces an earlier quickstart', folder);
  makeFolder(folder);
  const stories = join(folder, STORIES);
  const text = writeStories(SEED, STORY_BYTES);
  writeFileAtomic(stories, text);
  tell('text', `${(text.length / 1e6).toFixed(1)} MB of small stories, written by a grammar`, stories);

  const source = readModel(packagePath(MODEL));
  const every = STEPS / SAMPLES;
  const prepared = await prepare({
    source,
    data: [stories],
    output: folder,
    resume: false,
    target: place.target,
    settings: SETTINGS,
    cadence: { evaluate: every, sample: every, save: STEPS },
  });
  const { model, corpus } = prepared;
  const tokens = corpus.training.length + corpus.validation.length;
  const bytesEach = (text.length / tokens).toFixed(1);
  tell('tokenizer', `${number(model.vocab_size)} tokens learned from it, ${bytesEach} bytes each`);
  const size = `${model.layers.length} layers, ${model.hidden_size} wide, ${number(countParameters(model).total)} parameters`;
  tell('model', size, shortest(source.path));
  const { target } = place;
  const build = await buildModel(model, { target, dtype: prepared.settings.dtype });
  const language = target === 'cpu' ? 'C' : `CUDA C++ for ${place.device?.name ?? 'the emulator'}`;
  tell(
    'program',
    build.cached ? `${language}, built before` : `${language}, built in ${build.seconds.toFixed(1)} s`,
    shortest(build.sourceFolder),
  );
  console.log();

  const story = await trainIn(folder, prepared, place, build.libraryPath);
  if (story === null) {
    console.log(`\nSaved. Go on with: ${paint('cyan', `npx malc train --resume -o ${folder}`)}`);
    process.exitCode = 130;
    return;
  }
  console.log(`\n${paint('bold', 'What it writes now')}\n${wrapped(story)}`);
  sayWhatIsNext(folder, join(build.sourceFolder, target === 'cpu' ? 'model.c' : 'model.cu'));
}

/** Trains and shows it. Returns the last text that the model wrote; null where Ctrl-C came first. */
async function trainIn(
  folder: string,
  prepared: Prepared,
  { target, device }: Place,
  libraryPath: string,
): Promise<string | null> {
  const { settings, corpus, model } = prepared;
  const { 'batch-size': batch, 'grad-accum': accumulation, 'seq-len': time } = settings;
  const sampling = new Sampling(PROMPT, corpus.tokenizer, model.max_seq_len, SEED);
  const native = NativeModel.open(libraryPath, {
    maxBatch: batch,
    maxTime: time,
    maxContext: sampling.contextLength,
    training: true,
    device,
  });
  const run = await RunFolder.open(folder, { resume: false });
  const line = new StepLine(process.stdout, {
    steps: STEPS,
    start: 0,
    logEvery: STEPS / LINES,
    tokensPerStep: batch * accumulation * time,
  });
  let lastSample = '';
  const observer: Observer = {
    step: record => line.step(record),
    sample(step, text) {
      lastSample = text;
      if (step < STEPS) line.sample(text);
    },
    saved() {},
  };
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt);
  try {
    run.writeModel(prepared.text, model, corpus.tokenizer.endOfText);
    writeTokenizer(join(folder, 'tokenizer.json'), corpus.tokenizer);
    await native.initialize(SEED);
    const { ending } = await train({
      model: native,
      settings,
      training: prepared.training,
      validation: prepared.validation,
      run,
      from: null,
      origin: { target, data: corpus.paths, dataHash: corpus.hash, tokenizerHash: prepared.tokenizerHash },
      cadence: prepared.cadence,
      patience: null,
      sample: () => sampling.write(native),
      observer,
      stop: stop.signal,
    });
    return ending === 'interrupted' ? null : lastSample;
  } finally {
    process.off('SIGINT', interrupt);
    run.close();
    native.close();
  }
}

/** Removes an earlier quickstart that is at its end, and nothing else; true where there was one. */
function clear(folder: string): boolean {
  checkFolderWritable(folder);
  if (!existsSync(folder) || readdirSync(folder).length === 0) return false;
  if (!existsSync(join(folder, STORIES))) {
    throw new UserError(`${folder} holds something that no quickstart wrote; choose another folder with --output`);
  }
  requireIdle(folder);
  rmSync(folder, { recursive: true });
  return true;
}

function tell(name: string, what: string, place = ''): void {
  console.log(`  ${name.padEnd(11)}${what.padEnd(48)}${paint('dim', place)}`.trimEnd());
}

function sayWhatIsNext(folder: string, source: string): void {
  const next = [
    [`npx malc generate -c ${folder} -p "${PROMPT}"`, 'let it write'],
    [`npx malc train -m ${shortest(packagePath(MODEL))} -d your.txt -o runs/mine`, 'train it on a text of yours'],
    [`less ${shortest(source)}`, 'read the program that did it'],
  ] as const;
  console.log(`\n${paint('bold', 'Next')}`);
  for (const [command, does] of next) console.log(`  ${does}:\n    ${paint('cyan', command)}`);
}

/** A path as one would type it: from the folder one is in, or from one's home. */
function shortest(path: string): string {
  const fromHere = relative('', path);
  if (!fromHere.startsWith('..')) return fromHere;
  return path.startsWith(`${homedir()}/`) ? `~${path.slice(homedir().length)}` : path;
}

/** A text as indented lines of at most 90 characters. */
function wrapped(text: string): string {
  const paragraphs = text.trim().split(/\n+/);
  return paragraphs
    .map(paragraph => paragraph.replace(/(.{1,88})(?:\s+|$)/g, '  $1\n'))
    .join('')
    .trimEnd();
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}
