// Which layer is of which kind of block, where an architecture has two: each of the rules that configuration files of
// transformers have for it, in both directions.
import { fieldError } from './field-error.ts';
import type { Values } from './pattern.ts';

/** A rule by the name of its form; its kinds are keys of the architecture's `blocks`. */
export type LayerRule = ListedRule | EveryRule | FirstRule;

/** A list with a word for each layer; without it every n-th layer is of the last kind (Gemma). */
interface ListedRule {
  readonly form: 'listed';
  readonly field: string;
  /** For each of the list's words, the kind. */
  readonly words: Readonly<Record<string, string>>;
  /** The field with n, and what n is without it. */
  readonly every_field?: string;
  readonly every: number;
}

/** Every n-th layer is of the second kind, but for some (Qwen 3 MoE). */
interface EveryRule {
  readonly form: 'every';
  readonly kinds: readonly [usual: string, nth: string];
  readonly every_field: string;
  readonly except_field: string;
}

/** The first layers are of the first kind, all others of the second (DeepSeek). */
interface FirstRule {
  readonly form: 'first';
  readonly kinds: readonly [first: string, other: string];
  readonly field: string;
  /** How many first layers there are where the field is absent. */
  readonly default: number;
}

/** The fields that a rule reads. */
export function layerFieldNames(rule: LayerRule): string[] {
  if (rule.form === 'every') return [rule.every_field, rule.except_field];
  if (rule.form === 'first') return [rule.field];
  return [rule.field, ...(rule.every_field === undefined ? [] : [rule.every_field])];
}

/**
 * Each layer's kind.
 *
 * @param where the file, for messages
 * @throws UserError that names the field that does not say so
 */
export function readLayerKinds(config: Values, rule: LayerRule, count: number, where: string): string[] {
  const layers = Array.from({ length: count }, (_, layer) => layer);
  const whole = (field: string, smallest: number, otherwise: number): number => {
    const value = config[field] ?? otherwise;
    if (Number.isSafeInteger(value) && (value as number) >= smallest) return value as number;
    throw fieldError(where, field, value, `a whole number from ${smallest} on`);
  };
  switch (rule.form) {
    case 'listed': {
      const listed = config[rule.field] ?? null;
      if (listed !== null) return kindsListed(listed, rule, count, where);
      const every = rule.every_field === undefined ? rule.every : whole(rule.every_field, 1, rule.every);
      const [usual, nth] = Object.values(rule.words);
      return layers.map(layer => ((layer + 1) % every === 0 ? nth! : usual!));
    }
    case 'every': {
      const every = whole(rule.every_field, 1, 1);
      const except = config[rule.except_field] ?? [];
      if (!Array.isArray(except)) throw fieldError(where, rule.except_field, except, 'a list of layers');
      const isNth = (layer: number) => (layer + 1) % every === 0 && !except.includes(layer);
      return layers.map(layer => rule.kinds[isNth(layer) ? 1 : 0]);
    }
    case 'first': {
      const first = whole(rule.field, 0, rule.default);
      return layers.map(layer => rule.kinds[layer < first ? 0 : 1]);
    }
  }
}

function kindsListed(listed: unknown, { field, words }: ListedRule, count: number, where: string): string[] {
  const isWord = (word: unknown) => typeof word === 'string' && Object.hasOwn(words, word);
  if (!Array.isArray(listed) || listed.length !== count || !listed.every(isWord))
    throw fieldError(where, field, listed, `one of ${Object.keys(words).join(', ')} for each of ${count} layers`);
  return listed.map(word => words[word]!);
}

/** The rule's fields, or why no values of them give these kinds. */
export function writeLayerKinds(kinds: readonly string[], rule: LayerRule): { fields: Values } | { obstacle: string } {
  switch (rule.form) {
    case 'listed': {
      const words = Object.entries(rule.words);
      return { fields: { [rule.field]: kinds.map(kind => words.find(([, each]) => each === kind)![0]) } };
    }
    case 'every': {
      const usual = [...kinds.keys()].filter(layer => kinds[layer] === rule.kinds[0]);
      return { fields: { [rule.every_field]: 1, [rule.except_field]: usual } };
    }
    case 'first': {
      const found = kinds.indexOf(rule.kinds[1]);
      const first = found < 0 ? kinds.length : found;
      const late = kinds.indexOf(rule.kinds[0], first);
      if (late >= 0) return { obstacle: `layer ${late} is ${rule.kinds[0]}, after one that is ${rule.kinds[1]}` };
      return { fields: { [rule.field]: first } };
    }
  }
}
