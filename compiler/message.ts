// What the constructors of messages share: the shape of a diagnostic and of its words.
import type { Diagnostic } from './diagnostic.ts';
import { nearest } from './diagnostic.ts';
import type { Span } from './syntax/syntax.ts';

type Notes = Diagnostic['notes'];

export function error(span: Span | null, message: string, help: string | null = null, notes: Notes = []): Diagnostic {
  return { severity: 'error', message, span, notes, help };
}

export function warning(span: Span | null, message: string, help: string | null = null, notes: Notes = []): Diagnostic {
  return { severity: 'warning', message, span, notes, help };
}

/** A list of more words than these is cut. */
const longestList = 40;

/** `a`, `a or b`, `a, b or c`. */
export function either(words: readonly string[]): string {
  if (words.length > longestList) return cut(words);
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** Words of the source, of very many the first. */
export function listed(words: readonly string[]): string {
  const shown = words.slice(0, longestList).map(quoted);
  return words.length > longestList ? cut(shown, words.length) : shown.join(', ');
}

const cut = (words: readonly string[], count = words.length) =>
  `${words.slice(0, longestList).join(', ')} and ${count - longestList} more`;

/** A word of the source, cut where it is longer than a line should be. */
export const quoted = (word: string) => `\`${word.length > 60 ? `${word.slice(0, 57)}...` : word}\``;

/** The help that names the nearest candidate, `otherwise` where none is near. */
export const didYouMean = (word: string, candidates: readonly string[], otherwise: string | null = null) => {
  const near = nearest(word, candidates);
  return near === null ? otherwise : `did you mean ${quoted(near)}?`;
};

/** What a word where a number belongs may have been meant to be. */
export const meantConstant = (word: string, known: readonly string[]) =>
  word.includes('-') && word.split('-').some(part => known.includes(part))
    ? 'a name may hold a `-`: write a space on each side of a minus'
    : didYouMean(word, known);
