// Added tokens: found in a text as they are written, before it is cut into words. Those that are not `normalized` are
// looked for in the text as it is, then the others in what is left, after its normalization.
import type { Part } from './part.ts';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** A mark (the end of a text), not text. */
  readonly special: boolean;
  /** Only where no letter, digit or underscore stands beside it. */
  readonly singleWord: boolean;
  /** Takes the white space on its left, and on its right. */
  readonly leftBlanks: boolean;
  readonly rightBlanks: boolean;
  /** Looked for after normalization, as normalized. */
  readonly normalized: boolean;
}

export function readAddedToken(part: Part): AddedToken {
  const content = part.text('content');
  if (content === '') throw part.broken('.content is empty');
  return part.read({
    id: part.id('id'),
    content,
    special: part.flag('special', false),
    singleWord: part.flag('single_word', false),
    leftBlanks: part.flag('lstrip', false),
    rightBlanks: part.flag('rstrip', false),
    normalized: part.flag('normalized', false),
  });
}

export class AddedTokens {
  readonly #asWritten: Finder;
  readonly #normalized: Finder;
  readonly #normalize: (text: string) => string;
  /** By id: what a token is looked for as, and decoded as, where that is not its content. */
  readonly spellings: ReadonlyMap<number, string>;

  constructor(tokens: readonly AddedToken[], normalize: (text: string) => string) {
    this.#normalize = normalize;
    this.#asWritten = new Finder(tokens.filter(token => !token.normalized).map(token => [token.content, token]));
    const normalized = tokens
      .filter(token => token.normalized)
      .map((token): [string, AddedToken] => [normalize(token.content), token]);
    this.#normalized = new Finder(normalized);
    this.spellings = new Map(normalized.map(([content, { id }]) => [id, content]));
  }

  /**
   * Cuts a text at added tokens. `visitText` gets what is between them, normalized and not empty, and whether it is
   * where the text begins; `visitToken` gets ids.
   */
  cut(text: string, visitText: (text: string, first: boolean) => void, visitToken: (id: number) => void): void {
    this.#asWritten.cut(
      text,
      (part, first) =>
        this.#normalized.cut(this.#normalize(part), (rest, begins) => visitText(rest, first && begins), visitToken),
      visitToken,
    );
  }
}

const WORD = '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]';
const wordBefore = new RegExp(`${WORD}$`, 'u');
const wordAfter = new RegExp(`^${WORD}`, 'u');
const blank = /\p{White_Space}/u;

/** Finds tokens in a text: the leftmost, and of those that begin at one place the longest. */
class Finder {
  readonly #byContent: ReadonlyMap<string, AddedToken>;
  /** By the UTF-16 unit that tokens begin with: their lengths, the longest first. */
  readonly #lengths: ReadonlyMap<number, readonly number[]>;
  /** The only unit that tokens begin with, if there is only one: it is then found faster. */
  readonly #only: string | null;

  constructor(tokens: readonly [content: string, token: AddedToken][]) {
    this.#byContent = new Map(tokens.filter(([content]) => content !== ''));
    const lengths = new Map<number, Set<number>>();
    for (const content of this.#byContent.keys()) {
      const first = content.charCodeAt(0);
      lengths.set(first, (lengths.get(first) ?? new Set()).add(content.length));
    }
    this.#lengths = new Map(Array.from(lengths, ([first, each]) => [first, [...each].sort((a, b) => b - a)]));
    this.#only = lengths.size === 1 ? String.fromCharCode(...lengths.keys()) : null;
  }

  cut(text: string, visitText: (text: string, first: boolean) => void, visitToken: (id: number) => void): void {
    const between = (from: number, to: number) => {
      if (from < to) visitText(text.slice(from, to), from === 0);
    };
    let done = 0;
    for (let place = this.#candidate(text, 0); place < text.length; place = this.#candidate(text, place)) {
      const content = this.#at(text, place);
      if (content === undefined) {
        place++;
        continue;
      }
      const token = this.#byContent.get(content)!;
      let start = place;
      let end = place + content.length;
      place = end;
      if (
        token.singleWord &&
        (wordBefore.test(text.slice(Math.max(0, start - 2), start)) || wordAfter.test(text.slice(end, end + 2)))
      )
        continue;
      if (token.leftBlanks) while (start > done && blank.test(text[start - 1]!)) start--;
      if (token.rightBlanks) while (end < text.length && blank.test(text[end]!)) end++;
      between(done, start);
      visitToken(token.id);
      done = end;
    }
    between(done, text.length);
  }

  /** The first place from `place` on where a token may begin; the text's end where there is none. */
  #candidate(text: string, place: number): number {
    if (this.#only !== null) {
      const found = text.indexOf(this.#only, place);
      return found === -1 ? text.length : found;
    }
    if (this.#lengths.size === 0) return text.length;
    let candidate = place;
    while (candidate < text.length && !this.#lengths.has(text.charCodeAt(candidate))) candidate++;
    return candidate;
  }

  /** The longest token that is there. */
  #at(text: string, place: number): string | undefined {
    return this.#lengths
      .get(text.charCodeAt(place))!
      .map(length => text.slice(place, place + length))
      .find(part => this.#byContent.has(part));
  }
}
