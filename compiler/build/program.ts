// The whole model as a program of stages: embedding, one stage for each kind of block, head. Layers of one kind share
// their stage's functions, so the size of the program does not grow with depth.
import type { Block, Model } from '../check/model.ts';
import { splitStage } from '../grad/split.ts';
import { dimension, time } from '../graph/dimension.ts';
import { type Graph, makeGraph } from '../graph/graph.ts';
import { buildBlock, cacheDimensions, streamDimensions } from './block.ts';
import { buildEmbedding } from './embedding.ts';
import { buildHead } from './head.ts';
import type { Library, Site } from './layers.ts';
import type { RotaryTables } from './positions.ts';
import {
  type BlockStage,
  type Common,
  commonOf,
  type EmbeddingStage,
  type HeadStage,
  identifier,
  output,
  siteOf,
} from './stage.ts';

export interface Program {
  readonly model: Model;
  readonly embedding: EmbeddingStage;
  /** One for each of the model's block kinds. */
  readonly blocks: readonly BlockStage[];
  readonly head: HeadStage;
}

/** Builds every stage of a model. */
export function buildProgram(model: Model, library: Library): Program {
  const common = commonOf(model, library);
  return {
    model,
    embedding: buildEmbedding(common),
    blocks: model.blocks.map((block, n) => buildBlockStage(common, block, n)),
    head: buildHead(common),
  };
}

function buildBlockStage(common: Common, block: Block, index: number): BlockStage {
  const { model, hidden } = common;
  const rotaryInputs = ({ builder }: Site): RotaryTables | null => {
    const kind = common.rotary[index];
    if (kind === null || kind === undefined) return null;
    const dims = [time, dimension('head_dim', block.attention.head_dim)];
    return { cos: builder.input(`rotary_cos_${kind}`, dims), sin: builder.input(`rotary_sin_${kind}`, dims) };
  };
  const tableNodes = (rotary: RotaryTables | null) => (rotary ? [rotary.cos, rotary.sin] : []);
  const name = model.blocks.length === 1 ? 'block' : `block_${identifier(block.name)}`;

  const training = siteOf(common);
  const x = training.builder.input('x', streamDimensions(hidden));
  const rotary = rotaryInputs(training);
  const { y } = buildBlock(training, block, { x, hidden, rotary, cache: null });
  const seed = training.builder.input('gradient.y', y.dimensions);
  const { parameters } = training;
  const { forward, backward } = splitStage({
    name,
    builder: training.builder,
    inputs: [x, ...tableNodes(rotary), ...parameters.nodes],
    result: output('y', y),
    seed,
    wanted: [x, ...parameters.nodes],
    accumulated: new Set(parameters.nodes),
  });

  const decoding = siteOf(common);
  const cacheInput = (label: string) => decoding.builder.input(label, cacheDimensions(block));
  const cache = {
    key: cacheInput('key_cache'),
    value: cacheInput('value_cache'),
    start: decoding.builder.input('start', [], 'i32'),
  };
  const stream = decoding.builder.input('x', streamDimensions(hidden));
  const tables = rotaryInputs(decoding);
  const step = buildBlock(decoding, block, { x: stream, hidden, rotary: tables, cache });
  const decode = makeGraph(
    `${name}_decode`,
    [stream, cache.key, cache.value, cache.start, ...tableNodes(tables), ...decoding.parameters.nodes],
    [output('y', step.y)],
  );
  return { name, parameters: parameters.declared, forward, backward, decode };
}

/** Every graph of a program, in the order in which a step runs them. */
export function graphsOf({ embedding, blocks, head }: Program): Graph[] {
  return [
    embedding.forward,
    ...blocks.flatMap(block => [block.forward, block.decode]),
    head.logits,
    head.loss,
    head.train,
    ...blocks.map(block => block.backward),
    embedding.backward,
  ];
}
