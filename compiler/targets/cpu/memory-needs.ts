// The memory that the functions of a program need while they run, as numbers and as C text of run-time sizes.
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import type { FunctionSource } from './functions.ts';
import { times } from './index-text.ts';

/** The program's functions with their plans, by name. */
export type Lowered = ReadonlyMap<string, LoweredFunction>;

/**
 * The memory that a set of functions needs while one of them runs.
 * @param inParts the functions that take a part of the positions at a time
 */
export function memoryNeeds(functions: readonly FunctionSource[], lowered: Lowered, inParts: ReadonlySet<string>) {
  const most = (growth: string, among = functions) =>
    Math.max(0, ...among.map(({ name }) => lowered.get(name)!.plan.totals.get(growth) ?? 0));
  const parts = functions.filter(({ name }) => inParts.has(name));
  const whole = functions.filter(({ name }) => !inParts.has(name));
  const workspaces = (among: readonly FunctionSource[], tokens: string) =>
    workspaceTexts(
      among.flatMap(source => source.workspaces),
      tokens,
    );
  return {
    fixed: most(''),
    per_sequence: most('batch'),
    per_position: most('time'),
    per_token: most('batch*time', whole),
    per_head_token: most('batch*time', parts),
    workspaces: [...workspaces(whole, 'tokens'), ...workspaces(parts, 'head_tokens')],
    scratch: Math.max(0, ...functions.map(source => source.scratch)),
  };
}

/**
 * Sizes of workspaces as C text, without those that another is at least as large as whatever the run-time sizes.
 * @param tokens what the positions of a call are called
 */
function workspaceTexts(workspaces: readonly (readonly Extent[])[], tokens: string): string[] {
  const sizes = new Map(
    workspaces.map(extents => {
      const counts = countsOf(extents, tokens);
      return [countsText(counts), counts] as const;
    }),
  );
  const covers = (a: Counts, b: Counts) => [...b].every(([growth, count]) => count <= (a.get(growth) ?? 0));
  return [...sizes]
    .filter(([text, counts]) => ![...sizes].some(([other, larger]) => other !== text && covers(larger, counts)))
    .map(([text]) => text);
}

/** Floats for each combination of run-time positions, by what they grow with. */
export type Counts = ReadonlyMap<string, number>;

export function countsOf(extents: readonly Extent[], tokens: string): Counts {
  const counts = new Map<string, number>();
  for (const { runtime, count } of extents) {
    const growth = runtime.join(' * ').replace('batch * time', tokens);
    counts.set(growth, (counts.get(growth) ?? 0) + count);
  }
  return counts;
}

export const countsText = (counts: Counts): string =>
  [...counts].map(([growth, count]) => times(growth === '' ? '1' : growth, String(count))).join(' + ');
