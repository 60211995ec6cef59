// Optimizers: what a program keeps of each parameter besides its gradient, and which rule moves it.
import type { Parameter } from '../build/parameters.ts';

/** AdamW; Muon, with AdamW for all that is no map; Lion; and stochastic gradient descent. */
export const optimizers = ['adamw', 'muon', 'lion', 'sgd'] as const;
export type Optimizer = (typeof optimizers)[number];

/** How a program updates its weights. */
export interface Updating {
  readonly optimizer: Optimizer;
  /** Of sgd: false for steps along the gradient alone, which keep nothing of those before. */
  readonly momentum: boolean;
}

/**
 * Whether Muon moves a parameter: a map of features to features. Rows of embeddings, of the head and of routers belong to
 * somebody, and a step sees few of them (Jordan et al. 2024).
 */
export const isOrthogonalised = ({ optimizer }: Updating, { isMap }: Parameter): boolean =>
  optimizer === 'muon' && isMap;

/**
 * How many moments a program keeps of a parameter: AdamW those of the gradient and of its square, others of the gradient
 * alone.
 */
export const momentsOf =
  (updating: Updating) =>
  (parameter: Parameter): 0 | 1 | 2 => {
    const { optimizer, momentum } = updating;
    if (parameter.balance_rate !== null || parameter.frozen) return 0;
    if (optimizer === 'sgd') return momentum ? 1 : 0;
    return optimizer === 'lion' || isOrthogonalised(updating, parameter) ? 1 : 2;
  };

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
