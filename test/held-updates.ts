// Holds the updates of a compiled program against the optimizers' rules in float64, and against what each is to keep.
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { NativeModel, NativeParameter, Update } from '../runtime/native.ts';
import { batchOf, scramble } from './held-against-oracle.ts';
import { adamw, muon, type Rule, type Tensor } from './optimizer-rules.ts';
import { relativeError } from './oracle.ts';

const parsed = (text: string): Model => check(parse(text, 'held.mal').syntax).model!;

/** Matrices that are wide, tall, square, stacked and of odd sizes; tables, filters and routers, which are none of Muon's. */
export const mixed = parsed(`
  attention heads { num_heads: 2 }
  ffn sparse { hidden_dim: 13  moe { experts: 3  top_k: 2  router: sigmoid  balance: aux_free { rate: 0.01 } } }
  ffn dense { hidden_dim: 50  bias: true }
  ssm mamba { state_dim: 3  conv_kernel: 3 }
  block chooses { attention: heads  ffn: sparse }
  block remembers { ssm: mamba  ffn: dense }
  model mixed { vocab_size: 24  max_seq_len: 16  hidden_size: 20  layers: [chooses, remembers] }
`);

/** The same without what takes a compiler long. */
export const small = parsed(`
  model small {
    vocab_size: 24  max_seq_len: 16  hidden_size: 20  num_layers: 1
    block { attention { num_heads: 2 } ffn { hidden_dim: 50 } }
  }
`);

/** What an optimizer does to each parameter, and how many moments it keeps of it. */
export interface Rules {
  readonly ruleOf: (own: NativeParameter) => Rule;
  readonly moments: (own: NativeParameter) => number;
}

/** What Muon moves: matrices of blocks that map features to features. */
const isMap = ({ name, shape }: NativeParameter) =>
  shape.length > 1 && name.includes('.layers.') && !/conv1d|A_log|mlp\.gate\./.test(name);

export const muonsRules: Rules = {
  ruleOf: own => (isMap(own) ? muon : adamw),
  moments: own => (isMap(own) ? 1 : 2),
};

export const update: Update = {
  learningRate: 0.02,
  weightDecay: 0.1,
  clipNorm: 0.5,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  momentum: 0.9,
  average: 0.75,
  update: 1,
};

const doubles = (values: ArrayLike<number>) => Float64Array.from(values);
export const stateOf = ({ shape, decays, data, firstMoment, secondMoment }: NativeParameter): Tensor => ({
  shape,
  decays,
  weights: doubles(data),
  first: firstMoment && doubles(firstMoment),
  second: secondMoment && doubles(secondMoment),
});

const difference = (after: Float64Array, before: Float64Array) => after.map((value, i) => value - before[i]!);

/** Holds what an update made of a parameter against what its rule does. */
export function holdRule(what: string, before: Tensor, after: Tensor, expected: Tensor): void {
  const error = Math.hypot(...difference(after.weights, expected.weights));
  const moved = Math.hypot(...difference(expected.weights, before.weights));
  // What no float32 can tell of the weights themselves is no error of the update.
  const least = 6e-8 * Math.hypot(...before.weights);
  assert.ok(error < 2e-5 * moved + least, `${what}: ${error} of ${moved}`);
  for (const moment of ['first', 'second'] as const)
    if (expected[moment])
      assert.ok(relativeError(after[moment]!, expected[moment]) < 1e-6, `${moment} moment of ${what}`);
}

/** Three updates of a program with averages, each held against its rule, from what the program itself has before it. */
export async function holdUpdates(native: NativeModel, model: Model, { ruleOf, moments }: Rules): Promise<void> {
  const size = { microBatches: 2, batch: 2, time: 8 };
  const { tokens, labels } = batchOf(model, 4, 8, 3);
  scramble(native, 2);
  for (const own of native.writableParameters()) own.average!.set(own.data);
  for (let n = 1; n <= 3; n++) {
    const { gradientNorm } = await native.step(tokens, labels, { ...size, update: null });
    const clip = update.clipNorm / (gradientNorm + 1e-6);
    assert.ok(clip < 1, 'clipped');
    const given = { ...update, update: n };
    const before = native.parameters.map(own => ({
      own,
      state: stateOf(own),
      average: doubles(own.average!),
      gradient: doubles(own.gradient!).map(value => value * clip),
    }));
    await native.step(tokens, labels, { ...size, update: given });
    for (const { own, state, average, gradient } of before) {
      const after = stateOf(own);
      assert.is(own.moments, own.trained ? moments(own) : 0, own.name);
      assert.is(own.firstMoment !== null, own.moments > 0, own.name);
      assert.is(own.secondMoment !== null, own.moments > 1, own.name);
      const averaged = average.map((value, i) => 0.75 * value + 0.25 * after.weights[i]!);
      assert.ok(relativeError(own.average!, averaged) < 1e-6, `average of ${own.name}`);
      if (!own.trained) continue;
      holdRule(`${own.name}, update ${n}`, state, after, ruleOf(own)(state, gradient, given));
    }
  }
}
