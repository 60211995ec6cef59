// The memory that a program's functions need while one of them runs, as fields of the frames.
import type { Program } from '../build/program.ts';
import type { Extent } from '../plan/extent.ts';
import type { LoweredFunction } from '../plan/plan.ts';
import { times } from './index-text.ts';

/** Each of a program's graphs, by name. */
export type Lowered = ReadonlyMap<string, LoweredFunction>;

/** What a function needs besides its intermediate values. */
export interface FunctionNeeds {
  readonly name: string;
  /** Workspace of each launch that needs one. */
  readonly workspaces: readonly (readonly Extent[])[];
  /** The most floats that a launch needs for each thread; none where it is not given. */
  readonly scratch?: number;
}

/**
 * Positions that the head takes at once: enough that adding to its gradients is little work beside the products, and no
 * more, as it holds the logits of so many.
 */
export const headTokens = ({ model }: Program) => (model.vocab_size > 65536 ? 256 : 512);

/** The largest tiles of products have so many elements, and a large GPU so many multiprocessors. */
const [tile, multiprocessors] = [128 * 256, 128];
/** Logits that exist at once at most, where that leaves positions enough. */
const mostLogits = 2 ** 28;

/**
 * The same on a GPU: a power of two from 512 to 4096. The gradient of the head's input has few tiles, each a sum over the
 * whole vocabulary; were there fewer than multiprocessors, most of these would wait for the others.
 */
export function headTokensOnDevice({ model }: Program): number {
  const wanted = (tile * multiprocessors) / model.hidden_size;
  const most = mostLogits / model.vocab_size;
  const [up, down] = [Math.ceil(Math.log2(wanted)), Math.floor(Math.log2(most))];
  return 2 ** Math.min(12, Math.max(9, Math.min(up, down)));
}

/** The functions that are called for a part of the positions at a time. */
export const functionsInParts = ({ head, modules }: Program): ReadonlySet<string> =>
  new Set([head.loss, head.train, ...(modules ? [modules.head.train] : [])].map(graph => graph.name));

/** The memory of a program, as C texts: `training` has all of its functions, `inference` those that it needs without. */
export function memoryFields(training: Needs, inference: Needs) {
  const either = (name: Exclude<keyof Needs, 'workspaces'>) =>
    training[name] === inference[name] ? `${training[name]}` : `training ? ${training[name]} : ${inference[name]}`;
  return {
    fixed: either('fixed'),
    per_sequence: times('batch', either('per_sequence')),
    per_position: times('positions', either('per_position')),
    per_token: times('tokens', either('per_token')),
    per_head_token: times('head_tokens', either('per_head_token')),
    scratch: either('scratch'),
    workspaces: inference.workspaces,
    training_workspaces: training.workspaces.filter(text => !inference.workspaces.includes(text)),
  };
}

type Needs = ReturnType<typeof needs>;

/** The memory that a set of functions needs while one of them runs. */
export function needs(functions: readonly FunctionNeeds[], lowered: Lowered, inParts: ReadonlySet<string>) {
  const most = (growth: string, among = functions) =>
    Math.max(0, ...among.map(({ name }) => lowered.get(name)!.plan.totals.get(growth) ?? 0));
  const parts = functions.filter(({ name }) => inParts.has(name));
  const whole = functions.filter(({ name }) => !inParts.has(name));
  const workspaces = (among: readonly FunctionNeeds[], tokens: string) =>
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
    scratch: Math.max(0, ...functions.map(source => source.scratch ?? 0)),
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
type Counts = ReadonlyMap<string, number>;

function countsOf(extents: readonly Extent[], tokens: string): Counts {
  const counts = new Map<string, number>();
  for (const { runtime, count } of extents) {
    const growth = runtime.join(' * ').replace('batch * time', tokens);
    counts.set(growth, (counts.get(growth) ?? 0) + count);
  }
  return counts;
}

const countsText = (counts: Counts): string =>
  [...counts].map(([growth, count]) => times(growth === '' ? '1' : growth, String(count))).join(' + ');

/** Floats, or what they take, as C text. */
export const extentText = (extent: Extent, tokens: string): string => countsText(countsOf([extent], tokens));
