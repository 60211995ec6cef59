// Mixture of experts as graph (Shazeer et al. 2017, arXiv:1701.06538): a router weighs all experts, each token passes its
// best ones, and their outputs add up by weight. No token is dropped unless the model says so.
import type { FeedForward, MixtureOfExperts } from '../check/model.ts';
import { type Dimension, dimension, hasDimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { gatherRows } from '../ops/gather.ts';
import { multiplyGrouped } from '../ops/grouped.ts';
import { mapWide, plus, sumMap } from '../ops/map.ts';
import { chooseGreatest } from '../ops/top-k.ts';
import { withinCapacity } from '../ops/within-capacity.ts';
import { apply, constant, coordinate, divide, multiply, operand, type Scalar, select } from '../scalar/expression.ts';
import { activated } from './feed-forward.ts';
import { applyFormula, linear } from './layers.ts';
import { zeros } from './parameters.ts';
import type { Site } from './site.ts';

/** The experts' share of a feed-forward network, back in the stream. */
export function buildExperts(site: Site, ffn: FeedForward, moe: MixtureOfExperts, x: Node, hidden: Dimension): Node {
  const { builder } = site;
  const { origin } = ffn;
  const experts = dimension('experts', moe.experts);
  const chosen = dimension('chosen', moe.top_k);
  const width = dimension('ffn', ffn.hidden_dim);
  const { index, weights } = route(site, moe, experts, chosen, x, hidden, origin);

  /** What each chosen expert makes of a token's values. */
  const project = (part: string, values: Node, from: Dimension, to: Dimension, deviation: number) => {
    const name = `mlp.experts.${part}`;
    const matrices = site.parameters.matrices(`${name}.weight`, experts, [to], [from], deviation);
    const product = multiplyGrouped(builder, values, matrices, index);
    if (!ffn.bias) return product;
    const biases = site.parameters.vector(`${name}.bias`, [experts, to], zeros);
    return plus(builder, product, gatherRows(builder, biases, index));
  };
  const { inner: deviation, residual } = site.deviation;
  const inner = activated(site, ffn, (label, part) =>
    builder.within(`expert_${label}`, origin, () => project(part, x, hidden, width, deviation)),
  );
  const outputs = builder.within('expert_outputs', origin, () => project('down_proj', inner, width, hidden, residual));
  return builder.within('experts_output', origin, () =>
    sumMap(builder, outputs.dimensions, multiply(operand(0), operand(1)), [outputs, weights], x.dimensions),
  );
}

interface Routing {
  /** The chosen experts' numbers and weights: [batch, time, chosen]. */
  readonly index: Node;
  readonly weights: Node;
}

function route(
  site: Site,
  moe: MixtureOfExperts,
  experts: Dimension,
  chosen: Dimension,
  x: Node,
  hidden: Dimension,
  origin: string,
): Routing {
  const { builder } = site;
  const called = <T>(label: string, build: () => T): T => builder.within(label, origin, build);
  const logits = called('router_logits', () =>
    linear(site, 'mlp.gate', x, [hidden], [experts], { bias: false, exact: true, isMap: false }),
  );
  const scores = called('router_scores', () =>
    moe.router === 'softmax'
      ? applyFormula(site, 'softmax', [logits], [experts])
      : mapWide(builder, apply('sigmoid', operand(0)), [logits]),
  );
  const compared = called('selection_scores', () => selectionScores(site, moe, experts, scores));
  const index = called('chosen_experts', () =>
    chooseGreatest(builder, compared, {
      chosen,
      groups: moe.groups,
      top_groups: moe.top_groups,
      group_score: moe.router === 'softmax' ? 'max' : 'top2',
    }),
  );
  if (!site.decoding) called('router_loss', () => balance(site, moe, experts, { logits, scores, index }, origin));
  const picked = called('picked_scores', () => {
    const dims = index.dimensions;
    return sumMap(builder, [...dims, experts], whereChosen(experts, 1, operand(0)), [scores, index], dims);
  });
  const weights = called('expert_weights', () => chosenWeights(site, moe, picked, index));
  return { index, weights };
}

/** What is compared: the scores, and where loads are balanced by a bias (Wang et al. 2024, arXiv:2408.15664), that too. */
function selectionScores(site: Site, moe: MixtureOfExperts, experts: Dimension, scores: Node): Node {
  if (moe.balance.kind !== 'aux_free') return scores;
  const bias = site.parameters.balanced('mlp.gate.e_score_correction_bias', [experts], moe.balance.rate);
  return plus(site.builder, scores, bias);
}

/** The operand where the position along `experts` is one of the chosen, else 0. */
const whereChosen = (experts: Dimension, index: number, value: Scalar): Scalar =>
  select(apply('equal', operand(index), coordinate(experts.name)), value, constant(0));

/** What the outputs of the chosen experts are multiplied with, of the scores that they were picked by. */
function chosenWeights(site: Site, moe: MixtureOfExperts, picked: Node, index: Node): Node {
  const { builder } = site;
  const normalised = moe.normalize
    ? mapWide(builder, divide(operand(0), operand(1)), [picked, sumLast(site, picked)])
    : picked;
  const scaled = mapWide(builder, multiply(operand(0), constant(moe.scale)), [normalised]);
  if (moe.capacity_factor === null || site.decoding) return scaled;
  const limit = (moe.capacity_factor * moe.top_k) / moe.experts;
  const fits = builder.apply(withinCapacity, [index], { experts: moe.experts, limit });
  // Where an expert has no room, the token goes without it; only in training.
  const kept = select(operand(2), multiply(operand(0), operand(1)), operand(0));
  return mapWide(builder, kept, [scaled, fits, site.shared('training')]);
}

/** Sums over the last dimension. */
function sumLast({ builder }: Site, node: Node): Node {
  return sumMap(builder, node.dimensions, operand(0), [node], node.dimensions.slice(0, -1));
}

interface Routed {
  readonly logits: Node;
  readonly scores: Node;
  readonly index: Node;
}

/** What keeps the experts equally busy: losses, or the loads for a bias. */
function balance(
  site: Site,
  moe: MixtureOfExperts,
  experts: Dimension,
  { logits, scores, index }: Routed,
  origin: string,
): void {
  const { builder } = site;
  const perToken = logits.dimensions;
  /** Sums of a map over all tokens. */
  const total = (expression: Scalar, operands: readonly Node[]) =>
    sumMap(builder, perToken, expression, operands, [experts]);
  const loads = () =>
    builder.within('expert_loads', origin, () => {
      const chosen = index.dimensions.filter(dim => !hasDimension(perToken, dim.name));
      const hits = whereChosen(experts, 0, constant(1));
      return total(operand(0), [sumMap(builder, [...perToken, ...chosen], hits, [index], perToken)]);
    });
  if (moe.balance.kind === 'aux_free') site.loads.set('mlp.gate.e_score_correction_bias', loads());
  const share = site.shared('token_share');
  if (moe.balance.kind === 'loss') {
    // weight experts sum(p_i f_i) / top_k, p_i and f_i being means over the tokens (Fedus et al. 2021, arXiv:2101.03961).
    const shares = () => mapWide(builder, divide(operand(0), operand(1)), [scores, sumLast(site, scores)]);
    const probabilities = total(operand(0), [moe.router === 'softmax' ? scores : shares()]);
    const factor = constant((moe.balance.weight * moe.experts) / moe.top_k);
    const product = multiply(multiply(operand(0), operand(1)), multiply(factor, multiply(operand(2), operand(2))));
    site.auxiliary.push(sumMap(builder, [experts], product, [probabilities, loads(), share], []));
  }
  if (moe.z_loss_weight > 0) {
    // weight mean(logsumexp(logits)^2) (Zoph et al. 2022, arXiv:2202.08906).
    const normalizer = applyFormula(site, 'logsumexp', [logits], [experts]);
    const square = multiply(multiply(operand(0), operand(0)), multiply(constant(moe.z_loss_weight), operand(1)));
    site.auxiliary.push(sumMap(builder, normalizer.dimensions, square, [normalizer, share], []));
  }
}
