// Optimizers as `malc train` offers them: what each is given where nobody says, and which options it has a use for.
import { UserError } from '../../compiler/diagnostic.ts';
import type { Optimizer } from '../../compiler/emission/optimizer.ts';

/** What an optimizer is usually given; 0 for what it has no use for. */
export interface UsualUpdate {
  /** The peak of the learning rate. */
  readonly lr: number;
  readonly 'weight-decay': number;
  readonly beta1: number;
  readonly beta2: number;
  readonly momentum: number;
}

/**
 * AdamW's peak rate by the model's width: 6e-4 at 768, as the inverse of the width, which is near Brown et al. 2020, table
 * 2.1; narrow models need no more than 2e-3.
 */
const adamwRate = (hiddenSize: number): number => Math.min(2e-3, (6e-4 * 768) / hiddenSize);

const usual: Readonly<Record<Optimizer, (hiddenSize: number) => UsualUpdate>> = {
  adamw: hiddenSize => ({ lr: adamwRate(hiddenSize), 'weight-decay': 0.1, beta1: 0.9, beta2: 0.95, momentum: 0 }),
  // One rate and one decay for its matrices and for AdamW's tensors: Liu et al. 2025, section 2.2. Momentum: Jordan et al.
  // 2024.
  muon: hiddenSize => ({ lr: adamwRate(hiddenSize), 'weight-decay': 0.1, beta1: 0.9, beta2: 0.95, momentum: 0.95 }),
  // A rate 3 to 10 times smaller than AdamW's, and a decay as many times larger: Chen et al. 2023, section 5.
  lion: hiddenSize => ({ lr: adamwRate(hiddenSize) / 3, 'weight-decay': 0.3, beta1: 0.9, beta2: 0.99, momentum: 0 }),
  // As vision models have it: He et al. 2016, section 3.4.
  sgd: () => ({ lr: 0.1, 'weight-decay': 1e-4, beta1: 0, beta2: 0, momentum: 0.9 }),
};

/** What an optimizer is given of a model of this width where nobody says. */
export function usualUpdate(optimizer: Optimizer, hiddenSize: number): UsualUpdate {
  const found = usual[optimizer](hiddenSize);
  return { ...found, lr: Number(found.lr.toPrecision(2)) };
}

/** @throws UserError that names an option among those given which the optimizer has no use for. */
export function requireUseful(optimizer: Optimizer, given: Partial<UsualUpdate>): void {
  const names = { adamw: 'AdamW', muon: 'Muon', lion: 'Lion', sgd: 'SGD' };
  const users = (isUsed: (usual: UsualUpdate) => boolean) =>
    (Object.keys(usual) as Optimizer[]).filter(name => isUsed(usual[name](1))).map(name => names[name]);
  for (const name of ['beta1', 'beta2', 'momentum'] as const) {
    if ((given[name] ?? 0) === 0 || usual[optimizer](1)[name] !== 0) continue;
    throw new UserError(
      `--${name} is of no use to --optimizer ${optimizer}; leave it out, or take one that has it: ` +
        users(of => of[name] !== 0).join(', '),
    );
  }
}

/**
 * What averages keep of themselves in the `update`-th update: less at first, so that they do not remember the random
 * weights that all began with. As tf.train.ExponentialMovingAverage has it, with the updates counted.
 */
export const averageKept = (ema: number, update: number): number => Math.min(ema, (1 + update) / (10 + update));
