// The tables of `malc bench`.
import { describeChoice } from '../../compiler/targets/cuda/tunable.ts';
import { type Finding, failuresOf } from '../autotune-cuda.ts';
import type { Ceilings } from '../bench/ceilings.ts';
import type { DecodeResult } from '../bench/decode.ts';
import type { BenchRecord, Change, Circumstances } from '../bench/history.ts';
import type { KernelsResult } from '../bench/kernels.ts';
import type { Measurement } from '../bench/measurement.ts';
import type { StepResult } from '../bench/step.ts';
import { paint } from './color.ts';
import { describeCount, describeMemory } from './quantities.ts';

/** Columns of text: the first ends where it ends, the others on the right. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)));
  const [head, ...lines] = rows.map(row =>
    row.map((cell, n) => (n === 0 ? cell.padEnd(widths[n]!) : cell.padStart(widths[n]!))).join('  '),
  );
  return [paint('dim', head!), ...lines].map(line => `  ${line}`.trimEnd()).join('\n');
}

export function describeCircumstances({ machine, target, compiler, threads, malc, commit }: Circumstances): string {
  const { processor, cores, features } = machine;
  const [core, used] =
    target === 'cuda' ? ['multiprocessor', ''] : ['core', `, ${threads} ${threads === 1 ? 'thread' : 'threads'}`];
  return [
    `  machine   ${processor}, ${cores} ${core}${cores === 1 ? '' : 's'}, ${features.join(', ') || 'no vectors known'}`,
    `  program   malc ${malc}${commit ? ` (${commit})` : ''}, ${compiler}${used}`,
  ].join('\n');
}

export function describeCeilings({ float32, bfloat16, read, copy, update }: Ceilings): string {
  const parts = [
    `${giga(float32)} GFLOP/s float32`,
    ...(bfloat16 > 0 ? [`${giga(bfloat16)} bf16`] : []),
    `${giga(read)} GB/s read`,
    `${giga(copy)} copied`,
    `${giga(update)} in place`,
  ];
  return `  ceilings  ${parts.join(', ')}`;
}

/** Share of the time that the ceilings allow; more than all of it where a cache was quicker than memory. */
const ofCeiling = (needed: number, seconds: number) => percent(needed / seconds);

export function kernelTable({ rows, schedules, stepSeconds, outside }: KernelsResult): string {
  const line = (name: string, calls: string, seconds: number, work: readonly string[]) => [
    name,
    calls,
    milliseconds(seconds),
    percent(seconds / stepSeconds),
    ...work,
  ];
  const total = rows.reduce(
    (sum, row) => ({
      operations: sum.operations + row.operations,
      bytes: sum.bytes + row.bytes,
      needed: sum.needed + row.needed,
    }),
    { operations: 0, bytes: 0, needed: 0 },
  );
  const workOf = (work: typeof total, seconds: number, bound: string) => [
    giga(work.operations / seconds),
    giga(work.bytes / seconds),
    ofCeiling(work.needed, seconds),
    bound,
  ];
  const own = (name: string) => (schedules.size > 0 ? [schedules.get(name) ?? ''] : []);
  return columns([
    ['launch', 'calls', 'ms/step', 'share', 'GFLOP/s', 'GB/s', 'of ceiling', 'bound by', ...own('').map(() => 'tiles')],
    ...rows.map(row => [
      ...line(row.name, String(row.calls), row.seconds, workOf(row, row.seconds, row.bound)),
      ...own(row.name),
    ]),
    [...line('outside launches', '', outside, ['', '', '', '']), ...own('')],
    [...line('total', '', stepSeconds, workOf(total, stepSeconds, '')), ...own('')],
  ]);
}

/** What was measured before: the cost model's choice, ours, cuBLASLt, and by how much the chosen is faster; what failed. */
export function tuningTable(findings: readonly Finding[]): string {
  const micro = (seconds: number | null | undefined) => (seconds == null ? '' : (seconds * 1e6).toFixed(1));
  const table = columns([
    ['launch', 'size', 'predicted best, µs', 'best of ours', 'cuBLASLt', 'faster than the next', 'chosen'],
    ...findings.map(({ launch, size, ways, own, choice }) => {
      const library = ways.find(way => way.choice.library)?.seconds ?? null;
      const ours = ways[own]!.seconds;
      const [taken, other] = choice.library ? [library, ours] : [ours, library ?? ways[0]!.seconds];
      const gain = taken === null || other === null || other <= taken ? '' : `${(other / taken).toFixed(2)} x`;
      const cells = [micro(ways[0]!.seconds), micro(ours), micro(library), gain, describeChoice(choice)];
      return [launch, size.join(' x '), ...cells];
    }),
  ]);
  return [table, ...findings.flatMap(failuresOf).map(failure => `  failed, and left out: ${failure}`)].join('\n');
}

/** @param peak operations a second that results are held against */
export function stepTable(results: readonly StepResult[], peak: number): string {
  const recomputes = results.some(({ configuration: { recompute = 'none' } }) => recompute !== 'none');
  const own = (text: string) => (recomputes ? [text] : []);
  return columns([
    ['configuration', ...own('recompute'), 'tokens/s', 'range', 'GFLOP/s', 'of peak', 'memory', 'to source', 'built'],
    ...results.map(result => {
      const rate = result.tokensPerSecond.median * result.flopsPerToken;
      const { model, batch, time, recompute = 'none' } = result.configuration;
      return [
        `${model.name} ${batch}x${time}`,
        ...own(String(recompute)),
        describeCount(result.tokensPerSecond.median),
        range(result.tokensPerSecond),
        giga(rate),
        percent(rate / peak),
        describeMemory(result.memoryBytes),
        `${result.compileSeconds.toFixed(2)} s`,
        `${result.buildSeconds.toFixed(1)} s`,
      ];
    }),
  ]);
}

export function decodeTable(results: readonly DecodeResult[]): string {
  return columns([
    ['texts at once', 'prompt tokens/s', 'range', 'tokens/s', 'range', 'memory'],
    ...results.map(({ batch, lengths, prompt, generation, memoryBytes }) => [
      lengths === 'different' ? `${batch}, different` : String(batch),
      describeCount(prompt.median),
      range(prompt),
      describeCount(generation.median),
      range(generation),
      describeMemory(memoryBytes),
    ]),
  ]);
}

/** What moved from one record to the next; what stayed within the range of its samples is not marked. */
export function changeTable(before: BenchRecord, after: BenchRecord, changes: readonly Change[]): string {
  const value = (of: Measurement | null, unit: Change['unit']) =>
    of === null ? '' : unit === 'ms' ? of.median.toFixed(3) : of.median.toFixed(1);
  const marks = { faster: 'faster', slower: 'SLOWER', same: '', new: 'new', gone: 'gone' } as const;
  const machine =
    before.ceilings && after.ceilings
      ? [`  the machine itself: ${giga(before.ceilings.float32)} GFLOP/s then, ${giga(after.ceilings.float32)} now`]
      : [];
  return [
    `  since ${before.date.slice(0, 16).replace('T', ' ')}, malc ${before.malc}${before.commit ? ` (${before.commit})` : ''}`,
    ...machine,
    columns([
      ['', 'unit', 'before', 'now', 'ratio', ''],
      ...changes.map(({ name, unit, before: old, now, ratio, verdict }) => [
        name,
        unit,
        value(old, unit),
        value(now, unit),
        ratio === null ? '' : ratio.toFixed(2),
        marks[verdict],
      ]),
    ]),
  ].join('\n');
}

const giga = (value: number) => (value / 1e9).toFixed(value < 9.95e9 ? 1 : 0);
const milliseconds = (seconds: number) => (seconds * 1e3).toFixed(seconds < 0.01 ? 3 : 1);
const percent = (share: number) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)}%`;
const range = ({ low, high }: Measurement) => `${describeCount(low)} - ${describeCount(high)}`;
