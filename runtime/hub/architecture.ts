// The architectures of transformers that malc knows, as data: well-known/transformers.json holds what their configuration
// files have in common, well-known/architectures/*.json what each adds.
import { UserError } from '../../compiler/diagnostic.ts';
import { readPackageFile } from '../../compiler/package-files.ts';
import type { LayerRule } from './layer-kinds.ts';
import { isObject, type Pattern } from './pattern.ts';

/** How the tensors of a program's files are called and laid out. */
export interface TensorTable {
  /** What the program calls such models. */
  readonly model_type: string;
  /** The class that computes them. */
  readonly class: string;
  /** What a file of the class without its head leaves out of every tensor's name. */
  readonly base_prefix: string;
  /**
   * The file's tensors: what each holds, in malc's names. `{layer}` stands for the layer's number, `{expert}` and
   * `{shared_expert}` for an expert's in it. Parameters that are in none of them have malc's own names and layouts.
   */
  readonly tensors?: Readonly<Record<string, TensorContent>>;
  /** Tensors that some versions of the program have instead of those that hold the same parameters. */
  readonly alternatives?: Readonly<Record<string, TensorContent>>;
  /** Tensors that some files hold besides, and what they are; `{beyond}` is a number past the last layer, `*` is anything. */
  readonly ignored_tensors: Readonly<Record<string, string>>;
}

/** How one `model_type` of transformers reads as a Model, and how its tensors are laid out. */
export interface Architecture extends TensorTable {
  /** The fields that say what the model is. */
  readonly fields: Readonly<Record<string, Field>>;
  /** Its rotary positions by the names that the Model's pattern has for them. */
  readonly ropes: Readonly<Record<string, RopeFields>>;
  /** Fields that change only how transformers trains, and what each does where it is not 0. */
  readonly training_only: Readonly<Record<string, string>>;
  /** Fields that may be absent or have one of these values, in each element where the field is a list. */
  readonly requires: Readonly<Record<string, readonly Pattern[] | Requirement>>;
  /** Fields that do not change the mathematics, and why. */
  readonly ignored: Readonly<Record<string, string>>;
  /** The Model without its layers, `$name` standing for a field's value. */
  readonly model: Pattern;
  /** The kinds of block that it has, and the number of its layers. */
  readonly blocks: Readonly<Record<string, Pattern>>;
  readonly layers: Pattern;
  /** Which layer is of which kind; absent where there is one kind. */
  readonly layer_kinds?: LayerRule;
}

export interface Field {
  readonly type: 'count' | 'number' | 'share' | 'boolean' | 'activation' | 'word' | 'token';
  /** Null says that there is none. Otherwise it is the same as absent. */
  readonly nullable?: boolean;
  /** What transformers takes where the field is absent. Without one the field must be there. */
  readonly default?: Pattern;
  /** Another name that some versions of transformers write. */
  readonly also?: string;
  /** A word that is the same as absent. */
  readonly automatic?: string;
  /** Those that a field of type `word` can be. */
  readonly words?: readonly string[];
}

export interface Requirement {
  readonly is: readonly Pattern[];
  /** Why no other value will do. */
  readonly because: string;
}

export interface RopeFields {
  /** The entry of `rope_parameters` that is this rope's, where layers of different kinds have their own. */
  readonly entry?: string;
  /** Where an older file has theta; `rope_theta` where absent. */
  readonly theta_field?: string;
  /** What theta is where no field says it. */
  readonly theta: number;
  /** The elements of a head that may turn. */
  readonly head_dim: Pattern;
  /** Where an older file has the share of them that turns. Absent where all do. */
  readonly share_field?: string;
  readonly share?: number;
  /** Whether neighbours turn in pairs; absent where elements half of a head apart do. */
  readonly interleaved?: Pattern;
  /** The elements of a query and a key, where yarn's `mscale_all_dim` scales their scores, too (DeepSeek). */
  readonly scales_scores_of?: Pattern;
  /** True for layers with a window, which neither `rope_theta` nor `rope_scaling` of older files speaks of (Gemma 3). */
  readonly local?: boolean;
}

/** One parameter in its own layout, several one below the other, or a matrix in another layout. */
export type TensorContent = string | readonly string[] | TensorLayout;

export interface TensorLayout {
  readonly holds: readonly string[];
  /** The file has [in, out]. */
  readonly transposed?: boolean;
  /** The parts follow one another within each head, or in a matrix for each expert, not one whole part after the other. */
  readonly each?: 'head' | 'expert';
  /** What an expert's tensor has of the parameter: its rows, or its columns. */
  readonly takes?: 'rows' | 'columns';
  /** The place in the file's shape of a dimension of 1 that malc does not have. */
  readonly unit_dimension?: number;
  /** The file fills up the rows with zeros to a multiple of this. */
  readonly padded_to?: number;
  /** False for what no gradient trains. */
  readonly trained?: boolean;
}

interface Common extends Pick<Architecture, 'fields' | 'requires' | 'ignored'> {
  /** The first that fits a Model is the one it is exported as. */
  readonly architectures: readonly string[];
  /** What transformers calls malc's activations: for each of its names, malc's. */
  readonly activations: Readonly<Record<string, string>>;
  readonly model: Pattern;
}

/** The file of an architecture: `model` has `layers` and one `block`, or what each kind of block adds to it in `blocks`. */
type ArchitectureFile = Omit<Architecture, 'model' | 'blocks' | 'layers'> & { readonly model: Pattern };

let common: Common | null = null;
const known = new Map<string, Architecture>();

function readCommon(): Common {
  common ??= JSON.parse(readPackageFile('well-known/transformers.json')) as Common;
  return common;
}

/** The `model_type`s that malc knows; the first that fits a Model is what it is exported as. */
export const architectureNames = (): readonly string[] => readCommon().architectures;

/** For each of transformers' names of activations, malc's. */
export const activationNames = (): Readonly<Record<string, string>> => readCommon().activations;

/** A file of well-known/architectures. */
export const readTable = (name: string): unknown =>
  JSON.parse(readPackageFile(`well-known/architectures/${name}.json`));

/** @throws UserError where malc does not know the architecture; the message lists those that it knows. */
export function architectureOf(modelType: string): Architecture {
  const { architectures, fields, requires, ignored, model } = readCommon();
  if (!architectures.includes(modelType)) {
    throw new UserError(
      `the architecture '${modelType}' is not supported; model_type can be one of ${architectures.join(', ')}`,
    );
  }
  let architecture = known.get(modelType);
  if (!architecture) {
    const own = readTable(modelType) as ArchitectureFile;
    architecture = {
      ...own,
      fields: { ...fields, ...own.fields },
      requires: { ...requires, ...own.requires },
      ignored: { ...ignored, ...own.ignored },
      ...modelPatterns(overlay(model, own.model)),
    };
    known.set(modelType, architecture);
  }
  return architecture;
}

function modelPatterns(pattern: Pattern): Pick<Architecture, 'model' | 'blocks' | 'layers'> {
  const { block, blocks, layers, ...model } = pattern as Readonly<Record<string, Pattern>>;
  const kinds = Object.entries((blocks ?? { block: {} }) as Readonly<Record<string, Pattern>>);
  return {
    model,
    layers: layers!,
    blocks: Object.fromEntries(kinds.map(([kind, own]) => [kind, withAttention(overlay(block!, own))])),
  };
}

/** What follows from the width of a head where the pattern does not say it. */
function withAttention(block: Pattern): Pattern {
  if (!isObject(block) || !isObject(block.attention!)) return block;
  const { head_dim: width } = block.attention;
  const attention = { value_head_dim: width!, scale: { inverse_sqrt: [width!] }, ...block.attention };
  return { ...block, attention };
}

/** `base` with what `own` says in its place, object by object. */
function overlay(base: Pattern, own: Pattern): Pattern {
  if (!isObject(base) || !isObject(own)) return own;
  const merged: Record<string, Pattern> = { ...own };
  for (const [key, value] of Object.entries(base)) merged[key] = key in own ? overlay(value, own[key]!) : value;
  return merged;
}
