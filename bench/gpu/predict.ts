// What each kernel of a training step should take on a Hopper GPU: reckoned from its work, never measured. The run's tables
// have these numbers beside what was measured, and `npm run gpu -- --predict` prints them alone.

import { blockStageNames } from '../../compiler/build/program.ts';
import type { Model } from '../../compiler/check/model.ts';
import { readModel } from '../../compiler/check/read-model.ts';
import { compile } from '../../compiler/index.ts';
import { type Shape, shapeAt } from '../../compiler/plan/shapes.ts';
import { amount, countPairs } from '../../compiler/plan/work.ts';
import type { ProgramLaunch } from '../../compiler/targets/cpu/index.ts';
import type { KernelRow, RepeatedShape } from '../../runtime/bench/kernels.ts';
import type { StepSize } from '../../runtime/bench/workload.ts';
import { markdownTable } from './part.ts';

/** What the kernels of the design can reach at best on one H200: published measurements, of others, on such a card. */
export const assumed = {
  multiprocessors: 132,
  /** Operations a second of the largest products: cuBLAS at 8192 x 8192 x 8192. */
  products: 790e12,
  /** The same of attention over 1,024 to 2,048 positions, by width of a head: FlashAttention 3 and cuDNN, causal. */
  attention: { 64: { forward: 288e12, backward: 300e12 }, 128: { forward: 520e12, backward: 500e12 } },
  /** Bytes a second of a copy. */
  memory: 4.3e12,
  /** From the end of a launch to the first work of the next one in a graph. */
  launch: 1.5e-6,
} as const;

/** Share of a step from which on a kernel has a line of its own. */
const SHOWN = 0.004;

/** Columns of a tile of 128 rows, and clocks in which the tensor cores multiply 64 inner positions of one of 256 columns. */
const tileColumns = [256, 192, 128] as const;
const slice = { inner: 64, clocks: 1024 };
/** Clocks of a tile in which its block's tensor cores wait: while it is finished, and the pipeline fills. */
const unhidden = 2000;
/** What adding up parts of sums costs. */
const ofParts = 1.03;
const mostParts = 16;

/** A product as one schedule has it. */
export interface ProductEstimate {
  readonly columns: number;
  readonly parts: number;
  /** Rounds in which all multiprocessors have a tile; the last may leave some without. */
  readonly waves: number;
  /** Useful clocks of all clocks. */
  readonly efficiency: number;
  readonly seconds: number;
}

type ProductShape = Extract<Shape, { kind: 'product' }>;

/** The best of the schedules: tiles of 128 rows in clusters of two, their inner positions in parts where tiles are few. */
export function estimateProduct({ rows, columns, inner }: ProductShape): ProductEstimate {
  const estimates = tileColumns.flatMap(width =>
    Array.from({ length: mostParts }, (_, n) => {
      const parts = n + 1;
      const pairs = Math.ceil(rows / 256) * Math.ceil(columns / width) * parts;
      const waves = Math.ceil(pairs / (assumed.multiprocessors / 2));
      const clocks = Math.ceil(inner / parts / slice.inner) * slice.clocks * (width / 256) + unhidden;
      const useful = (rows * columns * inner * slice.clocks) / (128 * 256 * slice.inner * assumed.multiprocessors);
      const efficiency = useful / (waves * clocks * (parts > 1 ? ofParts : 1));
      return {
        columns: width,
        parts,
        waves,
        efficiency,
        seconds: (2 * rows * columns * inner) / assumed.products / efficiency,
      };
    }),
  );
  return estimates.reduce((best, each) => (each.seconds < best.seconds ? each : best));
}

/** Operations of one launch: of attention those of the pairs that are seen, backward 5/2 of them, as `malc bench` counts. */
export function operationsOf(shape: Shape): number {
  if (shape.kind === 'product') return 2 * shape.rows * shape.columns * shape.inner;
  const { batch, time, heads, width, valueWidth, causal, window } = shape;
  const pairs = countPairs({ causal, window }, time, time);
  return (shape.pass === 'forward' ? 1 : 2.5) * 2 * batch * heads * pairs * (width + valueWidth);
}

function secondsOf(shape: Shape): number {
  if (shape.kind === 'product') return estimateProduct(shape).seconds;
  const rates = shape.width <= 64 ? assumed.attention[64] : assumed.attention[128];
  return operationsOf(shape) / rates[shape.pass];
}

export interface Prediction {
  readonly name: string;
  readonly launches: number;
  /** In a step. */
  readonly operations: number;
  readonly bytes: number;
  readonly shapes: readonly RepeatedShape[];
  readonly kind: Kind;
  readonly seconds: number;
  readonly limit: 'tensor cores' | 'memory' | 'launches';
}

export type Kind = 'products' | 'attention' | 'rows' | 'update';
export const kinds: readonly Kind[] = ['products', 'attention', 'rows', 'update'];

/** What a kernel is for the sums by kind; those of the optimizer have names of their own in every program. */
export function kindOf({ name, shapes }: Pick<KernelRow, 'name' | 'shapes'>): Kind {
  if (shapes.some(({ kind }) => kind === 'attention')) return 'attention';
  if (shapes.length > 0) return 'products';
  return ['update', 'gradient_norm', 'clear_gradients', 'prepare'].includes(name) ? 'update' : 'rows';
}

/** Every kernel of a training step in bf16, the longest first. What takes a part of the positions moves its weights each time. */
export function predictStep(model: Model, size: StepSize): Prediction[] {
  const { launches } = compile(model, { target: 'cuda', dtype: 'bf16', profile: true });
  const works = new Map<string, Work[]>();
  for (const launch of launches) {
    const { kernel, count, part, work } = launch;
    const runs = runsOf(launch, model, size);
    if (runs === 0) continue;
    const { batch, time } = size;
    const sizes = part === null ? { batch, time } : { batch: 1, time: Math.min(part, batch * time) };
    const own = {
      launches: count * runs,
      operations: runs * amount(work.operations, sizes),
      bytes: runs * (amount(work.reads, sizes) + amount(work.writes, sizes)),
      shapes: work.shapes.map(shape => ({ ...shapeAt(shape, sizes), times: runs })),
    };
    works.set(kernel, [...(works.get(kernel) ?? []), own]);
  }
  const predictions = [...works].map(([name, own]) => predict(name, own.reduce(addUp)));
  return predictions.sort((a, b) => b.seconds - a.seconds);
}

type Work = Pick<Prediction, 'launches' | 'operations' | 'bytes' | 'shapes'>;

const addUp = (a: Work, b: Work): Work => ({
  launches: a.launches + b.launches,
  operations: a.operations + b.operations,
  bytes: a.bytes + b.bytes,
  shapes: [...a.shapes, ...b.shapes],
});

function predict(name: string, work: Work): Prediction {
  const { launches, bytes, shapes } = work;
  const ofShapes = shapes.reduce((sum, shape) => sum + shape.times * secondsOf(shape), 0);
  const forMemory = bytes / assumed.memory;
  const forLaunches = launches * assumed.launch;
  const seconds = Math.max(ofShapes, forMemory, forLaunches);
  const limit = seconds === ofShapes ? 'tensor cores' : seconds === forMemory ? 'memory' : 'launches';
  return { name, ...work, kind: kindOf({ name, shapes }), seconds, limit };
}

/** How often a training step runs one of the program's functions: layers repeat theirs, the head takes parts. */
function runsOf({ function: name, part }: ProgramLaunch, { blocks, layers }: Model, { batch, time }: StepSize): number {
  if (/_(?:decode|logits|loss)$/.test(name)) return 0;
  const kind = blockStageNames(blocks).findIndex(stage => name === `${stage}_forward` || name === `${stage}_backward`);
  const runs = kind < 0 ? 1 : layers.filter(layer => layer === kind).length;
  return runs * (part === null ? 1 : Math.ceil((batch * time) / part));
}

/** The models of the run, how their parts are called, a step's size, and the tokens a second that are wanted. */
export const measuredModels = [
  { model: 'gpt2-small', part: 'gpt2', batch: 64, time: 1024, goal: 650_000 },
  { model: 'llama3-1b', part: 'llama', batch: 16, time: 2048, goal: 80_000 },
] as const;

/** Markdown of all predictions, with a column for what is measured. */
export function predictionPage(): string {
  const sections = measuredModels.map(({ model: name, batch, time, goal }) => {
    const predictions = predictStep(readModel(name).model, { batch, time });
    const seconds = predictions.reduce((sum, each) => sum + each.seconds, 0);
    const tokens = (value: number) => Math.round(value).toLocaleString('en');
    const title = `### ${name}, ${batch} x ${time}, bf16`;
    const total = `Predicted: ${milliseconds(seconds)} ms a step, ${tokens((batch * time) / seconds)} tokens/s; the goal is ${tokens(goal)}.`;
    return [title, total, kindTable(predictions, seconds), predictionTable(predictions)].join('\n\n');
  });
  return sections.join('\n\n');
}

function kindTable(predictions: readonly Prediction[], total: number): string {
  const rows = kinds.map(kind => {
    const seconds = predictions.filter(each => each.kind === kind).reduce((sum, each) => sum + each.seconds, 0);
    return [kind, milliseconds(seconds), `${((100 * seconds) / total).toFixed(1)}%`, ''];
  });
  return markdownTable(['kind', 'predicted ms', 'share', 'measured ms'], rows);
}

function predictionTable(predictions: readonly Prediction[]): string {
  const total = predictions.reduce((sum, { seconds }) => sum + seconds, 0);
  const shown = predictions.filter(({ seconds }) => seconds >= SHOWN * total);
  const rest = predictions.slice(shown.length).reduce((sum, { seconds }) => sum + seconds, 0);
  const rows = shown.map(({ name, launches, operations, bytes, shapes, seconds, limit }) => [
    name,
    launches,
    (operations / 1e9).toFixed(0),
    (bytes / 1e6).toFixed(0),
    shapes.map(describeShape).join('; '),
    milliseconds(seconds),
    limit,
    '',
  ]);
  rows.push([`${predictions.length - shown.length} others`, '', '', '', '', milliseconds(rest), '', '']);
  const columns = [
    'kernel',
    'launches',
    'GFLOP',
    'MB',
    'rows x columns x inner, waves',
    'predicted ms',
    'limit',
    'measured ms',
  ];
  return markdownTable(columns, rows);
}

function describeShape(shape: RepeatedShape): string {
  if (shape.kind === 'attention') return `${shape.heads} heads of ${shape.width}, ${shape.pass}`;
  const { columns, parts, waves, efficiency } = estimateProduct(shape);
  const schedule = `${waves} of 128 x ${columns}${parts > 1 ? ` in ${parts} parts` : ''}, ${(100 * efficiency).toFixed(0)}%`;
  return `${shape.rows} x ${shape.columns} x ${shape.inner} ${shape.layout}, ${schedule}`;
}

const milliseconds = (seconds: number) => (seconds * 1e3).toFixed(seconds < 1e-3 ? 3 : 2);
