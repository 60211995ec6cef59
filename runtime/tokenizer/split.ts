// The split patterns: how a text is cut into words before the merges of byte-level BPE, which never cross a cut.
//
// Each pattern is here as tokenizer.json spells it (Oniguruma), and as a scanner over UTF-8 that cuts alike, one branch
// for each alternative of the pattern, in its order. A regular expression would take most of the time of tokenizing.
// White space is \p{White_Space}: \s of JavaScript takes U+FEFF, which is none, and leaves out U+0085, which is one.

/** Kinds of characters: what the patterns tell apart. */
const OTHER = 0;
const LETTER = 1;
const NUMBER = 2;
const SPACE = 3;
/** CR and LF: white space, but the patterns of Llama 3 and Qwen 2 treat them apart. */
const NEWLINE = 4;

const QUOTE = 0x27;
const BLANK = 0x20;

interface Split {
  /** The pattern as tokenizer.json has it. */
  readonly source: string;
  /** The end of the word that begins at `start`, which is before `end`; the text is well-formed UTF-8. */
  readonly wordEnd: (text: Uint8Array, start: number, end: number) => number;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";
const afterNumbers = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

export const splits = {
  /** The pattern of GPT-2, which the ByteLevel pre-tokenizer of Hugging Face has built in. */
  gpt2: {
    source: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    wordEnd: gpt2WordEnd,
  },
  /** The pattern of cl100k (GPT-4): contractions in either case, numbers by threes, punctuation with its newlines. */
  cl100k: {
    source: `${contractions}[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}${afterNumbers}`,
    wordEnd: (text, start, end) => cl100kWordEnd(text, start, end, 3),
  },
  /** Llama 3 took the pattern of cl100k as it is. */
  llama3: {
    source: `${contractions}[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}${afterNumbers}`,
    wordEnd: (text, start, end) => cl100kWordEnd(text, start, end, 3),
  },
  /** Qwen 2's: that of cl100k with every digit a word. */
  qwen2: {
    source: `${contractions}[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${afterNumbers}`,
    wordEnd: (text, start, end) => cl100kWordEnd(text, start, end, 1),
  },
} as const satisfies Record<string, Split>;

export type SplitName = keyof typeof splits;

export const splitNames = Object.keys(splits) as readonly SplitName[];

/** Calls `visit` with the two ends of each word of text[start, end), in order: joined, the words are the text. */
export function forEachWord(
  text: Uint8Array,
  start: number,
  end: number,
  split: SplitName,
  visit: (start: number, end: number) => void,
): void {
  const { wordEnd } = splits[split];
  while (start < end) {
    const next = wordEnd(text, start, end);
    visit(start, next);
    start = next;
  }
}

/**
 * The largest place up to `end`, above `start`, where a text may be cut so that the words of both parts are those of
 * the whole: between an ASCII letter and a blank or newline, which no pattern ever joins. -1 where there is none.
 */
export function safeCut(text: Uint8Array, start: number, end: number): number {
  for (let place = Math.min(end, text.length - 1); place > start; place--) {
    const next = text[place]!;
    const before = text[place - 1]!;
    if ((next === BLANK || next === 0x0a) && before < 0x80 && KINDS[before] === LETTER) return place;
  }
  return -1;
}

/** Where a text that is counted line by line may be cut: after its last line, or inside one that goes on too long. */
export function lineCut(text: Uint8Array): number {
  const lines = text.lastIndexOf(0x0a) + 1;
  return lines > 0 ? lines : safeCut(text, 0, text.length);
}

function gpt2WordEnd(text: Uint8Array, start: number, end: number): number {
  const first = text[start]!;
  if (first === QUOTE) {
    const length = contraction(text, start, end, false);
    if (length > 0) return start + length;
  }
  let place = start;
  let kind = kindAt(text, place, end);
  if (first === BLANK && start + 1 < end) {
    const next = kindAt(text, start + 1, end);
    if (next < SPACE) {
      place++;
      kind = next;
    }
  }
  return kind < SPACE ? runEnd(text, place, end, kind) : blanksEnd(text, start, end);
}

function cl100kWordEnd(text: Uint8Array, start: number, end: number, digits: number): number {
  const first = text[start]!;
  if (first === QUOTE) {
    const length = contraction(text, start, end, true);
    if (length > 0) return start + length;
  }
  const kind = kindAt(text, start, end);
  if (kind === LETTER) return runEnd(text, start, end, LETTER);
  const second = start + widthOf(first);
  const next = second < end ? kindAt(text, second, end) : NEWLINE;
  if (kind === NUMBER) {
    let place = second;
    for (let count = 1; count < digits && place < end && kindAt(text, place, end) === NUMBER; count++)
      place += widthOf(text[place]!);
    return place;
  }
  if (kind !== NEWLINE && next === LETTER) return runEnd(text, second, end, LETTER);
  if (kind === OTHER || (first === BLANK && next === OTHER)) {
    let place = runEnd(text, kind === OTHER ? start : second, end, OTHER);
    while (place < end && isNewline(text[place]!)) place++;
    return place;
  }
  // White space up to its last newline, where it has one.
  const blanks = whiteSpaceEnd(text, start, end);
  for (let place = blanks; place > start; place--) if (isNewline(text[place - 1]!)) return place;
  return blanksEnd(text, start, end);
}

/** `\s+(?!\S)|\s+`: white space, and where more text follows, all of it but the last character, if that leaves any. */
function blanksEnd(text: Uint8Array, start: number, end: number): number {
  const blanks = whiteSpaceEnd(text, start, end);
  if (blanks === end) return end;
  let last = blanks - 1;
  while ((text[last]! & 0xc0) === 0x80) last--;
  return last > start ? last : blanks;
}

function whiteSpaceEnd(text: Uint8Array, start: number, end: number): number {
  let place = start;
  while (place < end && kindAt(text, place, end) >= SPACE) place += widthOf(text[place]!);
  return place;
}

/** The end of the characters of one kind that begin at `start`. */
function runEnd(text: Uint8Array, start: number, end: number, kind: number): number {
  let place = start;
  while (place < end && kindAt(text, place, end) === kind) place += widthOf(text[place]!);
  return place;
}

/**
 * How long the contraction is that begins with the quote at `start`, or 0: 's 't 'm 'd 're 've 'll. Where case is
 * ignored, the long s (U+017F) is an s, as folding has it; the other letters have two cases alone.
 */
function contraction(text: Uint8Array, start: number, end: number, ignoreCase: boolean): number {
  const fold = ignoreCase ? 0x20 : 0;
  const at = (place: number) => (place < end ? text[place]! | fold : 0);
  const first = at(start + 1);
  if (first === 0x73 || first === 0x74 || first === 0x6d || first === 0x64) return 2;
  if (ignoreCase && start + 2 < end && text[start + 1] === 0xc5 && text[start + 2] === 0xbf) return 3;
  const second = at(start + 2);
  return ((first === 0x72 || first === 0x76) && second === 0x65) || (first === 0x6c && second === 0x6c) ? 3 : 0;
}

const isNewline = (byte: number) => byte === 0x0a || byte === 0x0d;

/** Bytes of the character that a lead byte begins. */
const widthOf = (lead: number) => (lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4);

/** The kind of the character that begins at a place, which is before `end`. */
function kindAt(text: Uint8Array, place: number, end: number): number {
  const lead = text[place]!;
  if (lead < 0x80) return KINDS[lead]!;
  const width = widthOf(lead);
  if (place + width > end) throw new Error(`the text ends inside a character, at byte ${place}`);
  const second = text[place + 1]! & 0x3f;
  if (width === 2) return kindOf(((lead & 0x1f) << 6) | second);
  const third = text[place + 2]! & 0x3f;
  if (width === 3) return kindOf(((lead & 0x0f) << 12) | (second << 6) | third);
  return kindOf(((lead & 0x07) << 18) | (second << 12) | (third << 6) | (text[place + 3]! & 0x3f));
}

/** Kinds by code point, in pages of 256 that are filled when a text first needs them. */
const pages: (Uint8Array | undefined)[] = new Array(0x1100);

function kindOf(codePoint: number): number {
  const page = pages[codePoint >> 8] ?? fillPage(codePoint >> 8);
  return page[codePoint & 0xff]!;
}

function fillPage(number: number): Uint8Array {
  const page = Uint8Array.from({ length: 256 }, (_, low) => {
    const character = String.fromCodePoint(number * 256 + low);
    if (/[\r\n]/.test(character)) return NEWLINE;
    if (/\p{White_Space}/u.test(character)) return SPACE;
    if (/\p{L}/u.test(character)) return LETTER;
    return /\p{N}/u.test(character) ? NUMBER : OTHER;
  });
  pages[number] = page;
  return page;
}

/** The first page: ASCII is most of what there is. */
const KINDS = fillPage(0);
