// A checkpoint: a folder step-N with the weights, their averages where these are kept, the optimizer's moments and the state
// from which a run goes on, bit for bit. It is written beside its place, synced and renamed, so that a folder of that name
// is always whole.
import { closeSync, existsSync, fsyncSync, openSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { explainWriting, writeFileAtomic } from '../atomic-file.ts';
import { SafetensorsFile, type Tensor, writeSafetensors } from '../hub/safetensors.ts';
import type { NativeModel, NativeParameter } from '../native.ts';
import { formerly, type Settings } from './settings.ts';

/**
 * Everything besides weights and moments. Random numbers are counter-based: the seed, the step and the cursor are all the
 * state that they have.
 */
export interface TrainState {
  /** Updates done. */
  readonly step: number;
  /** Training samples drawn. */
  readonly cursor: number;
  readonly settings: Settings;
  /** What the run was trained on up to here: another target's numbers differ in their last bits. */
  readonly target: RunTarget;
  /** The text files, as absolute paths. */
  readonly data: readonly string[];
  readonly dataHash: string;
  readonly tokenizerHash: string;
  /** Of the evaluation at this very step; null where there was none. */
  readonly validationLoss: number | null;
  /** The lowest loss of all evaluations, and how many came after it; null before the first. */
  readonly lowest: { readonly loss: number; readonly evaluationsAgo: number } | null;
  /** Bytes of the run's journals at this step. */
  readonly journals: { readonly metrics: number; readonly samples: number };
}

const WEIGHTS = 'model.safetensors';
/** Of averages of the weights, under the same names. */
const AVERAGES = 'ema.safetensors';
const OPTIMIZER = 'optimizer.safetensors';
const STATE = 'state.json';
const STATE_KEYS = ['step', 'cursor', 'settings', 'data', 'dataHash', 'tokenizerHash', 'journals'] as const;

/**
 * Writes `folder` (.../step-N) from the model's present weights and moments.
 *
 * @throws WriteError where the disk is full or may not be written to; nothing is then left of the checkpoint.
 */
export async function writeCheckpoint(folder: string, model: NativeModel, state: TrainState): Promise<void> {
  const temporary = join(dirname(folder), `.${basename(folder)}.${process.pid}.tmp`);
  try {
    await mkdir(temporary);
    const metadata = { step: String(state.step) };
    await writeSafetensors(join(temporary, WEIGHTS), model.parameters, metadata);
    if (model.options.averages)
      await writeSafetensors(join(temporary, AVERAGES), model.parameters.map(averageOf), metadata);
    await writeSafetensors(join(temporary, OPTIMIZER), model.parameters.flatMap(momentsOf), metadata);
    writeFileAtomic(join(temporary, STATE), `${JSON.stringify(state, null, 2)}\n`);
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    // The user knows the checkpoint by its name, not by that of the temporary folder.
    throw explainWriting((error as Error).cause ?? error, folder);
  }
  syncFolder(dirname(folder));
}

/** What a crash left unfinished, by its name: a checkpoint's folder, or a file that was to be renamed into place. */
export function isUnfinished(name: string): boolean {
  return /^\..+\.\d+\.tmp$/.test(name);
}

/** @throws UserError where state.json is missing or damaged. */
export function readState(folder: string): TrainState {
  const path = join(folder, STATE);
  let state: Partial<TrainState> | null;
  try {
    state = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}. ${advice(folder)}`);
  }
  const missing = STATE_KEYS.find(key => state?.[key] === undefined);
  if (missing !== undefined) throw new UserError(`${path} is damaged: it has no '${missing}'. ${advice(folder)}`);
  // Before there was a choice, everything ran on the CPU, and nothing said so.
  return { target: 'cpu', lowest: null, ...state, settings: { ...formerly, ...state!.settings } } as TrainState;
}

/**
 * The file of a checkpoint's weights, or of their averages.
 *
 * @throws UserError where it has no averages.
 */
export function weightsFile(folder: string, averaged: boolean): string {
  const path = join(folder, averaged ? AVERAGES : WEIGHTS);
  if (averaged && !existsSync(path))
    throw new UserError(
      `${folder} has no averages of weights (${AVERAGES}), which malc train keeps with --ema; leave --ema out here`,
    );
  return path;
}

/**
 * Reads a checkpoint's weights, or their averages, into the model.
 *
 * @throws UserError where the file is damaged or holds another architecture's tensors, or there are no averages.
 */
export function loadWeights(folder: string, model: NativeModel, averaged = false): void {
  const path = weightsFile(folder, averaged);
  withRemedy('Give another step-N folder of the run, or copy this one again.', () => {
    loadWeightsFile(path, model);
  });
}

/**
 * Reads a file of weights under malc's names into the model.
 *
 * @throws UserError as `loadWeights` does.
 */
export function loadWeightsFile(path: string, model: NativeModel): void {
  load(path, model.writableParameters());
}

/**
 * Reads a checkpoint's weights, moments and averages, where it keeps any, into a model that is open for training.
 *
 * @throws UserError as `loadWeights` does.
 */
export function loadTraining(folder: string, model: NativeModel): void {
  withRemedy(advice(folder), () => {
    const parameters = model.writableParameters();
    load(join(folder, WEIGHTS), parameters);
    if (model.options.averages) load(join(folder, AVERAGES), parameters.map(averageOf));
    load(join(folder, OPTIMIZER), parameters.flatMap(momentsOf), parameters.flatMap(formerMoments));
  });
}

function withRemedy(remedy: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${error.message}\n${remedy}`) : error;
  }
}

/** Removes a checkpoint so that no half of it is ever taken for one. */
export async function removeCheckpoint(folder: string): Promise<void> {
  const doomed = join(dirname(folder), `.${basename(folder)}.${process.pid}.tmp`);
  await rename(folder, doomed);
  await rm(doomed, { recursive: true, force: true });
}

function advice(folder: string): string {
  return `Remove the folder ${folder}, and the run goes on from the checkpoint before it.`;
}

type Kept<Floats> = Pick<NativeParameter, 'name' | 'shape' | 'moments'> &
  Record<'firstMoment' | 'secondMoment' | 'average', Floats | null> & { readonly data: Floats };

/** As many as the optimizer has of the parameter. */
function momentsOf<Floats>({ name, shape, moments, firstMoment, secondMoment }: Kept<Floats>) {
  const all = [
    { name: `${name}.first_moment`, shape, data: firstMoment },
    { name: `${name}.second_moment`, shape, data: secondMoment },
  ];
  return all.slice(0, moments).map(moment => {
    if (moment.data === null) throw new Error(`${name} has no moments: the model is not open for training`);
    return { ...moment, data: moment.data };
  });
}

/** Moments that older checkpoints have besides, all zeros: of a bias that balances experts, and that no gradient moves. */
const formerMoments = (own: NativeParameter): string[] =>
  // What is frozen is not trained either, and has no gradient.
  own.trained || own.gradient === null ? [] : [`${own.name}.first_moment`, `${own.name}.second_moment`];

/** What never moves is its own average. */
const averageOf = <Floats>({ name, shape, average, data }: Kept<Floats>) => ({ name, shape, data: average ?? data });

/** A tensor to be read. */
interface Target extends Tensor {
  readonly data: Float32Array;
}

/** Reads every target by its name; the file must hold these tensors, may hold those that are dropped, and no others. */
function load(path: string, targets: readonly Target[], dropped: readonly string[] = []): void {
  const file = SafetensorsFile.open(path);
  try {
    const expected = new Set([...targets.map(({ name }) => name), ...dropped]);
    const surplus = [...file.tensors.keys()].find(name => !expected.has(name));
    if (surplus !== undefined)
      throw new UserError(`${path} holds the tensor '${surplus}', which the model does not have.`);
    for (const { name, shape, data } of targets) {
      const entry = file.tensors.get(name);
      if (!entry) throw new UserError(`${path} lacks the tensor '${name}', which the model has.`);
      if (entry.shape.join() !== shape.join()) {
        throw new UserError(
          `${path}: tensor '${name}' is [${entry.shape.join(', ')}]; the model has [${shape.join(', ')}].`,
        );
      }
      file.readInto(name, data);
    }
  } finally {
    file.close();
  }
}

/** Makes renames in a folder last through a loss of power. */
function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
