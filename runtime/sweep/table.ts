// The results of a sweep as a table for the terminal, and as results.json and results.csv for programs.
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.ts';
import { paint } from '../show/color.ts';
import { describeCount, describeDuration, describeMemory } from '../show/quantities.ts';
import type { Plan } from './plan.ts';
import type { RunResult, Spread, SweepResult, VariantResult } from './results.ts';

const HEAD = ['variant', 'val loss', 'bits/byte', 'parameters', 'FLOPs', 'tokens', 'tokens/s', 'memory', 'seeds'];

/** A line for each variant, the lowest loss first; below them why runs failed. */
export function resultTable({ variants }: SweepResult): string {
  const rows = variants.map(variant => [
    variant.name,
    spreadText(variant.loss, 4),
    spreadText(variant.bitsPerByte, 3),
    variant.parameters.toLocaleString('en-US'),
    describeOperations(variant.flops),
    describeCount(variant.tokens),
    variant.tokensPerSecond === null ? '' : describeCount(variant.tokensPerSecond),
    variant.memory === null ? '' : describeMemory(variant.memory),
    seedsText(variant.runs),
  ]);
  const reasons = variants.flatMap(({ name, runs }) =>
    runs.flatMap(({ seed, reason }) => (reason === null ? [] : `  ${name}, seed ${seed}: ${reason.split('\n')[0]}`)),
  );
  return [columns([HEAD, ...rows]), ...new Set(reasons)].join('\n');
}

const PLAN_HEAD = ['variant', 'parameters', 'FLOPs', 'tokens', 'steps', 'memory', 'a run'];

/** What will be done, a line for each variant, with what was found for it. */
export function planTable({ variants, equal, target, seeds }: Plan): string {
  const [first] = variants;
  const rows = variants.map(({ name, parameters, flopsPerToken, tokens, steps, memory, seconds, failure }) => [
    name,
    `${parameters.toLocaleString('en-US')}${target === null ? '' : differenceText(parameters, target)}`,
    `${describeOperations(flopsPerToken * tokens)}${
      equal === 'flops' ? differenceText(flopsPerToken * tokens, first!.flopsPerToken * first!.tokens) : ''
    }`,
    `${describeCount(tokens)}${equal === 'tokens' ? differenceText(tokens, first!.tokens) : ''}`,
    String(steps),
    memory === null ? '' : describeMemory(memory),
    seconds === null ? `cannot be trained: ${failure!.split('\n')[0]}` : describeDuration(seconds),
  ]);
  const all = seeds.length * variants.reduce((sum, { seconds }) => sum + (seconds ?? 0), 0);
  const runs = variants.length * seeds.length;
  const of = seeds.length === 1 ? `seed ${seeds[0]}` : `seeds ${seeds.join(', ')}`;
  return `${columns([PLAN_HEAD, ...rows])}\n  ${runs} runs, of ${of}: ${describeDuration(all)} in all, as measured in a few steps`;
}

/** By how much a number misses the one that it should be; nothing where it does not. */
function differenceText(value: number, target: number): string {
  const share = value / target - 1;
  return Math.abs(share) < 5e-5 ? '' : ` (${share > 0 ? '+' : '−'}${(100 * Math.abs(share)).toFixed(2)} %)`;
}

/** 1.23e12 as `1.23T`. */
function describeOperations(count: number): string {
  if (count < 1e12) return describeCount(count).replace('B', 'G');
  return count < 1e15 ? `${(count / 1e12).toFixed(2)}T` : `${(count / 1e15).toFixed(2)}P`;
}

function spreadText(spread: Spread | null, digits: number): string {
  if (spread === null) return '';
  const { mean, deviation } = spread;
  return `${mean.toFixed(digits)}${deviation === null ? '' : ` ± ${deviation.toFixed(digits)}`}`;
}

/** `3`, or `1 of 3, 1 failed`. */
function seedsText(runs: readonly RunResult[]): string {
  const count = (...states: readonly RunResult['state'][]) => runs.filter(({ state }) => states.includes(state)).length;
  const ended = count('done', 'patience');
  const failed = count('failed');
  const early = count('patience');
  return [
    ended === runs.length ? String(ended) : `${ended} of ${runs.length}`,
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(early > 0 ? [`${early} ended early`] : []),
  ].join(', ');
}

/** Rows as lines of text, the first in the manner of a head: names to the left, numbers to the right. */
function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)));
  const last = widths.length - 1;
  return rows
    .map((row, index) => {
      const cells = row.map((cell, column) =>
        column === 0 || column === last ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      );
      const line = `  ${cells.join('  ')}`.trimEnd();
      return index === 0 ? paint('dim', line) : line;
    })
    .join('\n');
}

/** Writes results.json and, with a line for each run, results.csv. */
export function writeResults(folder: string, result: SweepResult): void {
  writeFileAtomic(join(folder, 'results.json'), `${JSON.stringify(result, null, 2)}\n`);
  writeFileAtomic(join(folder, 'results.csv'), csvOf(result));
}

const CSV: readonly (readonly [name: string, value: (variant: VariantResult, run: RunResult) => unknown])[] = [
  ['variant', ({ name }) => name],
  ['seed', (_, { seed }) => seed],
  ['state', (_, { state }) => state],
  ['validation_loss', (_, { loss }) => loss],
  ['validation_bits_per_byte', (_, { bitsPerByte }) => bitsPerByte],
  ['parameters', ({ parameters }) => parameters],
  ['active_parameters', ({ active }) => active],
  ['flops', ({ flops }) => flops],
  ['tokens', ({ tokens }) => tokens],
  ['steps', (_, { steps }) => steps],
  ['tokens_per_second', (_, { tokensPerSecond }) => tokensPerSecond],
  ['seconds', (_, { seconds }) => seconds],
  ['memory_bytes', ({ memory }) => memory],
  ['reason', (_, { reason }) => reason],
];

function csvOf({ variants }: SweepResult): string {
  const lines = variants.flatMap(variant =>
    variant.runs.map(run => CSV.map(([, value]) => csvField(value(variant, run))).join(',')),
  );
  return `${[CSV.map(([name]) => name).join(','), ...lines].join('\n')}\n`;
}

/** RFC 4180: in quotes where it holds a comma, a quote or a line break. */
function csvField(value: unknown): string {
  const text = value === null ? '' : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
