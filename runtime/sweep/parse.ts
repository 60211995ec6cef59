// The form of a sweep file, which is that of MAL's properties: `name: value`, `name { ... }`, `variant NAME { ... }`, lists in
// brackets, comments after #. What the names mean is read-sweep.ts's.
import type { Diagnostic } from '../../compiler/diagnostic.ts';
import { error, quoted } from '../../compiler/message.ts';
import { type Token, tokenize } from '../../compiler/syntax/outline.ts';
import type { Span } from '../../compiler/syntax/syntax.ts';

/** One word, number or text in quotes. */
export interface Scalar {
  readonly kind: 'word' | 'number' | 'string';
  /** As it was written, without quotes. */
  readonly text: string;
  readonly span: Span;
}

/** `name: value`, where a list has any number of values; `equal: parameters { ... }` has properties besides. */
export interface Setting {
  readonly name: string;
  readonly nameSpan: Span;
  readonly isList: boolean;
  readonly values: readonly Scalar[];
  readonly properties: readonly Setting[];
}

/** `train { ... }`, or `variant NAME { ... }`. */
export interface Group {
  readonly name: string;
  readonly nameSpan: Span;
  /** What stands between its name and its bracket, as a variant has it. */
  readonly label: string | null;
  readonly labelSpan: Span;
  readonly properties: readonly Setting[];
}

export interface SweepSyntax {
  readonly file: string;
  readonly text: string;
  readonly settings: readonly Setting[];
  readonly groups: readonly Group[];
}

/** What ends the reading: one fault at a time, for what follows it would be guesses. */
class Fault extends Error {
  readonly diagnostic: Diagnostic;

  constructor(diagnostic: Diagnostic) {
    super(diagnostic.message);
    this.diagnostic = diagnostic;
  }
}

/** Reads a text as far as its form goes. Never throws: what is wrong is the diagnostic. */
export function parseSweep(text: string, file: string): SweepSyntax | Diagnostic {
  try {
    return new Reader(text, file).file();
  } catch (fault) {
    if (fault instanceof Fault) return fault.diagnostic;
    throw fault;
  }
}

class Reader {
  readonly #text: string;
  readonly #file: string;
  readonly #tokens: readonly Token[];
  #next = 0;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
    this.#tokens = tokenize(text);
  }

  file(): SweepSyntax {
    const settings: Setting[] = [];
    const groups: Group[] = [];
    while (this.#next < this.#tokens.length) {
      const name = this.#take('word', 'a name such as `model`, `train` or `variant`');
      const nameSpan = this.#spanOf(name);
      if (this.#peek() === ':') {
        settings.push(this.#setting(name));
        continue;
      }
      const label = this.#tokens[this.#next]?.kind === 'word' ? this.#tokens[this.#next++]! : null;
      const labelSpan = this.#spanOf(label ?? name);
      groups.push({ name: name.text, nameSpan, label: label?.text ?? null, labelSpan, properties: this.#properties() });
    }
    return { file: this.#file, text: this.#text, settings, groups };
  }

  #properties(): Setting[] {
    const open = this.#mark('{');
    const properties: Setting[] = [];
    while (this.#peek() !== '}') {
      if (this.#next === this.#tokens.length)
        throw this.#fault(this.#spanOf(open), 'this `{` is never closed', 'add `}`');
      properties.push(this.#setting(this.#take('word', 'a name or `}`')));
    }
    this.#next += 1;
    return properties;
  }

  #setting(name: Token): Setting {
    this.#mark(':');
    const isList = this.#peek() === '[';
    const values = isList ? this.#list() : [this.#scalar()];
    const properties = this.#peek() === '{' ? this.#properties() : [];
    return { name: name.text, nameSpan: this.#spanOf(name), isList, values, properties };
  }

  #list(): Scalar[] {
    this.#mark('[');
    const values = [this.#scalar()];
    while (this.#peek() === ',') {
      this.#next += 1;
      if (this.#peek() === ']') break;
      values.push(this.#scalar());
    }
    this.#mark(']');
    return values;
  }

  #scalar(): Scalar {
    const token = this.#tokens[this.#next];
    if (token?.kind === 'word' || token?.kind === 'number' || token?.kind === 'string') {
      this.#next += 1;
      const text = token.kind === 'string' ? token.text.slice(1, -1).replace(/\\(.)/gs, '$1') : token.text;
      return { kind: token.kind, text, span: this.#spanOf(token) };
    }
    throw this.#unexpected('a number, a word or a text in quotes');
  }

  #mark(text: string): Token {
    const token = this.#tokens[this.#next];
    if (token?.text !== text) throw this.#unexpected(quoted(text));
    this.#next += 1;
    return token;
  }

  #take(kind: Token['kind'], what: string): Token {
    const token = this.#tokens[this.#next];
    if (token?.kind !== kind) throw this.#unexpected(what);
    this.#next += 1;
    return token;
  }

  #peek(): string | undefined {
    return this.#tokens[this.#next]?.text;
  }

  #unexpected(expected: string): Fault {
    const token = this.#tokens[this.#next];
    if (token === undefined) {
      const end = this.#text.trimEnd().length;
      return this.#fault({ file: this.#file, start: end, end }, `the file ends where ${expected} belongs`);
    }
    const help = token.text === '"' ? 'a text in quotes ends with a quotation mark' : null;
    return this.#fault(this.#spanOf(token), `${quoted(token.text)} stands where ${expected} belongs`, help);
  }

  #fault(span: Span, message: string, help: string | null = null): Fault {
    return new Fault(error(span, message, help));
  }

  #spanOf({ start, end }: Token): Span {
    return { file: this.#file, start, end };
  }
}
