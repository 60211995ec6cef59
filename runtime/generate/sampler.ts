// From logits to a token: temperature, top-k, top-p, min-p, repetition penalty, then one random number. In float64.
import { UserError } from '../../compiler/diagnostic.ts';
import { Random } from '../data/random.ts';

export interface SamplerOptions {
  /** Logits are divided by it; 0 always takes the likeliest token. */
  readonly temperature: number;
  /** Only the k likeliest tokens; absent for all. */
  readonly topK?: number | undefined;
  /** Only the likeliest tokens whose probabilities just reach p: Holtzman et al. 2020, arXiv:1904.09751. */
  readonly topP?: number | undefined;
  /** Only tokens with at least this share of the likeliest one's probability: Nguyen et al. 2024, arXiv:2407.01082. */
  readonly minP?: number | undefined;
  /** Divides positive and multiplies negative logits of tokens seen: Keskar et al. 2019, arXiv:1909.05858, 4.1. */
  readonly repetitionPenalty?: number | undefined;
  readonly seed: number;
}

/**
 * The token that follows. The random number is a function of the seed and `position` alone, so the same seed gives the
 * same text.
 *
 * @param logits one for each token of the vocabulary
 * @param position of the new token in the text
 * @param seen the tokens of the text so far, for the repetition penalty
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplerOptions,
  position: number,
  seen: Iterable<number>,
): number {
  if (logits.some(Number.isNaN)) throw notANumber();
  const scores = penalized(logits, options.repetitionPenalty, seen);
  if (options.temperature === 0) return likeliest(scores);
  const { temperature, topK, topP, minP } = options;
  const largest = scores[likeliest(scores)]!;
  // The likeliest token has weight 1, so min-p compares weights with no division.
  const weights = scores.map(score => Math.exp((score - largest) / temperature));
  let candidates = Array.from(weights.keys());
  if (minP !== undefined) candidates = candidates.filter(token => weights[token]! >= minP);
  if (topK !== undefined || topP !== undefined) {
    candidates.sort((a, b) => scores[b]! - scores[a]! || a - b);
    candidates = candidates.slice(0, topK);
  }
  if (topP !== undefined) candidates = candidates.slice(0, countReaching(topP, candidates, weights));
  return draw(candidates, weights, new Random(options.seed, position).uniform());
}

/** What is said where a logit is no number. */
export const notANumber = () =>
  new UserError('the model answers with NaN: its weights are damaged; use an earlier checkpoint');

/** How many of the candidates, taken in order, come to the share `p` of their whole weight. */
function countReaching(p: number, candidates: readonly number[], weights: Float64Array): number {
  let left = p * weightOf(candidates, weights);
  const last = candidates.findIndex(token => {
    left -= weights[token]!;
    return left <= 0;
  });
  return last < 0 ? candidates.length : last + 1;
}

/** The candidate in whose share of the whole weight `uniform`, in [0, 1), falls. */
function draw(candidates: readonly number[], weights: Float64Array, uniform: number): number {
  let left = uniform * weightOf(candidates, weights);
  const drawn = candidates.find(token => {
    left -= weights[token]!;
    return left < 0;
  });
  // Rounding may leave a last crumb.
  return drawn ?? candidates.findLast(token => weights[token]! > 0)!;
}

function weightOf(candidates: readonly number[], weights: Float64Array): number {
  return candidates.reduce((sum, token) => sum + weights[token]!, 0);
}

function penalized(logits: Float32Array, penalty: number | undefined, seen: Iterable<number>): Float64Array {
  const scores = Float64Array.from(logits);
  if (penalty === undefined) return scores;
  for (const token of new Set(seen)) {
    const score = scores[token]!;
    scores[token] = score > 0 ? score / penalty : score * penalty;
  }
  return scores;
}

function likeliest(scores: Float64Array): number {
  let best = 0;
  for (let token = 1; token < scores.length; token++) if (scores[token]! > scores[best]!) best = token;
  return best;
}
