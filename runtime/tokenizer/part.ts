// A part of tokenizer.json that is being read: its fields by name and kind. A field that nobody asks for is refused by
// name in the end, so that nothing in a file is passed over that could change ids.
import { UserError } from '../../compiler/diagnostic.ts';

type Fields = Readonly<Record<string, unknown>>;

export class Part {
  /** The file, for messages, and where in it the part is. */
  readonly path: string;
  readonly where: string;
  readonly #fields: Fields;
  readonly #asked = new Set<string>();

  /** @throws UserError where `value` is no object. */
  constructor(path: string, where: string, value: unknown) {
    this.path = path;
    this.where = where;
    this.#fields = {};
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.broken(value === undefined ? 'is missing' : 'is not an object');
    this.#fields = value as Fields;
  }

  /** What kind of part it says it is; null where it does not say. */
  get type(): string | null {
    const type = this.#ask('type') ?? null;
    if (type !== null && typeof type !== 'string') throw this.broken(`.type is ${JSON.stringify(type)}, not a name`);
    return type;
  }

  has(name: string): boolean {
    return (this.#fields[name] ?? null) !== null;
  }

  /** Any value, unchecked; undefined or null where there is none. */
  any(name: string): unknown {
    return this.#ask(name);
  }

  flag(name: string, absent: boolean): boolean {
    const value = this.#ask(name) ?? absent;
    if (typeof value !== 'boolean') throw this.broken(`.${name} is ${JSON.stringify(value)}, not true or false`);
    return value;
  }

  text(name: string, absent?: string): string {
    const value = this.#ask(name) ?? absent;
    if (typeof value !== 'string') throw this.#unlike(name, value, 'a text');
    return value;
  }

  number(name: string, absent?: number): number {
    const value = this.#ask(name) ?? absent;
    if (typeof value !== 'number') throw this.#unlike(name, value, 'a number');
    return value;
  }

  /** A whole number that can be an id; the bound keeps a slip of the pen in the file from asking for gigabytes. */
  id(name: string): number {
    const value = this.#ask(name);
    if (!isId(value)) throw this.#unlike(name, value, 'an id');
    return value;
  }

  /** One of a few words. */
  choice<Word extends string>(name: string, words: readonly Word[], absent?: Word): Word {
    const value = this.text(name, absent);
    const word = words.find(each => each === value);
    if (word === undefined) throw this.unsupported(`.${name} ${value}`);
    return word;
  }

  list(name: string): readonly unknown[] {
    const value = this.#ask(name);
    if (!Array.isArray(value)) throw this.#unlike(name, value, 'a list');
    return value;
  }

  part(name: string): Part {
    return this.inside(name, this.#ask(name));
  }

  /** A part that is not written in the file but meant: what a default stands for. */
  inside(name: string, value: unknown): Part {
    return new Part(this.path, this.#inside(name), value);
  }

  /** The part of that name, or null where the file has null or nothing. */
  partIfAny(name: string): Part | null {
    return (this.#ask(name) ?? null) === null ? null : this.part(name);
  }

  parts(name: string): Part[] {
    return this.list(name).map((value, index) => new Part(this.path, `${this.#inside(name)}[${index}]`, value));
  }

  /** Takes note of fields that change nothing here: they concern offsets, or training. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#asked.add(name);
  }

  /** Gives the value back. @throws UserError where the part has fields that nobody asked for, by name. */
  read<Value>(value: Value): Value {
    this.#ask('type');
    const left = Object.keys(this.#fields).find(name => !this.#asked.has(name) && this.has(name));
    if (left !== undefined) throw this.unsupported(`.${left}`);
    return value;
  }

  /** The error for what is right but not supported: `what` follows the part's place in the file. */
  unsupported(what: string): UserError {
    return new UserError(
      `${this.path}: ${this.where}${what} is not supported; malc train-tokenizer makes a tokenizer that is, from text`,
    );
  }

  /** The error for what cannot be right. */
  broken(what: string): UserError {
    const gap = what.startsWith('.') || what.startsWith('[') ? '' : ' ';
    return new UserError(
      `${this.path} is not a sound tokenizer.json: ${this.where}${gap}${what}; ` +
        'copy or download it again, or make it anew with malc train-tokenizer',
    );
  }

  #ask(name: string): unknown {
    this.#asked.add(name);
    return this.#fields[name];
  }

  #inside(name: string): string {
    return this.where === 'the file' ? name : `${this.where}.${name}`;
  }

  #unlike(name: string, value: unknown, kind: string): UserError {
    return new Part(this.path, this.#inside(name), {}).broken(
      value === undefined || value === null ? 'is missing' : `is ${JSON.stringify(value)}, not ${kind}`,
    );
  }
}

/** Ids are below this. */
const MOST_IDS = 2 ** 24;

export function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < MOST_IDS;
}
