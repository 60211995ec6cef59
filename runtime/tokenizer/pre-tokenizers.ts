// The pre-tokenizers of tokenizer.json: how a text is cut into the words that the model encodes, each by itself.
import { bytesSpelled } from './alphabet.ts';
import type { Part } from './part.ts';
import { readPattern } from './pattern.ts';
import { splits } from './split.ts';

/** A piece of text, and whether it begins where the text begins. */
export interface Piece {
  readonly text: string;
  readonly first: boolean;
}

export type PreTokenizer = (pieces: readonly Piece[]) => readonly Piece[];

/**
 * @param beginningKnown false where the normalizer may have taken the text's beginning away
 * @throws UserError for a pre-tokenizer that is not supported.
 */
export function readPreTokenizer(part: Part | null, beginningKnown: boolean): PreTokenizer {
  if (part === null) return pieces => pieces;
  const type = part.type ?? '';
  const read = readers[type];
  if (read === undefined) throw part.unsupported(` ${type}`);
  return part.read(read(part, beginningKnown));
}

const readers: Readonly<Record<string, (part: Part, beginningKnown: boolean) => PreTokenizer>> = {
  Sequence(part, beginningKnown) {
    const steps = part.parts('pretokenizers').map(step => readPreTokenizer(step, beginningKnown));
    return pieces => steps.reduce((result, step) => step(result), pieces);
  },
  Split(part) {
    const pattern = readPattern(part.part('pattern'));
    return splitter(pattern, part.choice('behavior', behaviors), part.flag('invert', false));
  },
  ByteLevel(part) {
    const blank = part.flag('add_prefix_space', true);
    const split = part.flag('use_regex', true) ? splitter(readGpt2(part), 'Isolated', false) : null;
    part.ignore('trim_offsets');
    return pieces => {
      const begun = blank ? pieces.map(piece => prefixed(piece, ' ')) : pieces;
      return (split?.(begun) ?? begun).map(({ text, first }) => ({ text: bytesSpelled(text), first }));
    };
  },
  Metaspace(part, beginningKnown) {
    const mark = part.text('replacement', '\u2581');
    if (Array.from(mark).length !== 1) throw part.broken(`.replacement is ${JSON.stringify(mark)}, not one character`);
    const old = part.flag('add_prefix_space', true);
    const scheme = part.choice('prepend_scheme', ['always', 'first', 'never'], old ? 'always' : 'never');
    if (!old && scheme !== 'never') throw part.broken('.add_prefix_space does not agree with .prepend_scheme');
    if (scheme === 'first' && !beginningKnown)
      throw part.unsupported('.prepend_scheme first after a normalizer that may remove the beginning of a text');
    part.ignore('str_rep');
    const split = part.flag('split', true) ? splitter(escaped(mark), 'MergedWithNext', false) : null;
    return pieces => {
      const marked = pieces.map(({ text, first }) => {
        const piece = { text: text.replaceAll(' ', mark), first };
        return scheme === 'always' || (scheme === 'first' && first) ? prefixed(piece, mark) : piece;
      });
      return split?.(marked) ?? marked;
    };
  },
  Whitespace: () =>
    splitter(
      /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu,
      'Removed',
      true,
    ),
  WhitespaceSplit: () => splitter(/\p{White_Space}/gu, 'Removed', false),
  BertPreTokenizer() {
    const blanks = splitter(/\p{White_Space}/gu, 'Removed', false);
    const punctuation = splitter(PUNCTUATION, 'Isolated', false);
    return pieces => punctuation(blanks(pieces));
  },
  Punctuation: part => splitter(PUNCTUATION, part.choice('behavior', behaviors, 'Isolated'), false),
  Digits: part => splitter(/\p{N}/gu, part.flag('individual_digits', false) ? 'Isolated' : 'Contiguous', false),
  CharDelimiterSplit: part => splitter(escaped(part.text('delimiter')), 'Removed', false),
  FixedLength(part) {
    const length = part.number('length', 5);
    if (!(Number.isInteger(length) && length > 0))
      throw part.broken(`.length is ${length}, not a number of characters`);
    return splitter(new RegExp(`[^]{1,${length}}`, 'gu'), 'Isolated', false);
  },
};

/** ASCII's punctuation and symbols, and the punctuation of Unicode. */
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/gu;

const behaviors = ['Isolated', 'Removed', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext'] as const;

function prefixed({ text, first }: Piece, prefix: string): Piece {
  return { text: text.startsWith(prefix) ? text : prefix + text, first };
}

function escaped(text: string): RegExp {
  return new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'gu');
}

/** The pattern that ByteLevel has built in. */
function readGpt2(part: Part): RegExp {
  return readPattern(part.inside('pattern', { Regex: splits.gpt2.source }));
}

interface Stretch {
  readonly start: number;
  end: number;
  /** Matched, or where the pattern is inverted, not matched. */
  readonly matched: boolean;
}

/** Cuts pieces by a pattern; `behavior` says what becomes of what it matches. */
function splitter(pattern: RegExp, behavior: (typeof behaviors)[number], invert: boolean): PreTokenizer {
  return pieces =>
    pieces.flatMap(({ text, first }) =>
      joined(stretches(text, pattern, invert), behavior).map(({ start, end }) => ({
        text: text.slice(start, end),
        first: first && start === 0,
      })),
    );
}

function stretches(text: string, pattern: RegExp, invert: boolean): Stretch[] {
  const found: Stretch[] = [];
  const put = (start: number, end: number, matched: boolean) => found.push({ start, end, matched: matched !== invert });
  let done = 0;
  for (const { index, 0: match } of text.matchAll(pattern)) {
    if (done < index) put(done, index, false);
    put(index, index + match.length, true);
    done = index + match.length;
  }
  if (done < text.length) put(done, text.length, false);
  return found;
}

/** The stretches that are left, none of them empty. */
function joined(all: readonly Stretch[], behavior: (typeof behaviors)[number]): { start: number; end: number }[] {
  const kept: { start: number; end: number }[] = [];
  let before = false;
  switch (behavior) {
    case 'Isolated':
      kept.push(...all);
      break;
    case 'Removed':
      kept.push(...all.filter(({ matched }) => !matched));
      break;
    case 'Contiguous':
      for (const { start, end, matched } of all) {
        if (matched === before && kept.length > 0) kept.at(-1)!.end = end;
        else kept.push({ start, end });
        before = matched;
      }
      break;
    case 'MergedWithPrevious':
      for (const { start, end, matched } of all) {
        if (matched && !before && kept.length > 0) kept.at(-1)!.end = end;
        else kept.push({ start, end });
        before = matched;
      }
      break;
    case 'MergedWithNext':
      for (const { start, end, matched } of all.toReversed()) {
        if (matched && !before && kept.length > 0) kept.at(-1)!.start = start;
        else kept.push({ start, end });
        before = matched;
      }
      kept.reverse();
  }
  return kept.filter(({ start, end }) => start < end);
}
