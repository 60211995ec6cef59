// What is tried before a long run, in a few seconds: that the program, the tokenizer and the disk do what hours of training
// will rely on. It leaves the model with other weights than it found; the caller initializes it afterwards.
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import type { NativeModel } from '../native.ts';
import { describeMemory } from '../show/quantities.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { loadTraining, removeCheckpoint, type TrainState, writeCheckpoint } from './checkpoint.ts';
import { usualUpdate } from './optimizers.ts';
import { type Settings, updateOf } from './settings.ts';

export interface SelfCheck {
  readonly model: NativeModel;
  readonly hiddenSize: number;
  readonly settings: Settings;
  /** One micro-batch of the training text, [batch][time]. */
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly tokenizer: Tokenizer;
  /** Lines of the training text. */
  readonly lines: readonly string[];
  /** The run folder, where a checkpoint is written, read and removed. */
  readonly folder: string;
  /** Gives the model the weights that the run begins with. */
  readonly begin: () => Promise<void>;
  /** Whether these are random, and all of them trained: what then is to be expected of the first steps is known. */
  readonly isFresh: boolean;
  /** What checkpoints of the run say of it. */
  readonly origin: Pick<TrainState, 'target' | 'data' | 'dataHash' | 'tokenizerHash'>;
}

/** What was found, in a few words; `warns` where it is unusual, and may be meant. */
export interface Finding {
  readonly text: string;
  readonly warns?: boolean;
}

/** Tokens of the text that causality and decoding are tried with. */
const POSITIONS = 32;
const OVERFITTING_STEPS = 100;
const OVERFITTING_SECONDS = 3;
/** The loss of one batch falls to this share at least. */
const OVERFITTED = 0.9;
/** A first loss that is further from that of guessing is worth a word. */
const NEAR = 0.1;
/** A larger state takes longer than a few seconds to write and read. */
const MOST_BYTES = 2 ** 31;
/** Largest relative difference (L2) of logits that are computed in another way, as `malc verify` has it. */
const TOLERANCE = { f32: 1e-4, bf16: 5e-2 } as const;

/**
 * Runs all checks.
 *
 * @throws UserError that says which failed, what that means, and that --no-self-check leaves it out.
 */
export async function selfCheck(check: SelfCheck): Promise<Finding[]> {
  await check.begin();
  return [
    checkTokenizer(check),
    await checkFirstLoss(check),
    await checkCausality(check),
    await checkDecoding(check),
    await checkLearning(check),
    await checkReload(check),
  ];
}

function fail(what: string, meaning: string): never {
  throw new UserError(`self-check: ${what}.\n${meaning}\n--no-self-check begins all the same.`);
}

function checkTokenizer({ tokenizer, lines }: SelfCheck): Finding {
  for (const line of lines) {
    const back = tokenizer.decode(tokenizer.encode(line));
    if (back !== line)
      fail(
        `the tokenizer does not give the text back: ${quote(line)} comes back as ${quote(back)}`,
        'The model would learn the changed text. Give a tokenizer that keeps it, or let malc learn one from it.',
      );
  }
  return { text: `${lines.length} lines come back from their tokens` };
}

const quote = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 59)}…` : text);

/**
 * At the beginning all tokens are about as likely as one another: the loss is the logarithm of their number. Weights that
 * were trained know better.
 */
async function checkFirstLoss({ model, settings, tokens, labels, isFresh }: SelfCheck): Promise<Finding> {
  const { loss } = await model.evaluate(tokens, labels, sizeOf(settings));
  const guessing = Math.log(model.vocabularySize);
  const text = `first loss ${loss.toFixed(3)}, guessing has ${guessing.toFixed(3)}`;
  if (!Number.isFinite(loss))
    fail(`the first loss is ${loss}`, 'The initial weights or a formula of the model give no number; see its `init`.');
  const away = isFresh ? Math.abs(loss - guessing) : loss - guessing;
  return { text, ...(away > NEAR * guessing && { warns: true }) };
}

const sizeOf = (settings: Settings) => ({ batch: settings['batch-size'], time: settings['seq-len'] });

/** What comes later must change no earlier prediction: it is what these are held against. */
async function checkCausality({ model, settings, tokens }: SelfCheck): Promise<Finding> {
  const time = Math.min(POSITIONS, settings['seq-len']);
  const kept = Math.ceil(time / 2);
  const text = tokens.slice(0, time);
  const changed = text.map((token, place) => (place < kept ? token : (token + 1) % model.vocabularySize));
  const [before, after] = [await logitsOf(model, text), await logitsOf(model, changed)];
  const length = kept * model.vocabularySize;
  const error = difference(before.subarray(0, length), after.subarray(0, length));
  if (error > TOLERANCE[settings.dtype])
    fail(
      `later tokens change the predictions before them (by ${error.toExponential(1)})`,
      'The model sees what it is to predict: its loss would fall to nothing, and it would write nonsense. A score or mask of its own may look ahead.',
    );
  return { text: 'no position sees a later one' };
}

/** Text is written token by token from a cache: that must be what was trained. */
async function checkDecoding({ model, settings, tokens }: SelfCheck): Promise<Finding> {
  const time = Math.min(POSITIONS, settings['seq-len'], model.options.maxContext);
  // One document, as a text that is written is.
  const { separator } = model.options;
  const text = tokens.slice(0, time).map(token => (token === separator ? (token + 1) % model.vocabularySize : token));
  const expected = await logitsOf(model, text);
  const first = Math.ceil(time / 2);
  let decoded: Float32Array = new Float32Array(0);
  for (let start = 0; start < time; ) {
    const count = start === 0 ? first : 1;
    const starts = Int32Array.of(start);
    decoded = await model.decode(text.slice(start, start + count), { batch: 1, time: count, starts });
    start += count;
  }
  const error = difference(expected.subarray(-model.vocabularySize), decoded);
  if (error > TOLERANCE[settings.dtype])
    fail(
      `a text that is decoded token by token gives other predictions than the whole of it (by ${error.toExponential(1)})`,
      'What the model writes would not be what it learned. This is a fault of malc; please report it with the model.',
    );
  return { text: 'decoding agrees with training' };
}

const logitsOf = (model: NativeModel, tokens: Int32Array): Promise<Float32Array> =>
  model.forward(tokens, { batch: 1, time: tokens.length });

/** Relative, in the Euclidean norm. */
function difference(expected: Float32Array, actual: Float32Array): number {
  let [square, all] = [0, 0];
  for (const [place, value] of expected.entries()) {
    square += (value - actual[place]!) ** 2;
    all += value ** 2;
  }
  return square === 0 ? 0 : Math.sqrt(square / all);
}

/** A model that cannot learn one batch by heart learns nothing from many. Of one that is partly frozen less is asked. */
async function checkLearning(check: SelfCheck): Promise<Finding> {
  const { model, hiddenSize, settings, tokens, labels, isFresh } = check;
  const share = isFresh ? OVERFITTED : 1;
  const began = performance.now();
  const isOver = () => performance.now() - began > OVERFITTING_SECONDS * 1000;
  const usual = usualUpdate(settings.optimizer, hiddenSize);
  const tried = { ...settings, ...usual, 'weight-decay': 0, 'grad-clip': 1 };
  let first = Number.NaN;
  let loss = Number.NaN;
  let step = 0;
  do {
    step += 1;
    const update = updateOf(tried, step, usual.lr);
    ({ loss } = await model.step(tokens, labels, { microBatches: 1, ...sizeOf(settings), update }));
    if (step === 1) first = loss;
  } while (step < 2 || (loss >= share * first && step < OVERFITTING_STEPS && !isOver()));
  const text = `one batch is learned: ${first.toFixed(3)} to ${loss.toFixed(3)} in ${step} steps`;
  // Of a large model no more than the direction is seen in so short a time.
  if (!(loss < share * first || (isOver() && loss < first)))
    fail(
      `the loss of one batch falls from ${first.toFixed(3)} to no less than ${loss.toFixed(3)} in ${step} steps`,
      'The model hardly learns. Norms, scales or initial weights may not fit its depth and width; see `init` and the norms.',
    );
  return { text };
}

/** What is saved must be what is read: bit for bit. */
async function checkReload({ model, settings, tokens, folder, origin }: SelfCheck): Promise<Finding> {
  const kept = model.options.averages ? 2 : 1;
  const numbers = model.parameters.map(({ shape, moments }) => shape.reduce((a, b) => a * b, kept + moments));
  const bytes = 4 * numbers.reduce((sum, count) => sum + count, 0);
  if (bytes > MOST_BYTES) return { text: `saving was not tried: the state has ${describeMemory(bytes)}`, warns: true };
  const text = tokens.slice(0, Math.min(POSITIONS, settings['seq-len']));
  const before = await logitsOf(model, text);
  // A name that a crash may leave: the next start in the folder removes it.
  const checkpoint = join(folder, `.self-check.${process.pid}.tmp`);
  const nothing = { step: 0, cursor: 0, validationLoss: null, lowest: null, journals: { metrics: 0, samples: 0 } };
  await writeCheckpoint(checkpoint, model, { ...nothing, settings, ...origin });
  await model.initialize(settings.seed + 1);
  loadTraining(checkpoint, model);
  await removeCheckpoint(checkpoint);
  const after = await logitsOf(model, text);
  if (!before.every((value, place) => value === after[place]))
    fail(
      `a model that was saved in ${folder} and read again predicts otherwise`,
      'Checkpoints cannot be trusted there. Try another disk; if it stays so, this is a fault of malc, please report it.',
    );
  return { text: `saved and read again, ${describeMemory(bytes)}` };
}
