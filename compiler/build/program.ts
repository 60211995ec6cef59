// The whole model as a program of stages: embedding, one stage for each kind of block, head. Layers of one kind share
// their stage's functions, so the size of the program does not grow with depth.
import type { Block, Model } from '../check/model.ts';
import { differentiate } from '../grad/differentiate.ts';
import { gradientsAsOutputs, splitStage } from '../grad/split.ts';
import { Builder } from '../graph/builder.ts';
import { batch, type Dimension, dimension, time } from '../graph/dimension.ts';
import { type Graph, makeGraph, type Node, type Output } from '../graph/graph.ts';
import { gatherRows } from '../ops/gather.ts';
import { mapOver, mapWide } from '../ops/map.ts';
import { sum } from '../ops/reduce.ts';
import { add, apply, constant, multiply, operand, select } from '../scalar/expression.ts';
import { buildBlock, cacheDimensions, streamDimensions } from './block.ts';
import { buildFormula } from './formula.ts';
import { formulaOf, type Library, linear, normalise, type RotaryTables, rotaryTables, type Site } from './layers.ts';
import { type Parameter, Parameters } from './parameters.ts';

/**
 * Labels of graph inputs and outputs that are not parameters:
 * `tokens`, `labels`, `positions`, `start`, `loss_scale`, `rotary_cos_N`, `rotary_sin_N`: shared by all stages;
 * `x` in and `y` out: the residual stream; `gradient.y` in and `gradient.x` out: its gradient;
 * `saved.NAME`: kept by a forward function for its backward one; `key_cache`, `value_cache`; `logits`, `loss`.
 */
export interface Stage {
  /** Prefix of its functions in generated source. */
  readonly name: string;
  readonly parameters: readonly Parameter[];
}

export interface EmbeddingStage extends Stage {
  readonly forward: Graph;
  readonly backward: Graph;
}

export interface BlockStage extends Stage {
  readonly forward: Graph;
  readonly backward: Graph;
  readonly decode: Graph;
}

export interface HeadStage extends Stage {
  /** Stream to logits. */
  readonly logits: Graph;
  /** Stream and labels to the summed loss. */
  readonly loss: Graph;
  /** The same with the gradients: the point where the step turns from forward to backward. */
  readonly train: Graph;
}

export interface Program {
  readonly model: Model;
  readonly embedding: EmbeddingStage;
  /** One for each of the model's block kinds. */
  readonly blocks: readonly BlockStage[];
  readonly head: HeadStage;
}

interface Common {
  readonly model: Model;
  readonly library: Library;
  readonly hidden: Dimension;
  /** For each block kind, which rotary tables it reads; null for none. */
  readonly rotary: readonly (number | null)[];
  readonly rotaryKinds: readonly RotaryKind[];
}

interface RotaryKind {
  readonly theta: number;
  readonly scaling: number | null;
  readonly headDim: number;
}

/** Builds every stage of a model. */
export function buildProgram(model: Model, library: Library): Program {
  const kinds: RotaryKind[] = [];
  const rotary = model.blocks.map(({ attention }) => {
    const { position_encoding: encoding, head_dim: headDim } = attention;
    if (encoding.kind !== 'rope') return null;
    const wanted = { theta: encoding.theta, scaling: encoding.scaling, headDim };
    const known = kinds.findIndex(kind => JSON.stringify(kind) === JSON.stringify(wanted));
    return known >= 0 ? known : kinds.push(wanted) - 1;
  });
  const common: Common = { model, library, hidden: dimension('hidden', model.hidden_size), rotary, rotaryKinds: kinds };
  return {
    model,
    embedding: buildEmbedding(common),
    blocks: model.blocks.map((block, n) => buildBlockStage(common, block, n)),
    head: buildHead(common),
  };
}

const site = (common: Common): Site => {
  const builder = new Builder();
  return { builder, parameters: new Parameters(builder), library: common.library };
};

const output = (name: string, node: Node): Output => ({ name, node, accumulate: false });

const vocabularyOf = (model: Model): Dimension => dimension('vocabulary', model.vocab_size);

function buildEmbedding(common: Common): EmbeddingStage {
  const { model, hidden } = common;
  const here = site(common);
  const { builder, parameters } = here;
  const tokens = builder.input('tokens', [batch, time], 'i32');
  const start = builder.input('start', [], 'i32');
  const table = parameters.matrix('model.embed_tokens.weight', [vocabularyOf(model)], [hidden]);
  const y = builder.within('embedded', '', () => {
    let x = gatherRows(builder, table, tokens);
    if (model.embeddings.scale !== null)
      x = mapWide(builder, multiply(operand(0), constant(model.embeddings.scale)), [x]);
    if (model.embeddings.learned_positions === null) return x;
    const positions = builder.input('positions', [time], 'i32');
    const rows = parameters.matrix(
      'model.embed_positions.weight',
      [dimension('position', model.embeddings.learned_positions)],
      [hidden],
    );
    return mapOver(builder, x.dimensions, add(operand(0), operand(1)), [x, gatherRows(builder, rows, positions)]);
  });
  const tables = common.rotaryKinds.flatMap(({ theta, scaling, headDim }, n) => {
    const { cos, sin } = rotaryTables(builder, start, dimension('head_dim', headDim), theta, scaling);
    return [output(`rotary_cos_${n}`, cos), output(`rotary_sin_${n}`, sin)];
  });
  const seed = builder.input('gradient.y', y.dimensions);
  const inputs = [tokens, start, ...builderInputs(y), ...parameters.nodes];
  const split = splitStage({
    name: 'embedding',
    builder,
    inputs,
    result: output('y', y),
    seed,
    wanted: parameters.nodes,
    accumulated: new Set(parameters.nodes),
  });
  const forward = makeGraph('embedding_forward', [...new Set(inputs)], [output('y', y), ...tables]);
  return { name: 'embedding', parameters: parameters.declared, forward, backward: split.backward };
}

/** The inputs that a node depends on. */
function builderInputs(node: Node, into = new Set<Node>()): Node[] {
  if (node.primitive === null) into.add(node);
  for (const input of node.inputs) builderInputs(input, into);
  return [...into];
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

  const training = site(common);
  const x = training.builder.input('x', streamDimensions(hidden));
  const rotary = rotaryInputs(training);
  const depth = model.layers.length;
  const { y } = buildBlock(training, block, { x, hidden, rotary, depth, cache: null });
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

  const decoding = site(common);
  const cacheInput = (label: string) => decoding.builder.input(label, cacheDimensions(block));
  const cache = {
    key: cacheInput('key_cache'),
    value: cacheInput('value_cache'),
    start: decoding.builder.input('start', [], 'i32'),
  };
  const stream = decoding.builder.input('x', streamDimensions(hidden));
  const tables = rotaryInputs(decoding);
  const step = buildBlock(decoding, block, { x: stream, hidden, rotary: tables, depth, cache });
  const decode = makeGraph(
    `${name}_decode`,
    [stream, cache.key, cache.value, cache.start, ...tableNodes(tables), ...decoding.parameters.nodes],
    [output('y', step.y)],
  );
  return { name, parameters: parameters.declared, forward, backward, decode };
}

function buildHead(common: Common): HeadStage {
  const { model, hidden } = common;
  const here = site(common);
  const { builder, parameters } = here;
  const vocabulary = vocabularyOf(model);
  const x = builder.input('x', streamDimensions(hidden));
  const normed = builder.within('output_norm', '', () => normalise(here, 'model.norm', x, model.output.norm, hidden));
  const logits = builder.within('logits', '', () => {
    if (!model.embeddings.tie_weights)
      return linear(here, 'lm_head', normed, [hidden], [vocabulary], { bias: model.output.bias });
    // A tied head multiplies by the embedding itself, under the embedding's name.
    const product = linear(here, 'model.embed_tokens', normed, [hidden], [vocabulary], { bias: false });
    if (!model.output.bias) return product;
    return mapWide(builder, add(operand(0), operand(1)), [product, parameters.vector('lm_head.bias', [vocabulary], 0)]);
  });
  const labels = builder.input('labels', [batch, time], 'i32');
  const loss = builder.within('loss', 'mal/std/losses.mal', () => {
    const perPosition = buildFormula(formulaOf(common.library, 'cross_entropy'), [logits, labels], {
      builder,
      library: common.library,
      over: vocabulary,
      constants: {},
      learned: name => {
        throw new Error(`cross_entropy reads ${name}, which is not defined`);
      },
    });
    // A label of -1 marks a position that is not scored.
    const scored = select(apply('less', operand(1), constant(0)), constant(0), operand(0));
    return sum(builder, mapOver(builder, [batch, time], scored, [perPosition, labels]), ['batch', 'time']);
  });
  // The gradient of the step's mean loss with respect to this call's sum: one over the step's scored positions.
  const scale = builder.input('loss_scale', []);
  const wanted = [x, ...parameters.nodes];
  const gradients = differentiate(builder, [{ node: loss, gradient: scale }], wanted);
  const inputs = [x, labels, scale, ...parameters.nodes];
  return {
    name: 'head',
    parameters: parameters.declared,
    logits: makeGraph('head_logits', inputs, [output('logits', logits)]),
    loss: makeGraph('head_loss', inputs, [output('loss', loss)]),
    train: makeGraph('head_train', inputs, [
      output('loss', loss),
      ...gradientsAsOutputs(gradients, new Set(parameters.nodes)),
    ]),
  };
}

/** A name as C and the other targets can spell it. */
export const identifier = (name: string): string => name.replace(/[^A-Za-z0-9_]/g, '_');

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
