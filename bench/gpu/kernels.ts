// The parts with the kernels of a step: each one's time as `malc bench kernels` measures it, against the ceilings that
// it measures in the same process, the libraries that do the same work, and what was predicted.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readModel } from '../../compiler/check/read-model.ts';
import type { RepeatedShape } from '../../runtime/bench/kernels.ts';
import { useCublas } from './cublas.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { bestOf, describe, measurePeers, type Peers, type PeerTime } from './peers.ts';
import { type Kind, kindOf, kinds, operationsOf, predictStep } from './predict.ts';
import { callMalc, lastLines, targetOf } from './programs.ts';

/** Of what `malc bench kernels --json` prints, what is kept: numbers of one step. */
interface Measured {
  readonly name: string;
  readonly calls: number;
  readonly seconds: number;
  readonly share: number;
  readonly operations: number;
  readonly bytes: number;
  readonly of_ceiling: number;
  readonly bound: 'arithmetic' | 'memory';
  readonly shapes: readonly RepeatedShape[];
  /** How its products are divided, in words. */
  readonly schedule: string | null;
}

export interface Kernel extends Measured {
  readonly kind: Kind;
  /** Null where the program has no such kernel by the compiler's word, as in a dry run. */
  readonly predicted_seconds: number | null;
  /** The quickest libraries for all that it multiplies, and their time; null where one is missing. */
  readonly peer: { readonly libraries: readonly string[]; readonly seconds: number } | null;
  readonly limit: Limit;
}

/** What holds a kernel back, as far as times say it. */
type Limit = 'tensor cores' | 'arithmetic' | 'memory' | 'launches' | 'waves, finishing' | 'latency';

export interface Kernels extends Item {
  readonly configuration: string;
  readonly step_seconds?: number;
  readonly outside_seconds?: number;
  readonly kernels: readonly Kernel[];
  /** Every library at every shape, and what it could not do. */
  readonly libraries: readonly PeerTime[];
  readonly problems: readonly string[];
}

/** Smaller kernels stand in the JSON. */
const SHOWN = 32;
/** Shares of a part's seconds: malc's, then the libraries'. */
const OWN = 0.7;
/** From here on a ceiling is what holds a kernel back. */
const NEAR = 0.8;
/** A prediction has the waves and what nothing hides in it: so near to it, these are what is lost. */
const AS_PREDICTED = 1.1;
/** A launch that takes less is mostly one. */
const LAUNCH_SECONDS = 5e-6;

/**
 * A part that measures the kernels of one model's step.
 * @param tunes whether products are measured in several ways before, and computed in the fastest
 */
export function kernelPart(
  name: string,
  model: string,
  batch: number,
  time: number,
  seconds: number,
  tunes = false,
): Part {
  return {
    name,
    title: `Kernels of a step of ${model}, ${batch} x ${time}, bf16${tunes ? ', products tuned' : ''}`,
    seconds,
    async measure({ dry, seconds: limit, report }) {
      const size = dry ? { model: 'tiny', batch: 2, time: 32 } : { model, batch, time };
      const sizes = ['--model', size.model, '--batch-size', String(size.batch), '--seq-len', String(size.time)];
      const target = dry ? ['--steps', '2'] : ['--target', targetOf(dry)];
      // What a dry run measures is nobody's history.
      const history = dry ? ['--history', join(tmpdir(), `malc-gpu-dry-${process.pid}.jsonl`)] : [];
      // Tuning takes minutes of a CPU, and a dry run has no other.
      const tuning = tunes && !dry ? ['--autotune'] : [];
      const words = ['bench', 'kernels', ...sizes, '--dtype', 'bf16', '--json', ...target, ...history, ...tuning];
      const began = performance.now();
      if (tuning.length > 0) await useCublas();
      const { printed, output } = await callMalc(words, { seconds: OWN * limit });
      const configuration = `${size.model}:${size.batch}:${size.time}`;
      const measured = stepOf(printed);
      if (!measured) {
        report<Kernels>({ configuration, kernels: [], libraries: [], problems: [], failed: lastLines(output) });
        return;
      }
      const predictions = new Map(
        predictStep(readModel(size.model).model, size).map(each => [each.name, each.seconds]),
      );
      const left = limit - (performance.now() - began) / 1000;
      const shapes = measured.kernels.flatMap(kernel => kernel.shapes);
      const peers = await measurePeers(shapes, dry, left - 3);
      const kernels = measured.kernels.map(kernel => judge(kernel, predictions.get(kernel.name) ?? null, peers));
      const { times: libraries, problems } = peers;
      report<Kernels>({ ...measured, configuration, kernels, libraries, problems });
    },
    table(items) {
      const found = items as readonly Kernels[];
      const wanted = `${model}:${batch}:${time}`;
      const notes = found.flatMap(({ configuration: own }) => (own === wanted ? [] : [`${own} stands for ${wanted}.`]));
      return [...notes, ...found.map(tableOf)].join('\n\n');
    },
  };
}

function stepOf(printed: string) {
  try {
    const { kernels, step_seconds, outside_seconds } = JSON.parse(printed);
    return { kernels: kernels as readonly Measured[], step_seconds, outside_seconds };
  } catch {
    return null; // it printed why instead
  }
}

function judge(kernel: Measured, predicted: number | null, peers: Peers): Kernel {
  const { shapes } = kernel;
  const best = shapes.map(shape => ({ shape, peer: bestOf(peers, shape) }));
  const isWhole = best.length > 0 && best.every(({ peer }) => peer !== null);
  const peer = isWhole
    ? {
        libraries: [...new Set(best.map(each => each.peer!.library))],
        seconds: best.reduce((sum, each) => sum + each.shape.times * each.peer!.seconds, 0),
      }
    : null;
  return { ...kernel, kind: kindOf(kernel), predicted_seconds: predicted, peer, limit: limitOf(kernel, predicted) };
}

function limitOf({ seconds, calls, of_ceiling, bound, shapes }: Measured, predicted: number | null): Limit {
  if (of_ceiling >= NEAR) return bound === 'memory' ? 'memory' : shapes.length > 0 ? 'tensor cores' : 'arithmetic';
  if (seconds / calls < LAUNCH_SECONDS) return 'launches';
  const isAsPredicted = predicted !== null && seconds < AS_PREDICTED * predicted;
  return shapes.length > 0 && isAsPredicted ? 'waves, finishing' : 'latency';
}

function tableOf({ kernels, step_seconds, outside_seconds, configuration, libraries, problems }: Kernels): string {
  if (step_seconds === undefined) return '';
  const rows = kernels.slice(0, SHOWN).map(each => {
    const { name, calls, seconds, share, operations, bytes, of_ceiling, predicted_seconds, peer, limit, schedule } =
      each;
    return [
      name,
      calls,
      milliseconds(seconds),
      `${(100 * share).toFixed(1)}%`,
      predicted_seconds === null ? '' : milliseconds(predicted_seconds),
      (operations / seconds / 1e12).toFixed(1),
      (bytes / seconds / 1e12).toFixed(2),
      `${(100 * of_ceiling).toFixed(0)}%`,
      peer ? milliseconds(peer.seconds) : '',
      peer ? (peer.seconds / seconds).toFixed(2) : '',
      peer ? peer.libraries.join(', ') : '',
      limit,
      schedule ?? '',
    ];
  });
  const own = ['kernel', 'launches', 'ms', 'share', 'predicted ms', 'TFLOP/s', 'TB/s', 'of ceiling'];
  const columns = [...own, 'library ms', 'ratio', 'library', 'held back by', 'divided'];
  const rest = kernels.length > SHOWN ? `, the ${SHOWN} longest of ${kernels.length} kernels` : '';
  return [
    `${configuration}, ${milliseconds(step_seconds)} ms a step, ${milliseconds(outside_seconds ?? 0)} of it in no launch:`,
    kindTable(kernels),
    `By kernel${rest}. A library's time is that of its products or attention alone, without what malc's kernel does besides.`,
    "The ratio is its time over malc's:",
    markdownTable(columns, rows),
    'The libraries, one launch of each shape:',
    libraryTable(libraries),
    problems.map(problem => `- not measured: ${problem}`).join('\n'),
  ].join('\n\n');
}

function kindTable(kernels: readonly Kernel[]): string {
  const rows = kinds.map(kind => {
    const own = kernels.filter(kernel => kernel.kind === kind);
    const sum = (of: (kernel: Kernel) => number) => own.reduce((total, kernel) => total + of(kernel), 0);
    const predicted = sum(({ predicted_seconds }) => predicted_seconds ?? 0);
    return [kind, milliseconds(sum(({ seconds }) => seconds)), milliseconds(predicted)];
  });
  return markdownTable(['kind', 'ms', 'predicted ms'], rows);
}

function libraryTable(libraries: readonly PeerTime[]): string {
  const rows = libraries.map(({ shape, library, seconds }) => [
    describe(shape),
    library,
    milliseconds(seconds),
    shape.kind === 'copy' ? '' : (operationsOf(shape) / seconds / 1e12).toFixed(1),
  ]);
  return markdownTable(['shape', 'library', 'ms', 'TFLOP/s'], rows);
}

const milliseconds = (seconds: number) => (seconds * 1e3).toFixed(3);
