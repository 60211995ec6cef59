// The run folder: what it is made of, which checkpoints it keeps, and how a run begins in it or goes on.
import {
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { checkFolderWritable, explainWriting, makeFolder, writeFileAtomic } from '../atomic-file.ts';
import { configOf, readRunConfig } from '../hub/config.ts';
import { configText } from '../hub/write-config.ts';
import type { NativeModel } from '../native.ts';
import { isUnfinished, readState, removeCheckpoint, type TrainState, writeCheckpoint } from './checkpoint.ts';
import { Journal } from './metrics.ts';
import { markTraining, requireIdle } from './run-mark.ts';

/** Files that only a training run writes: where one of them is, a run has begun. */
const MARKS = ['metrics.jsonl', 'latest', 'config.json'];
const POINTERS = ['latest', 'best'];
const OPTIONS = 'run.json';
const WEIGHTS = 'model.safetensors';
/** All that stands in the folder of a run before its first step. */
const BEGINNINGS = ['metrics.jsonl', 'samples.md', 'build', OPTIONS, 'model.mal', 'config.json', 'tokenizer.json'];

export class RunFolder {
  readonly path: string;
  readonly metrics: Journal;
  readonly samples: Journal;
  /** How many of the last checkpoints stay, besides the best. */
  readonly #keep: number;
  readonly #unmark: () => void;
  /** What the folder held before this process came. */
  readonly #found: ReadonlySet<string>;

  private constructor(path: string, keep: number, unmark: () => void, found: readonly string[]) {
    this.path = path;
    this.#keep = keep;
    this.#unmark = unmark;
    this.#found = new Set(found);
    this.metrics = new Journal(join(path, 'metrics.jsonl'));
    this.samples = new Journal(join(path, 'samples.md'));
  }

  /**
   * The state that a run in this folder goes on from, null where it starts from the beginning. Nothing is touched.
   *
   * @throws UserError where the folder cannot be written or another process trains in it; where it holds a run and
   *   `resume` is false, or holds none and `resume` is true; or where it holds an imported model, which no run led to.
   */
  static peek(path: string, resume: boolean): TrainState | null {
    checkFolderWritable(path);
    const holdsRun = MARKS.some(name => existsSync(join(path, name)));
    if (resume && !holdsRun) {
      throw new UserError(`${path} holds no run to go on with; leave out --resume to begin one, or check --output`);
    }
    if (existsSync(path)) requireIdle(path);
    if (!resume && holdsRun) {
      throw new UserError(`${path} already holds a run. Continue it with --resume, or choose another --output.`);
    }
    const last = existsSync(path) ? checkpointSteps(path).at(-1) : undefined;
    if (last === undefined && isImported(path))
      throw new UserError(`${path} holds an imported model, not a run; malc cannot train one further yet.`);
    return last === undefined ? null : readState(join(path, `step-${last}`));
  }

  /**
   * Begins a run in a new or empty folder, or, where `resume` is true, goes on in an old one: what was written after its
   * last checkpoint is taken back. Without a checkpoint a resumed run starts from the beginning. Until `close` no other
   * process can open the folder.
   *
   * @throws UserError as `peek` does.
   */
  static async open(path: string, options: { resume: boolean; keep?: number }): Promise<RunFolder> {
    RunFolder.peek(path, options.resume);
    makeFolder(path);
    const found = readdirSync(path);
    const unmark = markTraining(path);
    try {
      // Once more, now that nobody else can change what is there.
      const state = RunFolder.peek(path, options.resume);
      for (const name of readdirSync(path)) {
        if (isUnfinished(name)) rmSync(join(path, name), { recursive: true, force: true });
      }
      const run = new RunFolder(path, options.keep ?? 2, unmark, found);
      run.metrics.goBackTo(state?.journals.metrics ?? 0);
      run.samples.goBackTo(state?.journals.samples ?? 0);
      if (state) await run.#settle();
      return run;
    } catch (error) {
      unmark();
      throw error;
    }
  }

  checkpointPath(step: number): string {
    return join(this.path, `step-${step}`);
  }

  /** Writes what says what the model is. `tokenizer.json` is written by the tokenizer's own file. */
  writeModel(text: string, model: Model, endOfText: number | null): void {
    writeFileAtomic(join(this.path, 'model.mal'), text);
    writeFileAtomic(join(this.path, 'config.json'), configText(configOf(model, endOfText)));
  }

  /** Writes what the run was asked to do and all that was derived, as options of the command that began it. */
  writeOptions(options: Readonly<Record<string, unknown>>): void {
    writeFileAtomic(join(this.path, OPTIONS), `${JSON.stringify(options, null, 2)}\n`);
  }

  /** Keeps the generated source of the native program, without the program itself. */
  writeSources(sourceFolder: string): void {
    const isSource = (path: string) => !path.endsWith('.so');
    const folder = join(this.path, 'build');
    try {
      cpSync(sourceFolder, folder, { recursive: true, filter: isSource });
    } catch (error) {
      throw explainWriting(error, folder);
    }
  }

  /** Saves a checkpoint and makes it the latest; older ones that are not kept go. */
  async save(model: NativeModel, state: Omit<TrainState, 'journals'>): Promise<void> {
    this.metrics.sync();
    this.samples.sync();
    const journals = { metrics: this.metrics.length, samples: this.samples.length };
    await writeCheckpoint(this.checkpointPath(state.step), model, { ...state, journals });
    await this.#settle();
  }

  close(): void {
    this.metrics.close();
    this.samples.close();
    this.#unmark();
  }

  /** Closes a run that could not begin, and leaves the folder as it was, so that the same command can begin it anew. */
  abandon(): void {
    this.close();
    // Only what is the run's own: others may write into the folder meanwhile.
    for (const name of readdirSync(this.path)) {
      const isOwn = BEGINNINGS.includes(name) || isUnfinished(name);
      if (isOwn && !this.#found.has(name)) rmSync(join(this.path, name), { recursive: true, force: true });
    }
    if (this.#found.size === 0 && readdirSync(this.path).length === 0) rmdirSync(this.path);
  }

  /** Brings all that follows from the checkpoints up to date: after each, and where a crash may have come between. */
  async #settle(): Promise<void> {
    const steps = checkpointSteps(this.path);
    const latest = steps.at(-1)!;
    replaceByLink(join(this.checkpointPath(latest), WEIGHTS), join(this.path, WEIGHTS));
    this.#point('latest', latest);
    const best = this.#bestOf(steps);
    if (best !== null) this.#point('best', best);
    for (const step of steps.slice(0, -this.#keep)) {
      if (step !== best) await removeCheckpoint(this.checkpointPath(step));
    }
  }

  /** The step with the lowest validation loss among the checkpoints, the earliest of equals. */
  #bestOf(steps: readonly number[]): number | null {
    let best: { step: number; loss: number } | null = null;
    for (const step of steps) {
      const loss = readState(this.checkpointPath(step)).validationLoss;
      if (loss !== null && (best === null || loss < best.loss)) best = { step, loss };
    }
    return best?.step ?? null;
  }

  #point(name: string, step: number): void {
    writeFileAtomic(join(this.path, name), `step-${step}\n`);
  }
}

/**
 * The options that a run folder says, none where it says none.
 *
 * @throws UserError where its run.json is damaged.
 */
export function readOptions(path: string): Readonly<Record<string, unknown>> {
  const file = join(path, OPTIONS);
  if (!existsSync(file)) return {};
  const remedy = 'Remove it, and say the options again.';
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new UserError(`${file} cannot be read: ${(error as Error).message}. ${remedy}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new UserError(`${file} holds no JSON object of options. ${remedy}`);
}

/** A checkpoint to sample from, and the run folder that says what its model and tokenizer are. */
export interface FoundCheckpoint {
  /** The folder of the checkpoint. */
  readonly folder: string;
  /** The folder with config.json and tokenizer.json. */
  readonly run: string;
}

/** Whether the path is of the weights that stand in a run or step folder, for which the folder itself can be given. */
export function isRunWeights(path: string): boolean {
  if (basename(path) !== WEIGHTS) return false;
  const folder = dirname(path);
  return existsSync(join(folder, 'state.json')) || existsSync(join(folder, 'latest'));
}

/**
 * Finds what `path` means: a run folder (its last checkpoint), a step folder, the weights in one of these, or a run folder's
 * `latest` or `best`.
 *
 * @throws UserError where there is no checkpoint.
 */
export function findCheckpoint(path: string): FoundCheckpoint {
  const kind = statSync(path, { throwIfNoEntry: false });
  if (!kind) {
    const near = existsSync(join(dirname(path), 'latest'))
      ? `${dirname(path)} is a run: give it for its last checkpoint, or one of its step-N folders.`
      : 'Give a run folder of malc train, or one of its step-N folders.';
    throw new UserError(`${path} does not exist. ${near}`);
  }
  if (kind.isFile()) {
    if (isRunWeights(path)) return findCheckpoint(dirname(path));
    if (!POINTERS.includes(basename(path)))
      throw new UserError(`${path} is a file. Give a run folder or a step-N folder.`);
    const run = dirname(path);
    const folder = join(run, readFileSync(path, 'utf8').trim());
    if (!existsSync(folder)) throw new UserError(`${path} stands for ${folder}, which is gone. Give the run folder.`);
    return { folder, run };
  }
  if (existsSync(join(path, 'state.json'))) return { folder: path, run: dirname(path) };
  const last = checkpointSteps(path).at(-1);
  if (last === undefined && isImported(path)) return { folder: path, run: path };
  if (last === undefined) throw new UserError(`${path} holds no checkpoint yet (no step-N folder).`);
  return { folder: join(path, `step-${last}`), run: path };
}

/** Whether `malc import` wrote the folder: its weights are no checkpoint of a run, and stand beside its config.json. */
function isImported(path: string): boolean {
  const config = join(path, 'config.json');
  return existsSync(config) && readRunConfig(config).imported_from !== undefined;
}

/** The steps of a run folder's checkpoints, ascending. */
function checkpointSteps(path: string): number[] {
  return readdirSync(path)
    .map(name => /^step-(\d+)$/.exec(name)?.[1])
    .filter(step => step !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
}

/** Puts `source` in the place of `target` in one instant, without a copy where the file system has hard links. */
function replaceByLink(source: string, target: string): void {
  const temporary = join(dirname(target), `.${basename(target)}.${process.pid}.tmp`);
  rmSync(temporary, { force: true });
  try {
    linkOrCopy(source, temporary);
    renameSync(temporary, target);
  } catch (error) {
    throw explainWriting(error, target);
  } finally {
    // Left by an error; or by the rename, which does nothing where both names were the same file already.
    rmSync(temporary, { force: true });
  }
}

function linkOrCopy(source: string, target: string): void {
  try {
    linkSync(source, target);
  } catch {
    copyFileSync(source, target);
  }
}
