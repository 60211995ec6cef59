// Optimizers: what a program keeps of each parameter besides its gradient, and which rule moves it.
import type { Parameter } from '../build/parameters.ts';
import type { Program } from '../build/program.ts';
import type { Stage } from '../build/stage.ts';

/** AdamW, Muon with AdamW for all that is no matrix of a block, Lion, and stochastic gradient descent. */
export const optimizers = ['adamw', 'muon', 'lion', 'sgd'] as const;
export type Optimizer = (typeof optimizers)[number];

/** How a program updates its weights. */
export interface Updating {
  readonly optimizer: Optimizer;
  /** Of sgd: false for steps along the gradient alone, which keep nothing of those before. */
  readonly momentum: boolean;
}

/** Says how many moments a program keeps of a parameter of one of its stages. */
export type MomentsOf = (stage: Stage, parameter: Parameter) => 0 | 1 | 2;

/**
 * AdamW keeps the means of the gradient and of its square, the others a mean of the gradient alone. Muon moves the maps of
 * blocks: rows of embeddings and of the head belong to tokens, few of which a step sees (Jordan et al. 2024).
 */
export function momentsOf({ blocks }: Program, { optimizer, momentum }: Updating): MomentsOf {
  return (stage, { balance_rate, isMap }) => {
    if (balance_rate !== null) return 0;
    if (optimizer === 'adamw') return 2;
    if (optimizer === 'muon') return isMap && blocks.some(({ name }) => name === stage.name) ? 1 : 2;
    return optimizer === 'lion' || momentum ? 1 : 0;
  };
}

/** What the frames of a program ask of its optimizer. */
export const updateFields = ({ optimizer, momentum }: Updating) => ({
  title: { adamw: 'AdamW', muon: 'Muon and AdamW', lion: 'Lion', sgd: 'SGD' }[optimizer],
  rule: `malc_${optimizer === 'sgd' && !momentum ? 'plain' : optimizer}`,
  adamw: optimizer === 'adamw',
  muon: optimizer === 'muon',
  lion: optimizer === 'lion',
  sgd: optimizer === 'sgd' && momentum,
  plain: optimizer === 'sgd' && !momentum,
});
