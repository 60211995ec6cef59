// What a stage of the program is, and what building one needs.
import type { Model } from '../check/model.ts';
import { Builder } from '../graph/builder.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Graph, Node, Output } from '../graph/graph.ts';
import type { Library, Site } from './layers.ts';
import { type Parameter, Parameters } from './parameters.ts';
import type { Rope } from './positions.ts';

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

/** Rotary tables that layers share: blocks with the same encoding read the same ones. */
export interface RotaryKind {
  readonly rope: Rope;
  readonly headDim: number;
}

/** What every stage of one program is built with. */
export interface Common {
  readonly model: Model;
  readonly library: Library;
  readonly hidden: Dimension;
  readonly vocabulary: Dimension;
  /** For each block kind, which rotary tables it reads; null for none. */
  readonly rotary: readonly (number | null)[];
  readonly rotaryKinds: readonly RotaryKind[];
}

/** Works out what the stages of a model share. */
export function commonOf(model: Model, library: Library): Common {
  const rotaryKinds: RotaryKind[] = [];
  const rotary = model.blocks.map(({ attention }) => {
    const { position_encoding: rope, head_dim: headDim } = attention;
    if (rope.kind !== 'rope') return null;
    const wanted = { rope, headDim };
    const known = rotaryKinds.findIndex(kind => JSON.stringify(kind) === JSON.stringify(wanted));
    return known >= 0 ? known : rotaryKinds.push(wanted) - 1;
  });
  const hidden = dimension('hidden', model.hidden_size);
  return { model, library, hidden, vocabulary: dimension('vocabulary', model.vocab_size), rotary, rotaryKinds };
}

/** A fresh builder and a fresh list of parameters. */
export function siteOf({ library, model }: Common): Site {
  const builder = new Builder();
  const { std, residual_scale: scaled } = model.init;
  // There are two projections into the residual stream in each layer, so their weights start smaller (GPT-2).
  const residual = scaled ? std / Math.sqrt(2 * model.layers.length) : std;
  return { builder, parameters: new Parameters(builder), library, deviation: { inner: std, residual } };
}

export const output = (name: string, node: Node): Output => ({ name, node, accumulate: false });

/** The inputs that a node depends on. */
export function inputsOf(node: Node, into = new Set<Node>()): Node[] {
  if (node.primitive === null) into.add(node);
  for (const input of node.inputs) inputsOf(input, into);
  return [...into];
}

/** A name as C and the other targets can spell it. */
export const identifier = (name: string): string => name.replace(/[^A-Za-z0-9_]/g, '_');
