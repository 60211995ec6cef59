// The architectures of transformers that malc knows, as data: well-known/transformers.json holds what their configuration
// files have in common, well-known/architectures/*.json what each adds.
import { UserError } from '../../compiler/diagnostic.ts';
import { readPackageFile } from '../../compiler/package-files.ts';
import { isObject, type Pattern } from './pattern.ts';

/** How one `model_type` of transformers reads as a Model, and how its tensors are laid out. */
export interface Architecture {
  readonly model_type: string;
  /** The class that its `architectures` names. */
  readonly class: string;
  /** What a file of the class without its head leaves out of every tensor's name. */
  readonly base_prefix: string;
  /** The fields that say what the model is. */
  readonly fields: Readonly<Record<string, Field>>;
  /** Where its rotary positions stand; absent where it has none. */
  readonly rope?: RopeFields;
  /** The field with the token whose embedding transformers gives no gradient; absent where there is none. */
  readonly untrained_token?: string;
  /** Shares of activations dropped while training. malc drops none, and says so where one is not 0. */
  readonly dropout: readonly string[];
  /** Fields that may be absent or have one of these values, in each element where the field is a list. */
  readonly requires: Readonly<Record<string, readonly unknown[]>>;
  /** Fields that do not change the mathematics, and why. */
  readonly ignored: Readonly<Record<string, string>>;
  /** The Model, `$name` standing for a field's value, with one `block` and the number of its `layers`. */
  readonly model: Pattern;
  /**
   * The file's tensors: what each holds, in malc's names, `{layer}` standing for the layer's number. Absent where the
   * file's names and layouts are malc's own.
   */
  readonly tensors?: Readonly<Record<string, TensorContent>>;
  /** Names that some versions of transformers give to tensors of the file. */
  readonly also_called?: Readonly<Record<string, string>>;
  /** Tensors that older files hold besides, and what they are. */
  readonly ignored_tensors: Readonly<Record<string, string>>;
}

export interface Field {
  /** `window` is a count, or null for none; for the other types null is the same as absent. */
  readonly type: 'count' | 'number' | 'boolean' | 'activation' | 'window';
  /** What transformers takes where the field is absent. Without one the field must be there. */
  readonly default?: Pattern;
}

export interface RopeFields {
  /** Where an older file has theta; `rope_theta` where absent. */
  readonly theta_field?: string;
  /** What theta is where no field says it. */
  readonly theta: number;
  readonly head_dim: Pattern;
  /** Where an older file has the share of a head's elements that turn. Absent where all do. */
  readonly share_field?: string;
  readonly share?: number;
}

/** One parameter in its own layout, several one below the other, or a matrix in another layout. */
export type TensorContent = string | readonly string[] | TensorLayout;

export interface TensorLayout {
  readonly holds: readonly string[];
  /** The file has [in, out]. */
  readonly transposed?: boolean;
  /** The parts follow one another within each head, not one whole part after the other. */
  readonly each_head?: boolean;
}

interface Common extends Pick<Architecture, 'fields' | 'requires' | 'ignored' | 'model'> {
  /** The first that fits a Model is the one it is exported as. */
  readonly architectures: readonly string[];
  /** What transformers calls malc's activations: for each of its names, malc's. */
  readonly activations: Readonly<Record<string, string>>;
}

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
    const own = JSON.parse(readPackageFile(`well-known/architectures/${modelType}.json`)) as Architecture;
    architecture = {
      ...own,
      fields: { ...own.fields, ...fields },
      requires: { ...requires, ...own.requires },
      ignored: { ...ignored, ...own.ignored },
      model: overlay(model, own.model),
    };
    known.set(modelType, architecture);
  }
  return architecture;
}

/** `base` with what `own` says in its place, object by object. */
function overlay(base: Pattern, own: Pattern): Pattern {
  if (!isObject(base) || !isObject(own)) return own;
  const merged: Record<string, Pattern> = { ...own };
  for (const [key, value] of Object.entries(base)) merged[key] = key in own ? overlay(value, own[key]!) : value;
  return merged;
}
