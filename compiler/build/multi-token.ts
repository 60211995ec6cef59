// Multi-token prediction (DeepSeek-V3, arXiv:2412.19437, section 2.2): what surrounds the block of a module. The program
// gives a module the tokens and the labels of as many positions ahead.
import { splitStage } from '../grad/split.ts';
import { dimension } from '../graph/dimension.ts';
import { mapWide, plus } from '../ops/map.ts';
import { constant, multiply, operand } from '../scalar/expression.ts';
import { streamDimensions } from './block.ts';
import { embeddedTokens } from './embedding.ts';
import { buildHead } from './head.ts';
import { linear, normalise } from './layers.ts';
import { Site } from './site.ts';
import { type Common, type JoinStage, type ModuleStages, output } from './stage.ts';

/** Builds what comes before and after a module's block; null where the model has no modules. */
export function buildModules(common: Common): ModuleStages | null {
  const { model, freezing } = common;
  if (model.mtp === null) return null;
  return {
    kind: freezing.moduleKind,
    join: buildJoin(common),
    head: buildHead(common, { name: 'module_head', norm: 'shared_head.norm', freezing: freezing.modules }),
  };
}

/** The stream and the embedding of the tokens ahead, each normalised, in one: the input of a module's block. */
function buildJoin(common: Common): JoinStage {
  const { model, library, hidden, vocabulary } = common;
  const site = new Site(library, model, { freezing: common.freezing.modules });
  const { builder, parameters, deviation } = site;
  // As wide as the stream that it makes, under another name: a product's result has dimensions of its own.
  const incoming = dimension('incoming', hidden.size!);
  const x = builder.input('x', streamDimensions(incoming));
  const part = (letter: string, label: string, value: typeof x) =>
    builder.within(label, '', () => {
      const normed = normalise(site, `${letter}norm`, value, model.output.norm, [incoming]);
      return linear(site, `${letter}_proj`, normed, [incoming], [hidden], { bias: false });
    });
  const embedded = builder.within('embedded_ahead', '', () => {
    const table = parameters.matrix('model.embed_tokens.weight', [vocabulary], [incoming], deviation.inner, false);
    const { scale, untrained_token } = model.embeddings;
    const rows = embeddedTokens(site, table, untrained_token);
    return scale === null ? rows : mapWide(builder, multiply(operand(0), constant(scale)), [rows]);
  });
  const [stream, tokens] = [part('h', 'stream_part', x), part('e', 'token_part', embedded)];
  const y = builder.within('joined', '', () => plus(builder, stream, tokens));
  const { forward, backward } = splitStage({
    name: 'module_join',
    builder,
    results: [{ output: output('y', y), gradient: builder.input('gradient.y', y.dimensions) }],
    wanted: [x, ...parameters.trained],
    further: [],
    accumulated: new Set(parameters.nodes),
  });
  return { name: 'module_join', parameters: parameters.declared, forward, backward };
}
