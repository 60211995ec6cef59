// The split patterns: how a text is cut into words before the merges of byte-level BPE, which never cross a cut.
//
// Each pattern exists twice: as tokenizer.json spells it (Oniguruma) and as a JavaScript expression that cuts alike.
//  - \s is \p{White_Space}: JavaScript's own \s takes U+FEFF, which is none, and leaves out U+0085, which is one.
//  - (?i:'s) is spelled out, since JavaScript has had such groups for a short time only. Case folding takes the
//    long s, U+017F, for an s; none of the other letters folds to anything but its two cases.

const SPACE = '\\p{White_Space}';
const NOT_SPACE = '\\P{White_Space}';
const OTHER = `[^${SPACE}\\p{L}\\p{N}]`;

export const splits = {
  /** The pattern of GPT-2, which the ByteLevel pre-tokenizer of Hugging Face has built in. */
  gpt2: {
    source: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    expression: new RegExp(
      `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?${OTHER}+|${SPACE}+(?!${NOT_SPACE})|${SPACE}+`,
      'gu',
    ),
  },
  /** The pattern of Llama 3: contractions in either case, numbers in groups of three, punctuation with its newlines. */
  llama3: {
    source:
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    expression: new RegExp(
      "'[sS\\u017F]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]" +
        `|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?${OTHER}+[\\r\\n]*` +
        `|${SPACE}*[\\r\\n]+|${SPACE}+(?!${NOT_SPACE})|${SPACE}+`,
      'gu',
    ),
  },
} as const;

export type SplitName = keyof typeof splits;

export const splitNames = Object.keys(splits) as readonly SplitName[];

/** Calls `visit` with each word of the text, in order. Joined, the words are the text. */
export function forEachWord(text: string, split: SplitName, visit: (word: string) => void): void {
  for (const match of text.matchAll(splits[split].expression)) visit(match[0]);
}
