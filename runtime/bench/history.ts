// What was measured before: a line of JSON for each result, in one file of the user's. It shows what moved.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { packagePath, readPackageFile } from '../../compiler/package-files.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { makeFolder } from '../atomic-file.ts';
import { describeMachine } from '../machine.ts';
import { Journal } from '../train/metrics.ts';
import type { Ceilings } from './ceilings.ts';
import type { Measurement } from './measurement.ts';
import type { Place } from './place.ts';

export type BenchName = 'kernels' | 'step' | 'decode';

export interface Result extends Measurement {
  readonly unit: 'ms' | 'tokens/s';
}

/** One line of the history. Results compare where bench, machine, threads and configuration are the same. */
export interface BenchRecord {
  readonly bench: BenchName;
  /** ISO 8601. */
  readonly date: string;
  readonly malc: string;
  /** Of the source tree that ran, with `-dirty` where it had changes; null where it is no git repository. */
  readonly commit: string | null;
  /** What the programs run on; of a GPU, its multiprocessors are the cores, and its generation is the feature. */
  readonly machine: { readonly processor: string; readonly cores: number; readonly features: readonly string[] };
  /** Absent in records older than the choice: cpu. */
  readonly target?: RunTarget;
  readonly compiler: string;
  /** Of the CPU's programs; 1 with a GPU, which one thread feeds. */
  readonly threads: number;
  readonly configuration: Readonly<Record<string, string | number>>;
  readonly results: Readonly<Record<string, Result>>;
  /** Of the machine in the same run, where they were measured: what a neighbour took is missing from them too. */
  readonly ceilings: Ceilings | null;
}

/** What all results of this run have in common. */
export type Circumstances = Pick<
  BenchRecord,
  'date' | 'malc' | 'commit' | 'machine' | 'target' | 'compiler' | 'threads'
>;

export function circumstances({ target, builder, device }: Place, threads: number): Circumstances {
  const { processor, cores, features } = describeMachine();
  const machine = device
    ? { processor: device.name, cores: device.multiprocessors, features: [`sm_${device.capability.join('')}`] }
    : { processor, cores, features };
  return {
    date: new Date().toISOString(),
    malc: JSON.parse(readPackageFile('package.json')).version,
    commit: sourceCommit(),
    machine,
    target,
    compiler: builder.version,
    threads,
  };
}

/** The commit of the source tree that runs, or that a bundle was made of (its package.json says it). */
export function sourceCommit(): string | null {
  const { gitHead } = JSON.parse(readPackageFile('package.json'));
  if (gitHead !== undefined) return gitHead;
  // An installed package may lie in another project's repository, whose commit would say nothing.
  if (!existsSync(packagePath('.git'))) return null;
  try {
    const words = ['-C', packagePath('.'), 'describe', '--always', '--dirty', '--exclude', '*'];
    return execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null;
  }
}

/** Where results are kept: `malc/bench-history.jsonl` in $XDG_DATA_HOME or ~/.local/share. */
export function historyPath(): string {
  return join(process.env.XDG_DATA_HOME || join(homedir(), '.local/share'), 'malc', 'bench-history.jsonl');
}

export interface History {
  readonly records: readonly BenchRecord[];
  /** Numbers, from 1, of lines that are no results: of a machine that lost power, or a hand that slipped. */
  readonly damaged: readonly number[];
}

/**
 * The history, oldest first; empty where there is no file.
 *
 * @throws UserError where the file cannot be read.
 */
export function readHistory(path: string): History {
  if (!existsSync(path)) return { records: [], damaged: [] };
  const records: BenchRecord[] = [];
  const damaged: number[] = [];
  for (const [index, line] of readText(path).split('\n').entries()) {
    if (line === '') continue;
    const record = parseRecord(line);
    if (record) records.push(record);
    else damaged.push(index + 1);
  }
  return { records, damaged };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UserError(`cannot read the history ${path}: ${(error as Error).message}; give another with --history`);
  }
}

function parseRecord(line: string): BenchRecord | null {
  try {
    const value = JSON.parse(line);
    const isRecord = ['bench', 'machine', 'threads', 'configuration', 'results'].every(name => value?.[name] != null);
    return isRecord ? value : null;
  } catch {
    return null;
  }
}

/**
 * Adds records at the end, in one write: of processes that do so at once, each finds a place of its own.
 *
 * @throws WriteError where the file cannot be written.
 */
export function appendHistory(path: string, records: readonly BenchRecord[]): void {
  makeFolder(dirname(path));
  const torn = existsSync(path) && !/(^|\n)$/.test(readText(path));
  const journal = new Journal(path);
  try {
    journal.append(`${torn ? '\n' : ''}${records.map(record => `${JSON.stringify(record)}\n`).join('')}`);
    journal.sync();
  } finally {
    journal.close();
  }
}

/** The last record that measured the same on the same machine. */
export function lastAlike(history: readonly BenchRecord[], record: BenchRecord): BenchRecord | undefined {
  const key = ({ bench, machine, target = 'cpu', threads, configuration }: BenchRecord) => {
    const { processor, cores, features } = machine;
    const sizes = Object.entries(configuration).sort();
    return JSON.stringify([bench, processor, cores, features, target, threads, sizes]);
  };
  return history.findLast(other => key(other) === key(record));
}

export interface Change {
  readonly name: string;
  readonly unit: Result['unit'];
  /** Null where only one of the two has it. */
  readonly before: Measurement | null;
  readonly now: Measurement | null;
  /** Now over before. */
  readonly ratio: number | null;
  /** `same` while the ranges meet. */
  readonly verdict: 'faster' | 'slower' | 'same' | 'new' | 'gone';
}

/** What moved between two records of the same, in the order of the new one's results. */
export function compareRecords(before: BenchRecord, now: BenchRecord): Change[] {
  const names = [...new Set([...Object.keys(now.results), ...Object.keys(before.results)])];
  return names.map(name => {
    const [old, fresh] = [before.results[name] ?? null, now.results[name] ?? null];
    const { unit } = (fresh ?? old)!;
    const ratio = old && fresh && old.median > 0 ? fresh.median / old.median : null;
    return { name, unit, before: old, now: fresh, ratio, verdict: verdictOf(old, fresh, unit) };
  });
}

function verdictOf(before: Measurement | null, now: Measurement | null, unit: Result['unit']): Change['verdict'] {
  if (!before) return 'new';
  if (!now) return 'gone';
  if (now.low <= before.high && before.low <= now.high) return 'same';
  const isMore = now.median > before.median;
  return isMore === (unit === 'tokens/s') ? 'faster' : 'slower';
}
