// What a stage of the program is, and what building one needs.
import type { Block, Model } from '../check/model.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Graph, Node, Output } from '../graph/graph.ts';
import type { Cache } from './decoding.ts';
import type { FreezingOfStages } from './freezing.ts';
import type { Parameter } from './parameters.ts';
import type { Rope } from './positions.ts';
import type { Library } from './site.ts';

/**
 * Labels of graph inputs and outputs that are neither parameters nor those of site.ts:
 * `rotary_cos_N`, `rotary_sin_N`: tables that stages share;
 * `x` in and `y` out: the residual stream; `gradient.y` in and `gradient.x` out: its gradient;
 * `auxiliary` out: what a block adds to the loss besides; `gradient.NAME` out: of a parameter, or the loads of experts;
 * `saved.NAME`: kept by a forward function for its backward one; `cache.NAME` in and `next.NAME` out: kept between
 * decoding calls; `logits`, `loss`.
 */
export interface Stage {
  /** Prefix of its functions in generated source. */
  readonly name: string;
  readonly parameters: readonly Parameter[];
}

export interface EmbeddingStage extends Stage {
  readonly forward: Graph;
  /** Null where nothing of it is trained. */
  readonly backward: Graph | null;
}

export interface BlockStage extends Stage {
  readonly forward: Graph;
  /** Null where nothing of it is trained, nor of what lies below; its forward function then keeps nothing. */
  readonly backward: Graph | null;
  readonly decode: Graph;
  /** What decoding keeps of each layer. */
  readonly caches: readonly Cache[];
}

export interface HeadStage extends Stage {
  /** Stream to logits. */
  readonly logits: Graph;
  /** Stream and labels to the summed loss. */
  readonly loss: Graph;
  /** The same with the gradients: the point where the step turns from forward to backward. */
  readonly train: Graph;
}

/** What makes the input of a module's block. */
export interface JoinStage extends Stage {
  readonly forward: Graph;
  readonly backward: Graph;
}

/** What surrounds the block of each module that predicts tokens further ahead. */
export interface ModuleStages {
  /** The kind of their blocks. */
  readonly kind: number;
  readonly join: JoinStage;
  /** The model's own head after a norm of the module's. */
  readonly head: HeadStage;
}

/** Rotary tables that layers share: blocks with the same encoding read the same ones. */
export interface RotaryKind {
  readonly rope: Rope;
  /** Elements of the vectors that turn, and the first of them that does. */
  readonly headDim: number;
  readonly from: number;
}

/** What every stage of one program is built with. */
export interface Common {
  readonly model: Model;
  readonly library: Library;
  readonly hidden: Dimension;
  readonly vocabulary: Dimension;
  readonly freezing: FreezingOfStages;
  /** For each block kind, which rotary tables it reads: for queries and keys, or for each. */
  readonly rotary: readonly (readonly number[])[];
  readonly rotaryKinds: readonly RotaryKind[];
  /** Whether attention to whole sequences stays within documents. */
  readonly masksDocuments: boolean;
}

/** Works out what the stages of a model share. */
export function commonOf(model: Model, library: Library, freezing: FreezingOfStages, masksDocuments: boolean): Common {
  const rotaryKinds: RotaryKind[] = [];
  const rotary = model.blocks.map(block =>
    rotaryOf(block).map(wanted => {
      const known = rotaryKinds.findIndex(kind => JSON.stringify(kind) === JSON.stringify(wanted));
      return known >= 0 ? known : rotaryKinds.push(wanted) - 1;
    }),
  );
  const hidden = dimension('hidden', model.hidden_size);
  const vocabulary = dimension('vocabulary', model.vocab_size);
  return { model, library, hidden, vocabulary, freezing, rotary, rotaryKinds, masksDocuments };
}

function rotaryOf({ attention }: Block): RotaryKind[] {
  if (attention?.position_encoding.kind !== 'rope') return [];
  const { position_encoding: rope, head_dim: headDim, latent } = attention;
  if (latent === null) return [{ rope, headDim, from: 0 }];
  // The trailing elements of queries turn, and the part of the keys that all heads share.
  return [
    { rope, headDim, from: latent.nope_head_dim },
    { rope, headDim: rope.dims, from: 0 },
  ];
}

export const output = (name: string, node: Node): Output => ({ name, node, accumulate: false });

/** A name as C and the other targets can spell it. */
export const identifier = (name: string): string => name.replace(/[^A-Za-z0-9_]/g, '_');
