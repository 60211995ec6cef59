// What a step does besides calling the functions of its stages, as launches with their work: the last lines of a profile.
import type { Parameter } from '../build/parameters.ts';
import { type Program, parametersOf } from '../build/program.ts';
import { product } from '../graph/dimension.ts';
import type { Work } from '../plan/work.ts';
import type { KernelLibrary } from './kernel-library.ts';

/** The numbers of these launches in the profile, by their names. */
export interface StepLaunches {
  readonly clear_gradients: number;
  /** Checks what the caller gave and sets the call's sizes; on a device, the copy of the inputs. */
  readonly prepare: number;
  readonly gradient_norm: number;
  readonly update: number;
}

/** Operations of AdamW for one weight: malc_adamw_update of templates/cpu/runtime.h and templates/cuda/program.h, what is the same for all left out. */
const updateOperations = 15;

/** Notes the launches of the function `step`. */
export function stepLaunches(program: Program, kernels: KernelLibrary): StepLaunches {
  const parameters = parametersOf(program).filter(({ frozen }) => !frozen);
  const floats = (among: readonly Parameter[]) => among.reduce((sum, { shape }) => sum + product(shape), 0);
  const all = floats(parameters);
  const trained = floats(parameters.filter(({ balance_rate }) => balance_rate === null));
  const of = (count: number) => (count === 0 ? [] : [{ runtime: [], count }]);
  const work = (operations: number, read: number, written: number): Work => ({
    operations: of(operations),
    reads: of(read * Float32Array.BYTES_PER_ELEMENT),
    writes: of(written * Float32Array.BYTES_PER_ELEMENT),
    shapes: [],
  });
  return {
    clear_gradients: kernels.launch('step', 'clear_gradients', work(0, 0, all)),
    prepare: kernels.launch('step', 'prepare', work(0, 0, 0)),
    gradient_norm: kernels.launch('step', 'gradient_norm', work(2 * trained, trained, 0)),
    // Weight, gradient and moments are read; all but the gradient are written.
    update: kernels.launch('step', 'update', work(updateOperations * trained, 4 * trained, 3 * trained)),
  };
}
