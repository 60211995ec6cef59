// Emits the function that queues the launches of a computation: all that other translation units know of its kernels.
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { Storage } from '../../plan/storage.ts';
import { type Argument, type KernelSource, parameterList } from './kernel-source.ts';

export interface Launcher {
  readonly text: string;
  /** Its head, as other translation units declare it. */
  readonly declaration: string;
  /** What a call hands it after the stream. */
  readonly arguments: readonly Argument[];
}

/** Sizes that a launch may name. */
const sizes = ['batch', 'time', 'sequences', 'context'] as const;

/** What the function is called that queues the kernels of this name. */
export const launcherName = (kernel: string): string => `launch_${kernel}`;

/**
 * It takes a stream, sizes that the launches name and the kernels do not take, and the kernels' parameters, and returns the
 * first error of its launches.
 */
export function emitLauncher(
  { arguments: list, launches }: Pick<KernelSource, 'arguments' | 'launches'>,
  storageOf: Storage,
): Launcher {
  const names = new Names();
  const others = list.filter(argument => !isValue(argument) && argument.kind !== 'size');
  for (const name of [...sizes, ...others.map(argumentName)]) names.unique(name);
  // Values may have any name; sizes are what the grid is computed from.
  const own = list.map(argument => (isValue(argument) ? { ...argument, name: names.unique(argument.name) } : argument));
  const given = own.map(argumentName);
  const grids = launches.map(({ grid, block, shared }) => `${grid} ${block} ${shared}`).join(' ');
  const further = sizes
    .filter(name => !given.includes(name) && new RegExp(`\\b${name}\\b`).test(grids))
    .map((name): Argument => ({ kind: 'size', name }));
  const [queue, error] = [names.unique('queue'), names.unique('error')];
  const parameters = [
    `cudaStream_t ${queue}`,
    parameterList([...further, ...own], storageOf).replaceAll('__restrict__ ', ''),
  ].filter(text => text !== '');
  const declaration = `cudaError_t ${launcherName(ownName)}(${parameters.join(', ')})`;
  const calls = launches.map(
    ({ kernel, grid, block, shared }) => `malc_launch(${[kernel, grid, block, shared, queue, ...given].join(', ')})`,
  );
  const writer = new Writer();
  writer.block(declaration, () => {
    if (calls.length === 1) {
      writer.line(`return ${calls[0]};`);
      return;
    }
    calls.forEach((call, n) => {
      writer.line(n === 0 ? `cudaError_t ${error} = ${call};` : `if (${error} == cudaSuccess) ${error} = ${call};`);
    });
    writer.line(`return ${error};`);
  });
  return { text: writer.toString(), declaration: `${declaration};`, arguments: [...further, ...list] };
}

type Value = Extract<Argument, { readonly node: Node }>;
const isValue = (argument: Argument): argument is Value => 'node' in argument;

/** What the kernel's parameter is called. */
function argumentName(argument: Argument): string {
  if ('name' in argument) return argument.name;
  return argument.kind === 'text' ? /\w+$/.exec(argument.declaration)![0] : argument.kind;
}
