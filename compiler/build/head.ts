// The head stage: output norm, logits, loss; and, for training, its gradients, where the step turns from forward to backward.
import { differentiate } from '../grad/differentiate.ts';
import { gradientsAsOutputs } from '../grad/split.ts';
import { batch, time } from '../graph/dimension.ts';
import { makeGraph, type Node } from '../graph/graph.ts';
import { mapOver, mapWide, plus } from '../ops/map.ts';
import { sum } from '../ops/reduce.ts';
import { apply, constant, multiply, operand, select } from '../scalar/expression.ts';
import { streamDimensions } from './block.ts';
import type { Freezing } from './freezing.ts';
import { applyFormula, linear, normalise } from './layers.ts';
import { zeros } from './parameters.ts';
import { Site } from './site.ts';
import { type Common, type HeadStage, output } from './stage.ts';

/** Builds a head: the model's, or that of its modules, which has a name and a norm of its own. */
export function buildHead(
  common: Common,
  own: { readonly name: string; readonly norm: string; readonly freezing: Freezing },
): HeadStage {
  const { model, hidden, library, vocabulary } = common;
  const { freezing } = own;
  const here = new Site(library, model, { freezing });
  const { builder, parameters } = here;
  const x = builder.input('x', streamDimensions(hidden));
  const normed = builder.within('output_norm', '', () => normalise(here, own.norm, x, model.output.norm, [hidden]));
  const logits = builder.within('logits', '', () => buildLogits(common, here, normed));
  const labels = here.shared('labels');
  const loss = builder.within('loss', 'mal/std/losses.mal', () => {
    const perPosition = applyFormula(here, 'cross_entropy', [logits, labels], [vocabulary]);
    // A label of -1 marks a position that is not scored.
    const scored = select(apply('less', operand(1), constant(0)), constant(0), operand(0));
    return sum(builder, mapOver(builder, [batch, time], scored, [perPosition, labels]), ['batch', 'time']);
  });
  // The gradient of the step's mean loss with respect to this call's sum: one over the step's scored positions.
  const scale = here.shared('loss_scale');
  const wanted = [...(freezing.handsOn ? [x] : []), ...parameters.trained];
  const gradients = differentiate(builder, [{ node: loss, gradient: scale }], wanted);
  return {
    name: own.name,
    parameters: parameters.declared,
    logits: makeGraph(`${own.name}_logits`, [output('logits', logits)]),
    loss: makeGraph(`${own.name}_loss`, [output('loss', loss)]),
    train: makeGraph(`${own.name}_train`, [
      output('loss', loss),
      ...gradientsAsOutputs(gradients, new Set(parameters.nodes)),
    ]),
  };
}

function buildLogits({ model, hidden, vocabulary }: Common, site: Site, x: Node): Node {
  const { builder, parameters } = site;
  const { bias, scale, softcap } = model.output;
  // A tied head multiplies by the embedding itself, under the embedding's name.
  const name = model.embeddings.tie_weights ? 'model.embed_tokens' : 'lm_head';
  let logits = linear(site, name, x, [hidden], [vocabulary], { bias: false, isMap: false });
  if (bias) logits = plus(builder, logits, parameters.vector('lm_head.bias', [vocabulary], zeros));
  if (scale !== null) logits = mapWide(builder, multiply(operand(0), constant(scale)), [logits]);
  if (softcap === null) return logits;
  const capped = multiply(constant(softcap), apply('tanh', multiply(operand(0), constant(1 / softcap))));
  return mapWide(builder, capped, [logits]);
}
