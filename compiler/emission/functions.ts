// Emits a graph as one function that runs its kernels in order, and the kernels, each distinct one once: what all targets
// have in common of it.
import type { Node } from '../graph/graph.ts';
import { explainKernel } from '../kernels/explain.ts';
import type { Kernel } from '../kernels/kernel.ts';
import type { Extent } from '../plan/extent.ts';
import type { LoweredFunction } from '../plan/plan.ts';
import type { ElementStorage, Storage } from '../plan/storage.ts';
import { type Work, workOf, workOfCopy } from '../plan/work.ts';
import { countText } from './index-text.ts';
import type { KernelLibrary } from './kernel-library.ts';
import type { KernelSurroundings } from './kernel-outputs.ts';
import { kernelName, nameValues } from './naming.ts';
import { declareValues, type Homes, placeValues } from './places.ts';
import { Writer } from './writer.ts';

/** A kernel as a target emits it. */
export interface EmittedKernel {
  /** Its own name as @NAME@: equal kernels are recognised by it. */
  readonly text: string;
  /** How other translation units know it, likewise. */
  readonly declaration?: string;
  /** How its products are divided, in words, where that was chosen among several ways. */
  readonly schedule?: string | null;
  /** What a call hands it: `adds` where it can store gradients too; a workspace has extents, whose sum are its floats. */
  readonly arguments: readonly { readonly kind: string; readonly extents?: readonly Extent[] }[];
}

/** What a target makes of the parts of a function. */
export interface FunctionTarget<Source extends EmittedKernel> {
  typeOf(node: Node, storage: ElementStorage): string;
  emitKernel(kernel: Kernel, surroundings: KernelSurroundings): Source;
  /** The statement that runs a kernel. */
  callText(name: string, source: Source, places: ReadonlyMap<Node, string>, kernel: Kernel): string;
  /** The statement that copies floats, or adds them to what is there. */
  copyText(to: string, from: string, count: string, accumulate: boolean): string;
  /** How a kernel reads what it is handed, where it is not as it is stored. */
  readAs?(source: Source, storage: Storage): Storage;
}

export interface EmittedFunction<Source extends EmittedKernel> {
  readonly name: string;
  readonly text: string;
  /** Names of the kernels that it launches, in order. */
  readonly launches: readonly string[];
  /** Workspace of each launch that needs one. */
  readonly workspaces: readonly (readonly Extent[])[];
  /** Names of outputs that are added to their buffers, and stored there instead where the call says so. */
  readonly stored: readonly string[];
  /** What was emitted for each launch. */
  readonly sources: readonly Source[];
}

/**
 * Emits one function of a stage, and adds its kernels to the program's.
 * @param parameters those of the function, as text
 */
export function emitLoweredFunction<Source extends EmittedKernel>(
  { graph, schedule, plan, storage }: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  target: FunctionTarget<Source>,
): EmittedFunction<Source> {
  const values = placeValues(graph, homes);
  const { places, outputNames, isGradient } = values;
  const writer = new Writer();
  const launches: string[] = [];
  const sources: Source[] = [];
  const stored: string[] = [];
  /** Says whose the time since the last lap is. */
  const lap = (kernel: string, work: Work) => {
    const number = kernels.launch(graph.name, kernel, work);
    if (kernels.profile) writer.line(`malc_lap(run->watch, ${number});`);
  };
  writer.block(`static void ${graph.name}(${parameters})`, () => {
    declareValues(writer, values, plan, parameters, node => target.typeOf(node, storage(node)));
    if (kernels.profile) writer.line('malc_start(run->watch);');
    for (const kernel of schedule.kernels) {
      const names = nameValues(kernel, outputNames);
      const nameOf = (node: Node) => names.get(node)!;
      const comment = explainKernel(kernel, nameOf);
      const surroundings = { nameOf, accumulates: values.accumulates, isGradient, comment, storageOf: storage };
      const source = target.emitKernel(kernel, surroundings);
      const name = kernels.add(source, `${stage}_${kernelName(kernel, outputNames)}`, kernel.kind, comment);
      launches.push(name);
      sources.push(source);
      if (source.arguments.some(({ kind }) => kind === 'adds'))
        stored.push(...kernel.outputs.filter(isGradient).map(node => outputNames.get(node)!));
      writer.line(target.callText(name, source, places, kernel));
      lap(name, workOf(kernel, values.accumulates, target.readAs?.(source, storage) ?? storage));
    }
    for (const { from, to, accumulate } of values.copies) {
      const count = countText(from.dimensions).replace(/\b(batch|time|sequences|context)\b/g, 'run->$1');
      writer.line(target.copyText(to, places.get(from)!, count, accumulate));
      lap('copies', workOfCopy(from, accumulate));
    }
  });
  const workspaces = sources.flatMap(source => source.arguments.flatMap(({ extents }) => (extents ? [extents] : [])));
  return { name: graph.name, text: writer.toString(), launches, workspaces, stored, sources };
}
