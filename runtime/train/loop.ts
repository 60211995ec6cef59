// The training loop: steps, evaluations, samples and checkpoints. It knows neither the command line nor the terminal: what
// happens is told to an observer, and stopping is asked for by a signal.
import { UserError } from '../../compiler/diagnostic.ts';
import { WriteError } from '../atomic-file.ts';
import type { NativeFloats, NativeModel } from '../native.ts';
import type { TrainState } from './checkpoint.ts';
import type { StepRecord } from './metrics.ts';
import type { RunFolder } from './run-folder.ts';
import { learningRateAt } from './schedule.ts';
import { type Settings, scheduleOf, updateOf } from './settings.ts';

/** Training samples by number, from 0 without end: `fill` writes one step's worth of them, [sequence][time], from `index` on. */
export interface TrainingSamples {
  fill(index: number, tokens: Int32Array, labels: Int32Array): void;
}

/** The micro-batches [first, end) of validation samples, which come from one source. */
export interface ValidationPart {
  readonly name: string;
  /** Of the source in what is trained on. */
  readonly share: number;
  readonly first: number;
  readonly end: number;
}

/** A fixed number of micro-batches, [batch][time], for validation. */
export interface ValidationSamples {
  readonly count: number;
  /** By source, all micro-batches in order; absent where there is one source. */
  readonly parts?: readonly ValidationPart[];
  /** Of the validation text, in UTF-8; absent where nobody knows. */
  readonly bytesPerToken?: number;
  fill(index: number, tokens: Int32Array, labels: Int32Array): void;
}

export interface Cadence {
  /** Evaluate after every so many steps; the last step always is. Likewise the others. */
  readonly evaluate: number;
  readonly save: number;
  /** Also save when the last checkpoint is this old. */
  readonly saveMinutes: number;
  readonly sample: number;
}

/** What the loop tells as it goes. */
export interface Observer {
  step(record: StepRecord): void;
  sample(step: number, text: string): void;
  saved(step: number, folder: string): void;
}

export interface TrainOptions {
  readonly model: NativeModel;
  readonly settings: Settings;
  readonly training: TrainingSamples;
  /** Null for no validation. */
  readonly validation: ValidationSamples | null;
  readonly run: RunFolder;
  /** Where the model stands: null at its initial weights, otherwise the state whose weights and moments it has. */
  readonly from: TrainState | null;
  /** What else a checkpoint's state says. */
  readonly origin: Pick<TrainState, 'target' | 'data' | 'dataHash' | 'tokenizerHash'>;
  readonly cadence: Cadence;
  /** Evaluations without a new lowest loss after which training ends; null for never. */
  readonly patience: number | null;
  /** Writes a text with the model as it is; null for no samples. */
  readonly sample: (() => Promise<string>) | null;
  readonly observer: Observer;
  /** Aborted: the step is finished, a checkpoint saved, and the loop returns. */
  readonly stop: AbortSignal;
}

export interface TrainResult {
  /** Updates done. */
  readonly step: number;
  /** Of the last evaluation; null where there was none. */
  readonly validationLoss: number | null;
  /** Of the averages of the weights, then; null where none are kept or there was no evaluation. */
  readonly averagedLoss: number | null;
  /** Why it ended: all steps are done, somebody asked for it, or the loss no longer fell. */
  readonly ending: 'done' | 'interrupted' | 'patience';
}

/**
 * Trains up to `settings.steps` updates. The same options from the same state give the same weights, bit for bit, however
 * often the run was stopped and resumed.
 *
 * @throws UserError where the loss or the gradient's norm is no longer finite, or where the disk is full; the last
 *   checkpoint is then untouched.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const saved = { step: options.from?.step ?? 0 };
  try {
    return await trainSteps(options, saved);
  } catch (error) {
    throw error instanceof WriteError ? unwritable(error, options.run.path, saved.step) : error;
  }
}

/** @param saved the last checkpoint's step, kept up to date */
async function trainSteps(options: TrainOptions, saved: { step: number }): Promise<TrainResult> {
  const { model, settings, training, run, from, cadence, observer, stop } = options;
  const samplesPerStep = settings['batch-size'] * settings['grad-accum'];
  const tokens = new Int32Array(samplesPerStep * settings['seq-len']);
  const labels = new Int32Array(tokens.length);
  let validationLoss = from?.validationLoss ?? null;
  let averagedLoss: number | null = null;
  let lowest = from?.lowest ?? null;
  let cursor = from?.cursor ?? 0;
  let savedAt = performance.now();
  const hasLostPatience = () =>
    options.patience !== null && lowest !== null && lowest.evaluationsAgo >= options.patience;
  // A run that ended so is no longer when it is resumed with the same patience.
  if (hasLostPatience()) return { step: saved.step, validationLoss, averagedLoss, ending: 'patience' };

  for (let step = saved.step; step < settings.steps; ) {
    training.fill(cursor, tokens, labels);
    cursor += samplesPerStep;
    const learningRate = learningRateAt(scheduleOf(settings), step);
    const started = performance.now();
    const { loss, gradientNorm, auxiliary } = await model.step(tokens, labels, {
      microBatches: settings['grad-accum'],
      batch: settings['batch-size'],
      time: settings['seq-len'],
      update: updateOf(settings, step + 1, learningRate),
    });
    const seconds = (performance.now() - started) / 1000;
    step += 1;
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      const culprit = firstNonFinite(model);
      // A norm that is not finite has moved nothing: the weights are those of the step before.
      const isSound = !Number.isFinite(gradientNorm) && culprit?.kind !== 'parameter';
      if (isSound && saved.step < step - 1) {
        const before = { step: step - 1, cursor: cursor - samplesPerStep, settings, ...options.origin };
        await run.save(model, { ...before, validationLoss: null, lowest });
        saved.step = step - 1;
      }
      throw diverged(step, { loss, gradientNorm }, culprit, saved.step, run);
    }

    const due = (every: number) => step % every === 0 || step === settings.steps;
    const evaluated = options.validation !== null && due(cadence.evaluate);
    let evaluation: Evaluation | null = null;
    if (evaluated) {
      const measure = () => evaluate(model, options.validation!, settings);
      evaluation = await measure();
      validationLoss = evaluation.loss;
      if (settings.ema > 0) averagedLoss = (await model.withAverages(measure)).loss;
      lowest = lowestOf(lowest, validationLoss);
    }
    const record: StepRecord = {
      step,
      loss,
      ...(auxiliary !== 0 && { auxiliary_loss: auxiliary }),
      ...(evaluation && validationOf(evaluation, options.validation)),
      ...(evaluation && averagedLoss !== null && { averaged_validation_loss: averagedLoss }),
      gradient_norm: gradientNorm,
      learning_rate: learningRate,
      tokens: step * tokens.length,
      seconds,
      // Of a device with memory of its own, that: nothing is allocated there while it trains.
      memory_bytes: model.options.device ? model.bytes : process.memoryUsage.rss(),
    };
    run.metrics.append(`${JSON.stringify(record)}\n`);
    observer.step(record);

    if (options.sample && due(cadence.sample)) {
      const text = await options.sample();
      run.samples.append(`## step ${step}\n\n${text}\n\n`);
      observer.sample(step, text);
    }

    const lostPatience = hasLostPatience();
    const old = performance.now() - savedAt >= cadence.saveMinutes * 60_000;
    if (due(cadence.save) || old || stop.aborted || lostPatience) {
      await run.save(model, {
        step,
        cursor,
        settings,
        ...options.origin,
        validationLoss: evaluated ? validationLoss : null,
        lowest,
      });
      saved.step = step;
      savedAt = performance.now();
      observer.saved(step, run.checkpointPath(step));
    }
    if (step === settings.steps) break;
    if (lostPatience) return { step, validationLoss, averagedLoss, ending: 'patience' };
    if (stop.aborted) return { step, validationLoss, averagedLoss, ending: 'interrupted' };
  }
  return { step: settings.steps, validationLoss, averagedLoss, ending: 'done' };
}

/** The lowest loss of all evaluations, after another one. */
function lowestOf(before: TrainState['lowest'], loss: number): NonNullable<TrainState['lowest']> {
  if (before === null || loss < before.loss) return { loss, evaluationsAgo: 0 };
  return { ...before, evaluationsAgo: before.evaluationsAgo + 1 };
}

/** What a record says of an evaluation: nats a token and, as tokenizers differ in their tokens, bits a byte. */
function validationOf({ loss, losses }: Evaluation, samples: ValidationSamples | null) {
  const bytes = samples?.bytesPerToken;
  return {
    validation_loss: loss,
    ...(losses && { validation_losses: losses }),
    ...(bytes !== undefined && { validation_bits_per_byte: loss / Math.LN2 / bytes }),
  };
}

/** Losses in nats. */
interface Evaluation {
  /** Of each source the mean over its scored positions; of several sources, their mean by their shares. */
  readonly loss: number;
  /** Of each source by its name; null where there is one. */
  readonly losses: Readonly<Record<string, number>> | null;
}

/** The loss of the validation samples. */
export async function evaluate(
  model: NativeModel,
  samples: ValidationSamples,
  size: Pick<Settings, 'batch-size' | 'seq-len'>,
): Promise<Evaluation> {
  const { parts } = samples;
  if (!parts) return { loss: await meanLoss(model, samples, size, 0, samples.count), losses: null };
  let loss = 0;
  const losses: Record<string, number> = {};
  for (const { name, share, first, end } of parts) {
    losses[name] = await meanLoss(model, samples, size, first, end);
    loss += share * losses[name];
  }
  return { loss, losses };
}

/** The mean over all scored positions of the micro-batches [first, end). */
async function meanLoss(
  model: NativeModel,
  samples: ValidationSamples,
  { 'batch-size': batch, 'seq-len': time }: Pick<Settings, 'batch-size' | 'seq-len'>,
  first: number,
  end: number,
): Promise<number> {
  const tokens = new Int32Array(batch * time);
  const labels = new Int32Array(batch * time);
  let sum = 0;
  let scored = 0;
  for (let index = first; index < end; index++) {
    samples.fill(index, tokens, labels);
    const result = await model.evaluate(tokens, labels, { batch, time });
    sum += result.loss * result.scored;
    scored += result.scored;
  }
  return sum / scored;
}

function unwritable(error: WriteError, folder: string, savedStep: number): WriteError {
  const stands =
    savedStep > 0
      ? `Everything up to step ${savedStep} is saved; go on from there with: malc train --resume -o ${folder}`
      : 'There is no checkpoint yet.';
  return new WriteError(`${error.message}\n${stands}`);
}

function diverged(
  step: number,
  values: { loss: number; gradientNorm: number },
  culprit: NonFinite | null,
  savedStep: number,
  run: RunFolder,
): UserError {
  const kept =
    savedStep === 0
      ? 'There is no checkpoint yet.'
      : `${savedStep === step - 1 ? 'The step before it is saved' : 'The last good checkpoint'}: ${run.checkpointPath(savedStep)}.`;
  return new UserError(
    `step ${step}: the loss is ${values.loss} and the gradient's norm ${values.gradientNorm}.\n` +
      `${culprit ? `The first tensor that is not finite is ${culprit.text}.` : 'All gradients and weights are finite.'}\n` +
      `${kept}\nTry a lower --lr, a longer --warmup or a smaller --grad-clip, in a new --output.`,
  );
}

interface NonFinite {
  readonly kind: 'gradient' | 'parameter';
  readonly text: string;
}

/** The first parameter, or else the first gradient, that holds a NaN or an infinity, and where in it. */
function firstNonFinite(model: NativeModel): NonFinite | null {
  const find = (kind: NonFinite['kind'], what: string, values: NativeFloats | null): NonFinite | null => {
    const index = values?.findIndex(value => !Number.isFinite(value)) ?? -1;
    return index < 0 ? null : { kind, text: `${what} (${values![index]} at element ${index} of ${values!.length})` };
  };
  for (const { name, data } of model.parameters) {
    const found = find('parameter', `the parameter ${name}`, data);
    if (found) return found;
  }
  for (const { name, gradient } of model.parameters) {
    const found = find('gradient', `the gradient of ${name}`, gradient);
    if (found) return found;
  }
  return null;
}
