// What a step does besides calling the functions of its stages, as launches with their work: the last lines of a profile.
import type { Parameter } from '../build/parameters.ts';
import { type Program, parametersOf } from '../build/program.ts';
import { product } from '../graph/dimension.ts';
import type { Work } from '../plan/work.ts';
import type { KernelLibrary } from './kernel-library.ts';
import { isOrthogonalised, momentsOf, type Updating } from './optimizer.ts';

/** The numbers of these launches in the profile, by their names. */
export interface StepLaunches {
  readonly clear_gradients: number;
  /** Checks what the caller gave and sets the call's sizes; on a device, the copy of the inputs. */
  readonly prepare: number;
  readonly gradient_norm: number;
  readonly update: number;
}

/** Operations of an update for one weight by the moments it has, what is the same for all left out: optimizer.h's rules. */
const updateOperations = { 0: 5, 1: 9, 2: 15 } as const;
/** Products of Newton and Schulz's iteration: templates/cpu/muon.h. */
const orthogonalSteps = 5;

/** Notes the launches of the function `step`. Averages of weights, which a program may keep, are not counted. */
export function stepLaunches(program: Program, kernels: KernelLibrary, updating: Updating): StepLaunches {
  const kept = momentsOf(updating);
  const parameters = parametersOf(program).filter(({ frozen }) => !frozen);
  const trained = parameters.filter(({ balance_rate }) => balance_rate === null);
  const sum = (among: readonly Parameter[], of: (own: Parameter) => number) =>
    among.reduce((total, own) => total + of(own), 0);
  const floats = ({ shape }: Parameter) => product(shape);
  const all = sum(trained, floats);
  const of = (count: number) => (count === 0 ? [] : [{ runtime: [], count }]);
  const work = (operations: number, read: number, written: number): Work => ({
    operations: of(operations),
    reads: of(read * Float32Array.BYTES_PER_ELEMENT),
    writes: of(written * Float32Array.BYTES_PER_ELEMENT),
    shapes: [],
  });
  const operations = (own: Parameter) =>
    updateOperations[kept(own)] * floats(own) + (isOrthogonalised(updating, own) ? orthogonalising(own) : 0);
  // Weight, gradient and moments are read; all but the gradient are written.
  const read = (own: Parameter) => (2 + kept(own)) * floats(own);
  const written = (own: Parameter) => (1 + kept(own)) * floats(own);
  return {
    clear_gradients: kernels.launch('step', 'clear_gradients', work(0, 0, sum(parameters, floats))),
    prepare: kernels.launch('step', 'prepare', work(0, 0, 0)),
    gradient_norm: kernels.launch('step', 'gradient_norm', work(2 * all, all, 0)),
    update: kernels.launch('step', 'update', work(sum(trained, operations), sum(trained, read), sum(trained, written))),
  };
}

/** Operations of Muon's products: of each matrix, or each of a stack, three for a step, two of them with all elements. */
function orthogonalising({ shape }: Parameter): number {
  const [rows, columns] = shape.slice(-2) as [number, number];
  const [short, long] = [Math.min(rows, columns), Math.max(rows, columns)];
  return (product(shape) / (rows * columns)) * orthogonalSteps * (4 * short ** 2 * long + 2 * short ** 3);
}
