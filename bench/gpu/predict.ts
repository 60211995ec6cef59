// What each kernel of a training step should take on a Hopper GPU: reckoned from its work, never measured. The run's
// tables have these numbers beside what was measured, and `npm run gpu -- --predict` prints them alone.

import { blockStageNames } from '../../compiler/build/program.ts';
import type { Model } from '../../compiler/check/model.ts';
import { readModel } from '../../compiler/check/read-model.ts';
import type { Sizes } from '../../compiler/graph/dimension.ts';
import { compile } from '../../compiler/index.ts';
import { type ProductExtents, type Shape, type ShapeExtents, shapeAt } from '../../compiler/plan/shapes.ts';
import { amount, countPairs } from '../../compiler/plan/work.ts';
import type { ProgramLaunch } from '../../compiler/targets/cpu/index.ts';
import { type HopperSchedule, rankSchedules } from '../../compiler/targets/cuda/hopper-schedule.ts';
import type { ProductWork } from '../../compiler/targets/cuda/product-tiles.ts';
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

/** Cycles a second in which tensor cores do what `assumed.products` says: the cost model counts cycles. */
const clock = assumed.products / (assumed.multiprocessors * 4096);
/** What a schedule needs to finish a tile: the cost model's usual. */
const slots = { least: 1, best: 2 };

/** The products of one launch as the compiler's cost model would have them. */
export interface ProductEstimate {
  readonly schedule: HopperSchedule;
  readonly seconds: number;
}

/** The best schedule of products that are launched together, where nothing stands in the way of their tiles. */
export function estimateProducts(products: readonly ProductExtents[], sizes: Sizes): ProductEstimate {
  const works = products.map((extents): ProductWork => {
    const { rows, columns, inner } = shapeAt(extents, sizes) as ProductShape;
    // Gradients of weights: the inner positions are the tokens, and may be summed up in parts.
    const isDivisible = extents.rows.runtime.length === 0 && extents.inner.runtime.length > 0;
    return { kind: 'bf16', rows, columns, inner, results: 1, beside: 1, step: 1, isDivisible };
  });
  const { multiprocessors } = assumed;
  const tokens = sizes.batch! * sizes.time!;
  const [best] = rankSchedules(works, slots, { tokens, multiprocessors });
  return { schedule: best!.schedule, seconds: best!.cycles / clock };
}

type ProductShape = Extract<Shape, { kind: 'product' }>;

/** Operations of one launch. Attention's are those of the pairs that are seen, backward 5/2 of them, as `malc bench` has it. */
export function operationsOf(shape: Shape): number {
  if (shape.kind === 'product') return 2 * shape.rows * shape.columns * shape.inner;
  const { batch, time, heads, width, valueWidth, causal, window } = shape;
  const pairs = countPairs({ causal, window }, time, time);
  return (shape.pass === 'forward' ? 1 : 2.5) * 2 * batch * heads * pairs * (width + valueWidth);
}

/** Seconds of what one launch multiplies. */
function multiplySeconds(shapes: readonly ShapeExtents[], sizes: Sizes): number {
  const products = shapes.filter(shape => shape.kind === 'product');
  const attention = shapes.flatMap(extents => {
    const shape = shapeAt(extents, sizes);
    if (shape.kind !== 'attention') return [];
    const rates = shape.width <= 64 ? assumed.attention[64] : assumed.attention[128];
    return [operationsOf(shape) / rates[shape.pass]];
  });
  const ofProducts = products.length > 0 ? estimateProducts(products, sizes).seconds : 0;
  return attention.reduce((a, b) => a + b, ofProducts);
}

export interface Prediction {
  readonly name: string;
  readonly launches: number;
  /** In a step. */
  readonly operations: number;
  readonly bytes: number;
  readonly shapes: readonly RepeatedShape[];
  /** One for each function that launches it with products. */
  readonly schedules: readonly HopperSchedule[];
  /** Seconds of what it multiplies. */
  readonly multiplying: number;
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

/** Every kernel of a training step in bf16, the longest first. What takes positions in parts moves its weights each time. */
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
      schedules: schedulesOf(work.shapes, sizes),
      multiplying: runs * multiplySeconds(work.shapes, sizes),
    };
    works.set(kernel, [...(works.get(kernel) ?? []), own]);
  }
  const predictions = [...works].map(([name, own]) => predict(name, own.reduce(addUp)));
  return predictions.sort((a, b) => b.seconds - a.seconds);
}

type Work = Pick<Prediction, 'launches' | 'operations' | 'bytes' | 'shapes' | 'schedules' | 'multiplying'>;

function schedulesOf(shapes: readonly ShapeExtents[], sizes: Sizes): HopperSchedule[] {
  const products = shapes.filter(shape => shape.kind === 'product');
  return products.length > 0 ? [estimateProducts(products, sizes).schedule] : [];
}

const addUp = (a: Work, b: Work): Work => ({
  launches: a.launches + b.launches,
  operations: a.operations + b.operations,
  bytes: a.bytes + b.bytes,
  shapes: [...a.shapes, ...b.shapes],
  schedules: [...a.schedules, ...b.schedules],
  multiplying: a.multiplying + b.multiplying,
});

function predict(name: string, work: Work): Prediction {
  const { launches, bytes, shapes, multiplying } = work;
  const forMemory = bytes / assumed.memory;
  const forLaunches = launches * assumed.launch;
  const seconds = Math.max(multiplying, forMemory, forLaunches);
  const limit = seconds === multiplying ? 'tensor cores' : seconds === forMemory ? 'memory' : 'launches';
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
    const speed = `${tokens((batch * time) / seconds)} tokens/s; the goal is ${tokens(goal)}`;
    const total = `Predicted: ${milliseconds(seconds)} ms a step, ${speed}.`;
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
  const rows = shown.map(each => [
    each.name,
    each.launches,
    (each.operations / 1e9).toFixed(0),
    (each.bytes / 1e6).toFixed(0),
    describeWork(each),
    milliseconds(each.seconds),
    each.limit,
    '',
  ]);
  rows.push([`${predictions.length - shown.length} others`, '', '', '', '', milliseconds(rest), '', '']);
  const columns = [
    'kernel',
    'launches',
    'GFLOP',
    'MB',
    'what it multiplies, and its schedule',
    'predicted ms',
    'limit',
    'measured ms',
  ];
  return markdownTable(columns, rows);
}

function describeWork({ shapes, schedules, operations, multiplying }: Prediction): string {
  const texts = shapes.map(shape =>
    shape.kind === 'attention'
      ? `${shape.heads} heads of ${shape.width}, ${shape.pass}`
      : `${shape.rows} x ${shape.columns} x ${shape.inner} ${shape.layout}`,
  );
  const share = (100 * operations) / assumed.products / multiplying;
  const ways = schedules.map(({ columns, cluster, parts }) => {
    const inParts = parts.some(count => count > 1) ? `, parts ${parts.join(' ')}` : '';
    return `128 x ${columns} in clusters of ${cluster}${inParts}: ${share.toFixed(0)}%`;
  });
  return [...texts, ...ways].join('; ');
}

const milliseconds = (seconds: number) => (seconds * 1e3).toFixed(seconds < 1e-3 ? 3 : 2);
