// What a program keeps of each parameter in training, in bytes, all of it in float32. Activations are not in it.
import type { Parameter } from '../build/parameters.ts';
import { type Program, parametersOf } from '../build/program.ts';
import { product } from '../graph/dimension.ts';
import { momentsOf, type Updating } from './optimizer.ts';

export interface TrainingState {
  readonly weights: number;
  /** Of all that is not frozen; of a bias that balances experts, their loads. */
  readonly gradients: number;
  readonly moments: number;
}

export function trainingState(program: Program, updating: Updating): TrainingState {
  const parameters = parametersOf(program);
  const bytes = (copies: (own: Parameter) => number) =>
    parameters.reduce((sum, own) => sum + copies(own) * product(own.shape) * Float32Array.BYTES_PER_ELEMENT, 0);
  return {
    weights: bytes(() => 1),
    gradients: bytes(({ frozen }) => (frozen ? 0 : 1)),
    moments: bytes(momentsOf(updating)),
  };
}
