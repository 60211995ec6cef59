// The embedding stage: tokens to the residual stream, with learned or fixed positions, and the tables that rotary layers
// share.
import { differentiate } from '../grad/differentiate.ts';
import { gradientsAsOutputs } from '../grad/split.ts';
import { batch, dimension, time } from '../graph/dimension.ts';
import { makeGraph, type Node } from '../graph/graph.ts';
import { gatherRows } from '../ops/gather.ts';
import { mapOver, mapWide } from '../ops/map.ts';
import { add, constant, multiply, operand } from '../scalar/expression.ts';
import { normalise, type Site } from './layers.ts';
import { addSinusoids, rotaryTables } from './positions.ts';
import { type Common, type EmbeddingStage, inputsOf, output, siteOf } from './stage.ts';

/** Builds the stage. Its backward function computes the little that it needs again instead of keeping it. */
export function buildEmbedding(common: Common): EmbeddingStage {
  const here = siteOf(common);
  const { builder, parameters } = here;
  const start = builder.input('start', [], 'i32');
  const y = builder.within('embedded', '', () => embed(common, here, start));
  const tables = common.rotaryKinds.flatMap(({ rope, headDim }, n) => {
    const { cos, sin } = rotaryTables(builder, start, dimension('head_dim', headDim), rope);
    return [output(`rotary_cos_${n}`, cos), output(`rotary_sin_${n}`, sin)];
  });
  const seed = builder.input('gradient.y', y.dimensions);
  const inputs = [...new Set([start, ...inputsOf(y)])];
  const gradients = differentiate(builder, [{ node: y, gradient: seed }], parameters.nodes);
  return {
    name: 'embedding',
    parameters: parameters.declared,
    forward: makeGraph('embedding_forward', inputs, [output('y', y), ...tables]),
    backward: makeGraph(
      'embedding_backward',
      [...inputs, seed],
      gradientsAsOutputs(gradients, new Set(parameters.nodes)),
    ),
  };
}

function embed({ model, hidden, vocabulary }: Common, site: Site, start: Node): Node {
  const { builder, parameters, deviation } = site;
  const { scale, learned_positions: learned, sinusoidal_positions: sinusoidal, norm } = model.embeddings;
  const tokens = builder.input('tokens', [batch, time], 'i32');
  const table = parameters.matrix('model.embed_tokens.weight', [vocabulary], [hidden], deviation.inner);
  let x = gatherRows(builder, table, tokens);
  if (scale !== null) x = mapWide(builder, multiply(operand(0), constant(scale)), [x]);
  if (learned !== null) {
    const positions = builder.input('positions', [time], 'i32');
    const position = dimension('position', learned);
    const rows = parameters.matrix('model.embed_positions.weight', [position], [hidden], deviation.inner);
    x = mapOver(builder, x.dimensions, add(operand(0), operand(1)), [x, gatherRows(builder, rows, positions)]);
  }
  if (sinusoidal) x = addSinusoids(builder, x, start, hidden);
  return normalise(site, 'model.embed_norm', x, norm, [hidden]);
}
