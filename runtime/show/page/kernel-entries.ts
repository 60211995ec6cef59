// The kernels of a run's training step and their work, as the compiler knows it without running anything.
import { blockStageNames } from '../../../compiler/build/program.ts';
import type { Model } from '../../../compiler/check/model.ts';
import { compile } from '../../../compiler/index.ts';
import { amount } from '../../../compiler/plan/work.ts';
import type { ProductType } from '../../../compiler/targets/cpu/kernel-source.ts';
import { compiledFor, type RunTarget } from '../../../compiler/targets/names.ts';

export interface KernelEntry {
  readonly name: string;
  /** The functions of the program that launch it. */
  readonly functions: readonly string[];
  /** Of one micro-batch, in all layers: launches, floating-point operations, and bytes read and written. */
  readonly launches: number;
  readonly operations: number;
  readonly bytes: number;
}

/** What was found for a model and its sizes: runs of a sweep differ in their seeds alone. */
const found = new Map<string, KernelEntry[]>();

/**
 * Every kernel that a training step launches; those with most operations first.
 * @param options those of `malc train`; what they leave out is taken as the command takes it
 */
export function kernelsOf(model: Model, options: Readonly<Record<string, unknown>>): KernelEntry[] {
  const target = compiledFor((options.target as RunTarget | undefined) ?? 'cpu');
  const dtype = (options.dtype as ProductType | undefined) ?? 'f32';
  const sizes = { batch: Number(options['batch-size'] ?? 1), time: Number(options['seq-len'] ?? model.max_seq_len) };
  const key = JSON.stringify([model, target, dtype, sizes]);
  const known = found.get(key) ?? entriesOf(model, target, dtype, sizes);
  found.set(key, known);
  return known;
}

function entriesOf(
  model: Model,
  target: ReturnType<typeof compiledFor>,
  dtype: ProductType,
  sizes: { readonly batch: number; readonly time: number },
): KernelEntry[] {
  const entries = new Map<string, KernelEntry>();
  for (const { kernel, function: owner, count, work } of compile(model, { target, dtype }).launches) {
    const runs = runsOf(owner, model);
    if (runs === 0) continue;
    const { functions, launches, operations, bytes } = entries.get(kernel) ?? nothing;
    const moved = amount(work.reads, sizes) + amount(work.writes, sizes);
    entries.set(kernel, {
      name: kernel,
      functions: [...new Set([...functions, owner])],
      launches: launches + runs * count,
      operations: operations + runs * amount(work.operations, sizes),
      bytes: bytes + runs * moved,
    });
  }
  return [...entries.values()].toSorted((a, b) => b.operations - a.operations || b.bytes - a.bytes);
}

const nothing = { functions: [], launches: 0, operations: 0, bytes: 0 };

/** How often a step runs a function: a block's for each of its layers, those of generation and evaluation never. */
function runsOf(name: string, model: Model): number {
  const kind = blockStageNames(model.blocks).findIndex(
    block => name === `${block}_forward` || name === `${block}_backward`,
  );
  if (kind >= 0) return model.layers.filter(layer => layer === kind).length;
  return /_(decode|logits|loss)$/.test(name) ? 0 : 1;
}
