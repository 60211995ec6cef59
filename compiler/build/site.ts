// Where a stage is built: its graph, what it trains, the formulas it may use, and what all stages are handed by the program.
import type { Model } from '../check/model.ts';
import { Builder } from '../graph/builder.ts';
import { batch, type Dimension, sequences, time } from '../graph/dimension.ts';
import type { DataType, Node } from '../graph/graph.ts';
import { documentBounds } from '../ops/attention.ts';
import { noiseWords } from '../ops/random.ts';
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { type Freezing, trainsAll } from './freezing.ts';
import { Parameters } from './parameters.ts';

export type Library = ReadonlyMap<string, FormulaDefinition>;

/** What the program hands to every stage, by label. */
export const sharedInputs = {
  tokens: { dimensions: [batch, time], dtype: 'i32' },
  labels: { dimensions: [batch, time], dtype: 'i32' },
  /** Role of each token's message. */
  roles: { dimensions: [batch, time], dtype: 'i32' },
  /** Position of each token in its text. */
  positions: { dimensions: [time], dtype: 'i32' },
  /** Of each position, where its document begins and ends: of a program that masks documents. */
  documents: { dimensions: [batch, time, documentBounds], dtype: 'i32' },
  /** Of each text that decoding goes on with, the position of its first new token, and where its new tokens end among all. */
  starts: { dimensions: [sequences], dtype: 'i32' },
  ends: { dimensions: [sequences], dtype: 'i32' },
  /** What random numbers are drawn by. */
  noise: { dimensions: [noiseWords], dtype: 'i32' },
  /** 1 in a training step, 0 elsewhere. */
  training: { dimensions: [], dtype: 'f32' },
  /** One over the positions that the whole step scores. */
  loss_scale: { dimensions: [], dtype: 'f32' },
  /** One over the step's micro-batches: their auxiliary losses are averaged. */
  auxiliary_scale: { dimensions: [], dtype: 'f32' },
  /** One over the tokens of this call. */
  token_share: { dimensions: [], dtype: 'f32' },
} as const satisfies Record<string, { dimensions: readonly Dimension[]; dtype: DataType }>;

export type SharedInput = keyof typeof sharedInputs;

/** Factors of initial weights. */
export interface Deviation {
  readonly inner: number;
  /** Of projections into the residual stream. */
  readonly residual: number;
}

/** What a stage is built for: training, with all of it trained, where nothing is said. */
interface SiteUse {
  readonly freezing?: Freezing;
  readonly decoding?: boolean;
  readonly masksDocuments?: boolean;
}

export class Site {
  readonly builder = new Builder();
  readonly parameters: Parameters;
  readonly library: Library;
  readonly deviation: Deviation;
  /** What is added to the loss, as single numbers. Nothing is added while decoding. */
  readonly auxiliary: Node[] = [];
  /** What each update hands to parameters that no gradient moves, by parameter: the loads of experts. */
  readonly loads = new Map<string, Node>();
  /** True for the graph that decodes with caches. */
  readonly decoding: boolean;
  /** Whether attention to whole sequences stays within documents. */
  readonly masksDocuments: boolean;
  private readonly given = new Map<SharedInput, Node>();
  private sites = 0;

  constructor(library: Library, { init, layers }: Model, use: SiteUse = {}) {
    const { freezing = trainsAll, decoding = false, masksDocuments = false } = use;
    this.library = library;
    this.decoding = decoding;
    this.masksDocuments = masksDocuments;
    this.parameters = new Parameters(this.builder, freezing.isFrozen);
    // There are two projections into the residual stream in each layer, so their weights start smaller (GPT-2).
    const residual = init.residual_scale ? init.std / Math.sqrt(2 * layers.length) : init.std;
    this.deviation = { inner: init.std, residual };
  }

  /** An input that all stages share. */
  shared(label: SharedInput): Node {
    const known = this.given.get(label);
    if (known) return known;
    const { dimensions, dtype } = sharedInputs[label];
    const node = this.builder.input(label, dimensions, dtype);
    this.given.set(label, node);
    return node;
  }

  /** A number for the next place that draws random numbers. */
  nextSite(): number {
    return this.sites++;
  }

  formula(name: string): FormulaDefinition {
    const formula = this.library.get(name);
    if (!formula) throw new Error(`the formula ${name} is not defined`);
    return formula;
  }
}
