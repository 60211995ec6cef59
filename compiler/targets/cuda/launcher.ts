// Emits the function that queues the launches of a computation: all that other translation units know of its kernels.
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Storage } from '../../plan/storage.ts';
import { type Argument, type KernelSource, parameterList } from './kernel-source.ts';

export interface Launcher {
  readonly text: string;
  /** Its head, as other translation units declare it. */
  readonly declaration: string;
}

/** What the function is called that queues the kernels of this name. */
export const launcherName = (kernel: string): string => `launch_${kernel}`;

/** It takes a stream and the kernels' parameters, and returns the first error of its launches. */
export function emitLauncher(
  { arguments: list, launches }: Pick<KernelSource, 'arguments' | 'launches'>,
  storageOf: Storage,
): Launcher {
  const names = new Names();
  const given = list.map(argumentName);
  for (const name of given) names.unique(name);
  const [queue, error] = [names.unique('queue'), names.unique('error')];
  const declaration = `cudaError_t ${launcherName(ownName)}(${[
    `cudaStream_t ${queue}`,
    ...(list.length > 0 ? [parameterList(list, storageOf).replaceAll('__restrict__ ', '')] : []),
  ].join(', ')})`;
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
  return { text: writer.toString(), declaration: `${declaration};` };
}

/** What a kernel calls an argument. */
function argumentName(argument: Argument): string {
  switch (argument.kind) {
    case 'size':
    case 'input':
    case 'output':
    case 'copy':
      return argument.name;
    case 'adds':
    case 'workspace':
      return argument.kind;
    case 'text':
      return /\w+$/.exec(argument.declaration)![0];
  }
}
