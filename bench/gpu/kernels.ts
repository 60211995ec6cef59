// The parts with the kernels of a step: each one's time and work, as `malc bench kernels` measures them, against the
// ceilings that the part `ceilings` found on the same device.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { callMalc, lastLines, targetOf } from './programs.ts';

/** Of what `malc bench kernels --json` prints, what is kept: numbers of one step. */
interface Kernel {
  readonly name: string;
  readonly calls: number;
  readonly seconds: number;
  readonly share: number;
  readonly operations: number;
  readonly bytes: number;
  readonly of_ceiling: number;
  readonly bound: string;
}

interface Kernels extends Item {
  readonly configuration: string;
  readonly step_seconds?: number;
  readonly kernels: readonly Kernel[];
}

/** Smaller kernels stand in the JSON. */
const SHOWN = 24;

/** A part that measures the kernels of one model's step. */
export function kernelPart(name: string, model: string, batch: number, time: number, seconds: number): Part {
  return {
    name,
    title: `Kernels of a step of ${model}, ${batch} x ${time}, bf16`,
    seconds,
    async measure({ dry, report }) {
      const size = dry ? ['tiny', '2', '32'] : [model, String(batch), String(time)];
      const [named, sequences, tokens] = size as [string, string, string];
      const words = ['--model', named, '--batch-size', sequences, '--seq-len', tokens, '--dtype', 'bf16', '--json'];
      const target = dry ? ['--steps', '2'] : ['--target', targetOf(dry)];
      // What a dry run measures is nobody's history.
      const history = dry ? ['--history', join(tmpdir(), `malc-gpu-dry-${process.pid}.jsonl`)] : [];
      const { printed, output } = await callMalc(['bench', 'kernels', ...words, ...target, ...history]);
      const configuration = size.join(':');
      report(kernelsOf(configuration, printed) ?? { configuration, kernels: [], failed: lastLines(output) });
    },
    table: items => (items as readonly Kernels[]).map(tableOf).join('\n\n'),
  };
}

function kernelsOf(configuration: string, printed: string): Kernels | null {
  try {
    const { kernels, step_seconds } = JSON.parse(printed);
    return { configuration, kernels, step_seconds };
  } catch {
    return null; // it printed why instead
  }
}

function tableOf({ kernels, step_seconds, configuration }: Kernels): string {
  if (step_seconds === undefined) return '';
  const rows = kernels
    .slice(0, SHOWN)
    .map(({ name, calls, seconds, share, operations, bytes, of_ceiling, bound }) => [
      name,
      calls,
      (seconds * 1e3).toFixed(3),
      `${(100 * share).toFixed(1)}%`,
      (operations / seconds / 1e12).toFixed(1),
      (bytes / seconds / 1e9).toFixed(0),
      `${(100 * of_ceiling).toFixed(0)}%`,
      bound,
    ]);
  const columns = ['kernel', 'launches', 'ms', 'share', 'TFLOP/s', 'GB/s', 'of ceiling', 'bound by'];
  const rest = kernels.length > SHOWN ? `, the ${SHOWN} longest of ${kernels.length} kernels` : '';
  return `${configuration}, ${(step_seconds * 1e3).toFixed(1)} ms a step${rest}:\n\n${markdownTable(columns, rows)}`;
}
