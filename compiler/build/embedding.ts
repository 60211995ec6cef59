// The embedding stage: tokens to the residual stream, with roles and learned or fixed positions, and the tables that rotary
// layers share.
import { differentiate } from '../grad/differentiate.ts';
import { gradientsAsOutputs } from '../grad/split.ts';
import { dimension } from '../graph/dimension.ts';
import { makeGraph, type Node } from '../graph/graph.ts';
import { gatherRows } from '../ops/gather.ts';
import { mapOver, mapWide, plus } from '../ops/map.ts';
import { apply, constant, multiply, operand, select } from '../scalar/expression.ts';
import { dropout } from './dropout.ts';
import { normalise } from './layers.ts';
import { addSinusoids, rotaryTables } from './positions.ts';
import { Site } from './site.ts';
import { type Common, type EmbeddingStage, output } from './stage.ts';

/** Builds the stage. Its backward function computes the little that it needs again instead of keeping it. */
export function buildEmbedding(common: Common): EmbeddingStage {
  const site = new Site(common.library, common.model, { freezing: common.freezing.embedding });
  const { builder, parameters } = site;
  const y = builder.within('embedded', '', () => embed(common, site));
  const tables = common.rotaryKinds.flatMap(({ rope, headDim, from }, n) => {
    const { cos, sin } = rotaryTables(builder, site.shared('positions'), dimension('head_dim', headDim), rope, from);
    return [output(`rotary_cos_${n}`, cos), output(`rotary_sin_${n}`, sin)];
  });
  const seed = builder.input('gradient.y', y.dimensions);
  const gradients = differentiate(builder, [{ node: y, gradient: seed }], parameters.trained);
  const outputs = gradientsAsOutputs(gradients, new Set(parameters.nodes));
  return {
    name: 'embedding',
    parameters: parameters.declared,
    forward: makeGraph('embedding_forward', [output('y', y), ...tables]),
    backward: outputs.length === 0 ? null : makeGraph('embedding_backward', outputs),
  };
}

function embed({ model, hidden, vocabulary }: Common, site: Site): Node {
  const { builder, parameters, deviation } = site;
  const { scale, learned_positions: learned, sinusoidal_positions: sinusoidal, norm, ...rest } = model.embeddings;
  const table = parameters.matrix('model.embed_tokens.weight', [vocabulary], [hidden], deviation.inner, false);
  let x = embeddedTokens(site, table, rest.untrained_token);
  if (scale !== null) x = mapWide(builder, multiply(operand(0), constant(scale)), [x]);
  if (rest.role_embeddings !== null) {
    // One vector for each role of a message's tokens (Wu et al. 2024, arXiv:2410.09102).
    const role = dimension('role', rest.role_embeddings);
    const rows = parameters.matrix('model.embed_roles.weight', [role], [hidden], deviation.inner, false);
    x = plus(builder, x, gatherRows(builder, rows, site.shared('roles')));
  }
  if (learned !== null) {
    const position = dimension('position', learned);
    const rows = parameters.matrix('model.embed_positions.weight', [position], [hidden], deviation.inner, false);
    x = plus(builder, x, gatherRows(builder, rows, site.shared('positions')));
  }
  if (sinusoidal) x = addSinusoids(builder, x, site.shared('positions'), hidden);
  return dropout(site, normalise(site, 'model.embed_norm', x, norm, [hidden]), rest.dropout);
}

/** Each token's row of the embedding; that of `untrained` gets no gradient here. */
export function embeddedTokens(site: Site, table: Node, untrained: number | null): Node {
  const tokens = site.shared('tokens');
  const rows = gatherRows(site.builder, table, tokens);
  if (untrained === null) return rows;
  const isUntrained = apply('equal', operand(1), constant(untrained));
  const kept = select(isUntrained, apply('detach', operand(0)), operand(0));
  return mapOver(site.builder, rows.dimensions, kept, [rows, tokens]);
}
