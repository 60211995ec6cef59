// An object inside a configuration file that is read key by key: each value is checked, and what nobody has read is refused.
import { fieldError } from './field-error.ts';

/** What a value has to be, with words for it that follow "malc needs". */
export interface Kind<T> {
  readonly expected: string;
  accepts(value: unknown): value is T;
}

export const positive: Kind<number> = {
  expected: 'a number above 0',
  accepts: (value): value is number => typeof value === 'number' && value > 0,
};
export const share: Kind<number> = {
  expected: 'a number from 0 up to 1, without 1',
  accepts: (value): value is number => typeof value === 'number' && value >= 0 && value < 1,
};
export const number: Kind<number> = {
  expected: 'a number from 0 on',
  accepts: (value): value is number => typeof value === 'number' && value >= 0,
};
export const count: Kind<number> = {
  expected: 'a whole number above 0',
  accepts: (value): value is number => Number.isSafeInteger(value) && (value as number) > 0,
};
export const boolean: Kind<boolean> = {
  expected: 'true or false',
  accepts: (value): value is boolean => typeof value === 'boolean',
};
export const word: Kind<string> = {
  expected: 'a word',
  accepts: (value): value is string => typeof value === 'string',
};
export const object: Kind<Readonly<Record<string, unknown>>> = {
  expected: 'an object',
  accepts: (value): value is Readonly<Record<string, unknown>> =>
    typeof value === 'object' && value !== null && !Array.isArray(value),
};
export const list: Kind<readonly unknown[]> = {
  expected: 'a list',
  accepts: (value): value is readonly unknown[] => Array.isArray(value),
};

export class Section {
  /** The file. */
  readonly where: string;
  /** The keys that lead here, '' for the whole file. */
  readonly name: string;
  readonly #entries: Readonly<Record<string, unknown>>;
  readonly #read = new Set<string>();

  constructor(where: string, name: string, entries: Readonly<Record<string, unknown>>) {
    this.where = where;
    this.name = name;
    this.#entries = entries;
  }

  /** What stands under a key; null where nothing or null does. @throws UserError where it is of another kind. */
  optional<T>(key: string, kind: Kind<T>): T | null {
    this.#read.add(key);
    const value = this.#entries[key] ?? null;
    if (value === null) return null;
    if (!kind.accepts(value)) throw fieldError(this.where, this.path(key), value, kind.expected);
    return value;
  }

  /** @throws UserError where it is missing or of another kind. */
  required<T>(key: string, kind: Kind<T>): T {
    const value = this.optional(key, kind);
    if (value === null) throw fieldError(this.where, this.path(key), undefined, kind.expected);
    return value;
  }

  /** The object under a key. @throws UserError where it is missing or no object. */
  section(key: string): Section {
    return new Section(this.where, this.path(key), this.required(key, object));
  }

  /** The same, null where there is none. */
  optionalSection(key: string): Section | null {
    return this.optional(key, object) && this.section(key);
  }

  /** What a word under a key stands for. @throws UserError where it is missing or another word. */
  meaning<T>(key: string, words: Readonly<Record<string, T>>): T {
    const found = this.required(key, word);
    if (!Object.hasOwn(words, found))
      throw fieldError(this.where, this.path(key), found, `one of ${Object.keys(words).join(', ')}`);
    return words[found]!;
  }

  /** Whether exactly this value stands under a key. */
  holds(key: string, value: unknown): boolean {
    this.#read.add(key);
    return this.#entries[key] === value;
  }

  /** For keys that say nothing about the model. */
  skip(key: string): void {
    this.#read.add(key);
  }

  /** @throws UserError that names a key which nothing has read. */
  requireAllRead(): void {
    const surplus = Object.keys(this.#entries).find(key => !this.#read.has(key));
    if (surplus !== undefined) throw fieldError(this.where, this.path(surplus), this.#entries[surplus], 'absent');
  }

  path(key: string): string {
    return this.name ? `${this.name}.${key}` : key;
  }
}
