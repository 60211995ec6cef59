// What a step does besides calling the functions of its stages, as launches with their work: the last lines of a profile.
import type { Parameter } from '../build/parameters.ts';
import type { Program } from '../build/program.ts';
import type { Stage } from '../build/stage.ts';
import { product } from '../graph/dimension.ts';
import type { Work } from '../plan/work.ts';
import type { KernelLibrary } from './kernel-library.ts';
import type { MomentsOf } from './optimizer.ts';

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
export function stepLaunches(program: Program, kernels: KernelLibrary, moments: MomentsOf): StepLaunches {
  const parameters = everyParameter(program);
  const trained = parameters.filter(({ parameter }) => parameter.balance_rate === null);
  const sum = (among: readonly Own[], of: (own: Own) => number) => among.reduce((total, own) => total + of(own), 0);
  const floats = ({ parameter }: Own) => product(parameter.shape);
  const kept = (own: Own) => moments(own.stage, own.parameter);
  const all = sum(trained, floats);
  const of = (count: number) => (count === 0 ? [] : [{ runtime: [], count }]);
  const work = (operations: number, read: number, written: number): Work => ({
    operations: of(operations),
    reads: of(read * Float32Array.BYTES_PER_ELEMENT),
    writes: of(written * Float32Array.BYTES_PER_ELEMENT),
    shapes: [],
  });
  const isOrthogonalised = (own: Own) => kept(own) === 1 && trained.some(other => kept(other) === 2);
  const operations = (own: Own) =>
    updateOperations[kept(own)] * floats(own) + (isOrthogonalised(own) ? orthogonalising(own.parameter) : 0);
  return {
    clear_gradients: kernels.launch('step', 'clear_gradients', work(0, 0, sum(parameters, floats))),
    prepare: kernels.launch('step', 'prepare', work(0, 0, 0)),
    gradient_norm: kernels.launch('step', 'gradient_norm', work(2 * all, all, 0)),
    // Weight, gradient and moments are read; all but the gradient are written.
    update: kernels.launch(
      'step',
      'update',
      work(
        sum(trained, operations),
        sum(trained, own => (2 + kept(own)) * floats(own)),
        sum(trained, own => (1 + kept(own)) * floats(own)),
      ),
    ),
  };
}

/** Operations of Muon's products: of each matrix, or each of a stack, three for a step, two of them with all elements. */
function orthogonalising({ shape }: Parameter): number {
  const [rows, columns] = shape.slice(-2) as [number, number];
  const [short, long] = [Math.min(rows, columns), Math.max(rows, columns)];
  return (product(shape) / (rows * columns)) * orthogonalSteps * (4 * short ** 2 * long + 2 * short ** 3);
}

/** A parameter of one of the program's stages. */
interface Own {
  readonly stage: Stage;
  readonly parameter: Parameter;
}

/** The parameters of every layer and module, those that stages share once. */
function everyParameter({ model, embedding, blocks, head, modules }: Program): Own[] {
  const own = (stage: Stage, others: readonly Own[] = []): Own[] =>
    stage.parameters
      .filter(({ name }) => !others.some(({ parameter }) => parameter.name === name))
      .map(parameter => ({ stage, parameter }));
  const embedded = own(embedding);
  const outer = [...embedded, ...own(head, embedded)];
  const ofModule = modules
    ? [...own(modules.join, outer), ...own(blocks[model.layers.at(-1)!]!), ...own(modules.head, outer)]
    : [];
  return [
    ...outer,
    ...model.layers.flatMap(kind => own(blocks[kind]!)),
    ...Array.from({ length: model.mtp?.depth ?? 0 }, () => ofModule).flat(),
  ];
}
