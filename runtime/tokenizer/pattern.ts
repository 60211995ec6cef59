// Patterns of tokenizer.json as JavaScript's: a text to find, or a regular expression of Oniguruma (in Ruby's syntax).
//
// What the two write alike but mean differently is spelled out: \s and \w are Unicode's, ^ and $ stand at lines, a dot
// stops at a newline only, possessive quantifiers and (?>...) keep what they took, (?i) may hold for a part. What has no
// counterpart is refused by name. https://github.com/kkos/oniguruma/blob/master/doc/RE
import type { Part } from './part.ts';

/** @throws UserError for a regular expression that has no counterpart in JavaScript. */
export function readPattern(part: Part): RegExp {
  if (part.has('String')) {
    const text = part.text('String');
    return part.read(new RegExp(Array.from(text, literal).join('') || '(?!)', 'gv'));
  }
  const source = part.text('Regex');
  const translated = new Translation(source, what => part.unsupported(`: ${what} in ${JSON.stringify(source)}`)).all();
  try {
    return part.read(new RegExp(translated, 'gv'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw part.unsupported(` ${JSON.stringify(source)}`);
  }
}

const BLANK = '\\p{White_Space}';
const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}';
/** Outside of sets, and for \b, Oniguruma takes the digits and fractions of Latin-1 for letters too. */
const LONE_WORD = `${WORD}\\xb2\\xb3\\xb9\\xbc-\\xbe`;

/** What a backslash and a letter stand for, as members of a set. */
const sets: Readonly<Record<string, string>> = { s: BLANK, w: WORD, d: '\\p{Nd}', h: '\\dA-Fa-f' };
const controls: Readonly<Record<string, string>> = {
  n: '\n',
  r: '\r',
  t: '\t',
  f: '\f',
  v: '\v',
  a: '\x07',
  e: '\x1b',
};

/** POSIX brackets. They are names of properties too, save that \p{Punct} is \p{P}. */
const posix: Readonly<Record<string, string>> = {
  alpha: '\\p{Alphabetic}',
  alnum: '\\p{Alphabetic}\\p{Nd}',
  digit: '\\p{Nd}',
  lower: '\\p{Lowercase}',
  upper: '\\p{Uppercase}',
  space: BLANK,
  punct: '\\p{P}\\p{S}',
  blank: '\\p{Zs}\\t',
  cntrl: '\\p{Cc}',
  word: WORD,
  xdigit: '\\dA-Fa-f',
  ascii: '\\x00-\\x7f',
};

/** Reads a regular expression from left to right and writes it anew. */
class Translation {
  readonly #source: string;
  readonly #refuse: (what: string) => Error;
  #place = 0;
  #groups = 0;
  #ignoreCase = false;

  constructor(source: string, refuse: (what: string) => Error) {
    this.#source = source;
    this.#refuse = refuse;
  }

  all(): string {
    const result = this.#alternatives();
    if (this.#place < this.#source.length) throw this.#refuse('a ) too many');
    return result;
  }

  /** Up to the end of the group, or of the whole. */
  #alternatives(): string {
    const outside = this.#ignoreCase;
    let result = '';
    while (this.#place < this.#source.length && this.#source[this.#place] !== ')') {
      if (this.#take('|')) {
        result += '|';
        continue;
      }
      // A bare (?i) holds to the end of the group.
      const bare = /^\(\?(i|-i)\)/.exec(this.#source.slice(this.#place));
      if (bare !== null) {
        this.#ignoreCase = bare[1] === 'i';
        this.#place += bare[0].length;
        continue;
      }
      result += this.#quantified(this.#atom());
    }
    this.#ignoreCase = outside;
    return result;
  }

  #atom(): string {
    const character = this.#next();
    switch (character) {
      case '(':
        return this.#group();
      case '[':
        return this.#set();
      case '.':
        return '[^\\n]';
      case '^':
        return '(?:(?<![^])|(?<=\\n)(?=[^]))';
      case '$':
        return '(?:(?=\\n)|(?<!\\n)(?![^])|(?<![^])(?![^]))';
      case '\\':
        return this.#escape();
      default:
        return this.#letter(character);
    }
  }

  #group(): string {
    for (const opening of ['?:', '?=', '?!', '?<=', '?<!'])
      if (this.#take(opening)) return `(${opening}${this.#body()})`;
    if (this.#take('?>')) return this.#atomic(`(?:${this.#body()})`);
    const flags = /^\?(-?i):/.exec(this.#source.slice(this.#place));
    if (flags !== null) {
      this.#place += flags[0].length;
      const outside = this.#ignoreCase;
      this.#ignoreCase = flags[1] === 'i';
      const body = this.#body();
      this.#ignoreCase = outside;
      return `(?:${body})`;
    }
    if (this.#source[this.#place] === '?')
      throw this.#refuse(`the group (${this.#source.slice(this.#place, this.#place + 3)}`);
    // Nothing refers to groups by number, so none needs one.
    return `(?:${this.#body()})`;
  }

  #body(): string {
    const body = this.#alternatives();
    if (!this.#take(')')) throw this.#refuse('a group without its )');
    return body;
  }

  /** What keeps what it took: JavaScript's lookaheads do, and a reference then takes the same. */
  #atomic(inner: string): string {
    const name = `atomic${this.#groups++}`;
    return `(?:(?=(?<${name}>${inner}))\\k<${name}>)`;
  }

  #quantified(atom: string): string {
    let result = atom;
    for (;;) {
      const interval = /^\{(?:(\d+)(,?)(\d*)|,(\d+))\}/.exec(this.#source.slice(this.#place));
      let quantifier: string;
      if (interval !== null) {
        this.#place += interval[0].length;
        quantifier = interval[4] !== undefined ? `{0,${interval[4]}}` : interval[0];
      } else {
        const sign = ['?', '*', '+'].find(each => this.#take(each));
        if (sign === undefined) return result;
        quantifier = sign;
      }
      if (this.#take('?')) result = `(?:${result}${quantifier}?)`;
      // After an interval, a plus is a quantifier like any other, as in Ruby.
      else if (interval === null && this.#take('+')) result = this.#atomic(`${result}${quantifier}`);
      else result = `(?:${result}${quantifier})`;
    }
  }

  #escape(): string {
    const letter = this.#next();
    switch (letter) {
      case 'A':
        return '(?<![^])';
      case 'z':
        return '(?![^])';
      case 'Z':
        return '(?=\\n?(?![^]))';
      case 'b':
        return `(?:(?<=[${LONE_WORD}])(?![${LONE_WORD}])|(?<![${LONE_WORD}])(?=[${LONE_WORD}]))`;
      case 'B':
        return `(?:(?<=[${LONE_WORD}])(?=[${LONE_WORD}])|(?<![${LONE_WORD}])(?![${LONE_WORD}]))`;
    }
    const members = this.#escapedSet(letter);
    if (members?.includes(WORD)) return members.replace(WORD, LONE_WORD);
    return members ?? this.#letter(this.#escapedCharacter(letter));
  }

  /** The set that an escape stands for, or null where it stands for one character. */
  #escapedSet(letter: string): string | null {
    if (letter === 'p' || letter === 'P') return this.#property(letter === 'P');
    const members = sets[letter.toLowerCase()];
    if (members === undefined) return null;
    return letter === letter.toLowerCase() ? `[${members}]` : `[^${members}]`;
  }

  #escapedCharacter(letter: string): string {
    const control = controls[letter];
    if (control !== undefined) return control;
    const code = /^(?:x\{([\dA-Fa-f]{1,6})\}|x([\dA-Fa-f]{1,2})|u([\dA-Fa-f]{4}))/.exec(
      letter + this.#source.slice(this.#place),
    );
    if (code !== null) {
      this.#place += code[0].length - 1;
      return String.fromCodePoint(Number.parseInt(code[1] ?? code[2] ?? code[3]!, 16));
    }
    if (/[A-Za-z0-9]/.test(letter)) throw this.#refuse(`\\${letter}`);
    return letter;
  }

  #property(negated: boolean): string {
    const match = /^\{(\^?)([\w ]+)\}/.exec(this.#source.slice(this.#place));
    if (match === null) throw this.#refuse('\\p without a name in braces');
    this.#place += match[0].length;
    const not = negated !== (match[1] === '^') ? '^' : '';
    const name = match[2]!;
    const known = name.toLowerCase() === 'punct' ? '\\p{P}' : posix[name.toLowerCase()];
    const members = [known ?? `\\p{${name}}`, `\\p{Script=${name}}`].find(isSet);
    if (members === undefined) throw this.#refuse(`\\p{${name}}`);
    return `[${not}${members}]`;
  }

  /** A set after its [, which may hold others, and intersections of what stands before and after &&. */
  #set(): string {
    const not = this.#take('^') ? '^' : '';
    const parts = [''];
    for (let begun = false; ; begun = true) {
      if (this.#place >= this.#source.length) throw this.#refuse('a set without its ]');
      // A ] that comes first is a member.
      if (begun && this.#take(']')) break;
      if (this.#take('&&')) parts.push('');
      else parts[parts.length - 1] += this.#member();
    }
    return parts.length === 1 ? `[${not}${parts[0]}]` : `[${not}${parts.map(part => `[${part}]`).join('&&')}]`;
  }

  #member(): string {
    const bracket = /^\[:(\^?)(\w+):\]/.exec(this.#source.slice(this.#place));
    if (bracket !== null) {
      const members = posix[bracket[2]!];
      if (members === undefined) throw this.#refuse(bracket[0]);
      this.#place += bracket[0].length;
      return `[${bracket[1]}${members}]`;
    }
    const first = this.#next();
    if (first === '[') return this.#set();
    if (first === '\\') {
      const letter = this.#next();
      const set = this.#escapedSet(letter);
      if (set !== null) return set;
      return this.#range(letter === 'b' ? '\b' : this.#escapedCharacter(letter));
    }
    return this.#range(first);
  }

  /** One character of a set, or those from it to another. */
  #range(from: string): string {
    const rest = this.#source.slice(this.#place);
    // A minus before the end of the set, or before another set, is a member.
    if (!rest.startsWith('-') || rest.startsWith('-]') || rest.startsWith('-[') || rest.startsWith('-&&'))
      return this.#cases(from);
    this.#place++;
    let to = this.#next();
    if (to === '\\') to = this.#escapedCharacter(this.#next());
    if (!this.#ignoreCase) return `${literal(from)}-${literal(to)}`;
    const last = to.codePointAt(0)!;
    let members = '';
    if (last > 0x7f) throw this.#refuse(`the range ${from}-${to}, in either case,`);
    for (let code = from.codePointAt(0)!; code <= last; code++) members += this.#cases(String.fromCodePoint(code));
    return members;
  }

  #letter(character: string): string {
    const cases = this.#cases(character);
    return cases === literal(character) ? cases : `[${cases}]`;
  }

  /** A character, and where case is ignored all that fold to the same; the long s and the Kelvin sign are letters of ASCII. */
  #cases(character: string): string {
    if (!this.#ignoreCase) return literal(character);
    const lower = character.toLowerCase();
    const others = [lower, character.toUpperCase(), lower === 's' ? '\u017f' : '', lower === 'k' ? '\u212a' : ''];
    if (others.some(other => Array.from(other).length > 1)) throw this.#refuse(`${character}, in either case,`);
    return [...new Set([character, ...others])].filter(Boolean).map(literal).join('');
  }

  #take(text: string): boolean {
    if (!this.#source.startsWith(text, this.#place)) return false;
    this.#place += text.length;
    return true;
  }

  #next(): string {
    const code = this.#source.codePointAt(this.#place);
    if (code === undefined) throw this.#refuse('an end too early');
    const character = String.fromCodePoint(code);
    this.#place += character.length;
    return character;
  }
}

function isSet(members: string): boolean {
  try {
    new RegExp(`[${members}]`, 'v');
    return true;
  } catch {
    return false;
  }
}

/** A character that stands for itself, inside sets and outside. */
function literal(character: string): string {
  return /[A-Za-z0-9]/.test(character) ? character : `\\u{${character.codePointAt(0)!.toString(16)}}`;
}
