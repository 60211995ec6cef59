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

  constructor(tokens: readonly AddedToken[], normalize: (text: string) => string) {
    this.#normalize = normalize;
    this.#asWritten = new Finder(tokens.filter(token => !token.normalized).map(token => [token.content, token]));
    this.#normalized = new Finder(
      tokens.filter(token => token.normalized).map(token => [normalize(token.content), token]),
    );
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
  /** 1 where a token begins with a UTF-16 unit. */
  readonly #first = new Uint8Array(1 << 16);
  readonly #byFirst = new Map<number, [content: string, token: AddedToken][]>();

  constructor(tokens: readonly [content: string, token: AddedToken][]) {
    for (const entry of tokens) {
      const [content] = entry;
      if (content === '') continue;
      const unit = content.charCodeAt(0);
      this.#first[unit] = 1;
      const others = this.#byFirst.get(unit) ?? [];
      this.#byFirst.set(
        unit,
        [...others, entry].sort(([a], [b]) => b.length - a.length),
      );
    }
  }

  cut(text: string, visitText: (text: string, first: boolean) => void, visitToken: (id: number) => void): void {
    const between = (from: number, to: number) => {
      if (from < to) visitText(text.slice(from, to), from === 0);
    };
    let done = 0;
    for (let place = this.#byFirst.size === 0 ? text.length : 0; place < text.length; ) {
      const found = this.#first[text.charCodeAt(place)] === 1 ? this.#at(text, place) : undefined;
      if (found === undefined) {
        place++;
        continue;
      }
      const [content, token] = found;
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

  #at(text: string, place: number): [content: string, token: AddedToken] | undefined {
    return this.#byFirst.get(text.charCodeAt(place))!.find(([content]) => text.startsWith(content, place));
  }
}
