// What a page shows of a run folder: its numbers column by column, its samples, its options, its model and its kernels.
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { basename, join, resolve, sep } from 'node:path';
import { flopsPerToken } from '../../../compiler/check/cost.ts';
import { countParameters, type ParameterCount } from '../../../compiler/check/count.ts';
import type { Model } from '../../../compiler/check/model.ts';
import { UserError } from '../../../compiler/diagnostic.ts';
import { readModelConfig } from '../../hub/config.ts';
import type { StepRecord } from '../../train/metrics.ts';
import { readOptions } from '../../train/run-folder.ts';
import { isTraining } from '../../train/run-mark.ts';
import { type KernelEntry, kernelsOf } from './kernel-entries.ts';

/** Records as columns of equal length; null where a record has no such number. */
export type Columns = { readonly [Name in keyof StepRecord]-?: (number | null)[] };

/** What metrics.jsonl holds from one place on. */
export interface Progress {
  /** Bytes of whole lines read so far: where the next reading begins. */
  readonly next: number;
  /** Whether the file went back behind the place: all records are here then, and those known before are void. */
  readonly anew: boolean;
  readonly columns: Columns;
  /** All of them; null where there are none that the reader does not have. */
  readonly samples: readonly Sample[] | null;
  /** The length of what they were read from, by which it is told whether there are new ones. */
  readonly sampleBytes: number;
  /** Whether a process trains in the folder now. */
  readonly training: boolean;
}

export interface Sample {
  readonly step: number;
  readonly text: string;
}

/** What does not change while a run goes on. */
export interface RunRecord {
  /** What it is called among the others. */
  readonly name: string;
  /** The variant of a sweep that it is a run of. */
  readonly variant?: string;
  readonly path: string;
  /** All options of `malc train`, given and derived; empty for runs that kept none. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly model: {
    readonly name: string;
    readonly description: string;
    /** As it was written, in MAL. */
    readonly text: string;
    /** For each block, its name and how many layers are of it. */
    readonly blocks: readonly { readonly name: string; readonly layers: number }[];
    readonly parameters: ParameterCount;
    /** Operations of a training step for each token, at the run's sequence length. */
    readonly flopsPerToken: number;
  };
  readonly kernels: readonly KernelEntry[];
}

const COLUMNS = [
  'step',
  'loss',
  'auxiliary_loss',
  'validation_loss',
  'validation_bits_per_byte',
  'averaged_validation_loss',
  'gradient_norm',
  'learning_rate',
  'tokens',
  'seconds',
  'memory_bytes',
] as const satisfies readonly (keyof StepRecord)[];

/**
 * What stands in a run folder besides its numbers.
 *
 * @throws UserError where the folder holds no run, or one of its files is damaged.
 */
export function readRun(path: string): RunRecord {
  const metrics = metricsPath(path);
  if (!existsSync(metrics))
    throw new UserError(`${path} holds no run (there is no ${metrics}); give the --output folder of a malc train`);
  const model = readModelConfig(join(path, 'config.json'));
  const options = readOptions(path);
  const text = join(path, 'model.mal');
  return {
    name: basename(resolve(path)),
    path,
    options,
    model: {
      name: model.name,
      description: model.description,
      text: existsSync(text) ? readFileSync(text, 'utf8') : '',
      blocks: blocksOf(model),
      parameters: countParameters(model),
      flopsPerToken: flopsPerToken(model, Number(options['seq-len'] ?? model.max_seq_len)),
    },
    kernels: kernelsOf(model, options),
  };
}

/** The same runs by names that tell them apart: of folders that are called alike, as much of their paths as it takes. */
export function withDistinctNames(records: readonly RunRecord[]): RunRecord[] {
  const paths = records.map(({ path }) => resolve(path).split(sep));
  const nameOf = (index: number, parts: number) => paths[index]!.slice(-parts).join('/');
  return records.map((record, index) => {
    const isTaken = (parts: number) =>
      paths.some((_, other) => other !== index && nameOf(other, parts) === nameOf(index, parts));
    let parts = 1;
    while (parts < paths[index]!.length && isTaken(parts)) parts++;
    return parts === 1 ? record : { ...record, name: nameOf(index, parts) };
  });
}

const metricsPath = (path: string): string => join(path, 'metrics.jsonl');

const blocksOf = ({ blocks, layers }: Model) =>
  blocks.map(({ name }, kind) => ({ name, layers: layers.filter(layer => layer === kind).length }));

/**
 * The records that came after the first `from` bytes. A line that is still being written waits for the next reading.
 *
 * @param sampleBytes the length that the file of samples had when they were read
 * @throws UserError where a line is no record.
 */
export function readProgress(path: string, from: number, sampleBytes = 0): Progress {
  const file = metricsPath(path);
  const { text, start } = readFrom(file, from);
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  const records = whole.split('\n').flatMap((line, index): Partial<StepRecord>[] => {
    if (line === '') return [];
    try {
      return [JSON.parse(line)];
    } catch {
      throw new UserError(`${file}: line ${index + 1} after byte ${start} is no JSON record; remove that line`);
    }
  });
  const columns = Object.fromEntries(COLUMNS.map(name => [name, records.map(record => record[name] ?? null)]));
  const samples = join(path, 'samples.md');
  const length = statSync(samples, { throwIfNoEntry: false })?.size ?? 0;
  const anew = start < from;
  return {
    next: start + Buffer.byteLength(whole),
    anew,
    columns: columns as unknown as Columns,
    samples: length === sampleBytes && !anew ? null : readSamples(samples),
    sampleBytes: length,
    training: isTraining(path),
  };
}

/** A file's text from a byte on, or from its beginning where no line ends there: it went back, and may have grown since. */
function readFrom(path: string, from: number): { text: string; start: number } {
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    const before = Buffer.alloc(1);
    const isEnd = from === 0 || (readSync(file, before, 0, 1, from - 1) === 1 && before[0] === 0x0a);
    const start = isEnd ? from : 0;
    const bytes = Buffer.alloc(size - start);
    return { text: bytes.toString('utf8', 0, readSync(file, bytes, 0, bytes.length, start)), start };
  } finally {
    closeSync(file);
  }
}

/** The texts that the model wrote, as samples.md has them under headings of their steps. */
function readSamples(path: string): Sample[] {
  if (!existsSync(path)) return [];
  const [, ...parts] = readFileSync(path, 'utf8').split(/^## step (\d+)\n\n/m);
  return parts.flatMap((step, index) =>
    index % 2 === 0 ? [{ step: Number(step), text: parts[index + 1]!.trimEnd() }] : [],
  );
}
