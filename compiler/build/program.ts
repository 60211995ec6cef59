// The whole model as a program of stages: embedding, one stage for each kind of block, head. Layers of one kind share
// their stage's functions, so the size of the program does not grow with depth.
import type { Block, Model } from '../check/model.ts';
import { splitStage } from '../grad/split.ts';
import { dimension, time } from '../graph/dimension.ts';
import { type Graph, makeGraph, type Output } from '../graph/graph.ts';
import { mapOver } from '../ops/map.ts';
import { add, operand, type Scalar } from '../scalar/expression.ts';
import { buildBlock, streamDimensions } from './block.ts';
import { Decoding } from './decoding.ts';
import { requireMaskable } from './documents.ts';
import { buildEmbedding } from './embedding.ts';
import { freeze, freezesNothing } from './freezing.ts';
import { buildHead } from './head.ts';
import { buildModules } from './multi-token.ts';
import type { Parameter } from './parameters.ts';
import type { RotaryTables } from './positions.ts';
import { type Library, Site } from './site.ts';
import {
  type BlockStage,
  type Common,
  commonOf,
  type EmbeddingStage,
  type HeadStage,
  identifier,
  type ModuleStages,
  output,
  type Stage,
} from './stage.ts';

export interface Program {
  /** As it was given, but for its blocks and layers: a block that is frozen in several ways is several blocks here. */
  readonly model: Model;
  readonly embedding: EmbeddingStage;
  /** One for each of the model's block kinds. */
  readonly blocks: readonly BlockStage[];
  readonly head: HeadStage;
  /** Modules that predict tokens further ahead; their blocks are of the last layer's kind. */
  readonly modules: ModuleStages | null;
  /** The lowest layer that has a backward pass; the number of layers where none has. */
  readonly lowest: number;
  /** Whether no position of a whole sequence sees one of another document. */
  readonly masksDocuments: boolean;
}

/** What a program is beside its model. */
export interface ProgramOptions {
  /** Names of the parameters that training leaves as they are, as checkpoints have them: they get no gradient. */
  readonly frozen?: readonly string[] | undefined;
  /** Default false. */
  readonly masksDocuments?: boolean | undefined;
}

/**
 * Builds every stage of a model.
 * @throws UserError where modules that predict further ahead are not frozen alike, or where documents are to be masked and
 * a layer carries what it saw from position to position.
 */
export function buildProgram(model: Model, library: Library, options: ProgramOptions = {}): Program {
  const { frozen = [], masksDocuments = false } = options;
  if (masksDocuments) requireMaskable(model);
  const whole = buildStages(commonOf(model, library, freezesNothing(model), masksDocuments));
  if (frozen.length === 0) return whole;
  const names = new Set(frozen);
  const parameters = parametersOf(whole);
  const known = new Set(parameters.map(({ name }) => name));
  const unknown = frozen.find(name => !known.has(name));
  if (unknown !== undefined) throw new Error(`${model.name} has no parameter ${unknown} that could be frozen`);
  if (parameters.every(({ name, balance_rate }) => balance_rate !== null || names.has(name)))
    throw new Error(`every parameter of ${model.name} that gradients move is frozen`);
  const split = freeze(whole, names);
  return buildStages(commonOf(split.model, library, split.freezing, masksDocuments));
}

function buildStages(common: Common): Program {
  const { model, freezing, masksDocuments } = common;
  const names = blockStageNames(model.blocks);
  return {
    model,
    embedding: buildEmbedding(common),
    blocks: model.blocks.map((block, n) => buildBlockStage(common, block, n, names[n]!)),
    head: buildHead(common, { name: 'head', norm: 'model.norm', freezing: freezing.head }),
    modules: buildModules(common),
    lowest: freezing.lowest,
    masksDocuments,
  };
}

/**
 * What the stages of the block kinds are called. Targets derive further names from these by endings, so none may be
 * another's beginning: kinds whose names are too much alike are numbered.
 */
export function blockStageNames(blocks: readonly Block[]): string[] {
  if (blocks.length === 1) return ['block'];
  const names = blocks.map(({ name }) => identifier(name));
  const begins = (name: string, n: number) => names.some((other, m) => m !== n && `${other}_`.startsWith(`${name}_`));
  return names.map((name, n) => (names.some(begins) ? `block_${n}_${name}` : `block_${name}`));
}

function buildBlockStage(common: Common, block: Block, index: number, name: string): BlockStage {
  const { forward, backward, parameters } = trainingGraphs(common, block, index, name);
  return { name, parameters, forward, backward, ...decodingGraph(common, block, index, name) };
}

/** The tables of a block's rotary positions, as inputs. */
const rotaryInputs = ({ builder }: Site, { rotary, rotaryKinds }: Common, index: number): RotaryTables[] =>
  rotary[index]!.map(kind => {
    const dims = [time, dimension('head_dim', rotaryKinds[kind]!.headDim)];
    return { cos: builder.input(`rotary_cos_${kind}`, dims), sin: builder.input(`rotary_sin_${kind}`, dims) };
  });

function trainingGraphs(common: Common, block: Block, index: number, name: string) {
  const { model, library, hidden, masksDocuments } = common;
  const freezing = common.freezing.blocks[index]!;
  const site = new Site(library, model, { freezing, masksDocuments });
  const { builder, parameters } = site;
  const x = builder.input('x', streamDimensions(hidden));
  const rotary = rotaryInputs(site, common, index);
  const y = buildBlock(site, block, { x, hidden, rotary, decoding: null });
  const results = [{ output: output('y', y), gradient: builder.input('gradient.y', y.dimensions) }];
  if (site.auxiliary.length > 0) {
    const sum = site.auxiliary.map((_, n): Scalar => operand(n)).reduce(add);
    const node = builder.within('auxiliary_loss', '', () => mapOver(builder, [], sum, site.auxiliary));
    const gradient = site.shared('auxiliary_scale');
    results.push({ output: { name: 'auxiliary', node, accumulate: true }, gradient });
  }
  const further = [...site.loads]
    .filter(([of]) => !freezing.isFrozen(of))
    .map(([of, node]): Output => ({ name: `gradient.${of}`, node, accumulate: true }));
  const { forward, backward } = splitStage({
    name,
    builder,
    results,
    wanted: [...(freezing.handsOn ? [x] : []), ...parameters.trained],
    further,
    accumulated: new Set(parameters.nodes),
  });
  return { forward, backward: backward.outputs.length === 0 ? null : backward, parameters: parameters.declared };
}

function decodingGraph(common: Common, block: Block, index: number, name: string) {
  const { model, library, hidden } = common;
  const site = new Site(library, model, { decoding: true });
  const { builder } = site;
  const decoding = new Decoding(site);
  const x = builder.input('x', streamDimensions(hidden));
  const y = buildBlock(site, block, { x, hidden, rotary: rotaryInputs(site, common, index), decoding });
  return {
    decode: makeGraph(`${name}_decode`, [output('y', y), ...decoding.outputs]),
    caches: decoding.caches,
  };
}

/** The kind of each block in the order of the forward pass: of the layers, then of the modules. */
export const blockKinds = ({ model: { layers, mtp }, modules }: Program): number[] => [
  ...layers,
  ...Array.from({ length: mtp?.depth ?? 0 }, () => modules!.kind),
];

/** Every graph of a program, in the order in which a step runs them. */
export function graphsOf({ embedding, blocks, head, modules }: Program): Graph[] {
  return [
    embedding.forward,
    ...blocks.flatMap(block => [block.forward, block.decode]),
    head.logits,
    head.loss,
    head.train,
    ...(modules ? [modules.join.forward, modules.head.train, modules.join.backward] : []),
    ...blocks.flatMap(block => block.backward ?? []),
    ...(embedding.backward ? [embedding.backward] : []),
  ];
}

/** Every parameter of a program under the name that checkpoints have for it, each once: in the order of malc.h. */
export function parametersOf({ model, embedding, blocks, head, modules }: Program): Parameter[] {
  const outer = new Set([...embedding.parameters, ...head.parameters].map(({ name }) => name));
  const inLayer = (layer: number, stage: Stage) =>
    stage.parameters
      .filter(({ name }) => !outer.has(name))
      .map(parameter => ({ ...parameter, name: `model.layers.${layer}.${parameter.name}` }));
  const isOwn = ({ name }: Parameter) => !embedding.parameters.some(other => other.name === name);
  const depth = model.mtp?.depth ?? 0;
  return [
    ...embedding.parameters,
    ...model.layers.flatMap((kind, layer) => inLayer(layer, blocks[kind]!)),
    ...Array.from({ length: depth }, (_, n) =>
      [modules!.join, blocks[modules!.kind]!, modules!.head].flatMap(stage => inLayer(model.layers.length + n, stage)),
    ).flat(),
    ...head.parameters.filter(isOwn),
  ];
}

/** Functions of training that hand values to one another, by name: what one keeps, another reads. */
export const trainingFunctions = ({ blocks, head, modules }: Program): string[][] =>
  [
    ...blocks.map(block => [block.forward, ...(block.backward ? [block.backward] : [])]),
    [head.train],
    ...(modules ? [[modules.join.forward, modules.join.backward], [modules.head.train]] : []),
  ].map(graphs => graphs.map(graph => graph.name));
