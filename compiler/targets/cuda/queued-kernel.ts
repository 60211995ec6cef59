// A kernel with the function that queues it, as programs have it.
import { unusedParameters } from '../../emission/homes.ts';
import type { Storage } from '../../plan/storage.ts';
import type { KernelSource } from './kernel-source.ts';
import { emitLauncher, type Launcher } from './launcher.ts';

export type QueuedKernel = KernelSource & Launcher;

export function queuedKernel(source: KernelSource, storageOf: Storage): QueuedKernel {
  const launcher = emitLauncher(source, storageOf);
  return { ...source, ...launcher, text: `${withUnused(source.text)}\n${launcher.text}` };
}

/** All launches of a kernel get the same arguments: each __global__ function names those that it does not use. */
function withUnused(text: string): string {
  const parts = text.split(/^(?=static __global__ void )/m);
  return parts
    .map(part => {
      if (!part.startsWith('static __global__ void ')) return part;
      const end = part.indexOf('\n}\n') + 3;
      // What bounds the launch is no parameter.
      const [bounds = ''] = /__launch_bounds__\([^)]*\)\s*/.exec(part) ?? [];
      return (
        unusedParameters(part.slice(0, end).replace(bounds, '')).replace('void ', `void ${bounds}`) + part.slice(end)
      );
    })
    .join('');
}
