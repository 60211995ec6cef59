// Training a byte-level BPE tokenizer: the most frequent pair of neighbours becomes a token, again and again.
//
// Pair counts are kept up to date where a merge changes them. The heap is lazy: a count in it may be too high, since
// counts of old pairs only fall; it is compared when it comes up and put back where it was wrong. On equal counts the
// pair of smaller ids is merged first, which makes merges and ids those of the Hugging Face library.
import { UserError } from '../../compiler/diagnostic.ts';
import { alphabet, byteCharacters } from './alphabet.ts';
import { Heap } from './heap.ts';
import { forEachWord, type SplitName } from './split.ts';
import { addedPattern, Tokenizer } from './tokenizer.ts';

export interface TrainTokenizerOptions {
  /** Tokens in all: special tokens, the 256 bytes, and merges for the rest (fewer where the text has no more). */
  readonly vocabSize: number;
  /** A pair that occurs less often is never merged. */
  readonly minFrequency?: number;
  /** Take the first ids, in this order. */
  readonly specialTokens?: readonly string[];
  readonly split?: SplitName;
  readonly onProgress?: (progress: TokenizerProgress) => void;
}

export interface TokenizerProgress {
  /** `count`: words are counted, `done` is in characters and the total is not known. `merge`: in tokens. */
  readonly phase: 'count' | 'merge';
  readonly done: number;
  readonly total: number | null;
}

/**
 * Learns a vocabulary from texts. They are counted line by line, as the Hugging Face library counts files: no token
 * runs over a newline into the next line. Special tokens in the texts are left out.
 *
 * @throws UserError where the vocabulary has no room for the bytes and the special tokens, or these are not usable.
 */
export function trainTokenizer(texts: Iterable<string>, options: TrainTokenizerOptions): Tokenizer {
  const { vocabSize, minFrequency = 2, specialTokens = ['<|endoftext|>'], split = 'gpt2', onProgress } = options;
  checkOptions(vocabSize, minFrequency, specialTokens);
  const counts = countWords(texts, specialTokens, split, onProgress);
  const tokens = [...specialTokens, ...alphabet];
  const merges = learnMerges(counts, tokens, vocabSize, minFrequency, specialTokens.length, onProgress);
  const added = specialTokens.map((content, id) => ({ id, content, special: true }));
  return new Tokenizer({ tokens, merges, added, split, wholeWords: false });
}

function checkOptions(vocabSize: number, minFrequency: number, specialTokens: readonly string[]): void {
  const least = alphabet.length + specialTokens.length;
  if (!Number.isInteger(vocabSize) || vocabSize < least)
    throw new UserError(
      `the vocabulary size is ${vocabSize}, but the 256 bytes and ${specialTokens.length} special token(s) alone ` +
        `need ${least}; give a whole number of at least ${least}, 512 to 2048 for a few megabytes of text`,
    );
  if (!Number.isInteger(minFrequency) || minFrequency < 1)
    throw new UserError(`the minimum frequency is ${minFrequency}; give a whole number of at least 1`);
  const seen = new Set<string>();
  for (const token of specialTokens) {
    if (token === '') throw new UserError('a special token is empty; give it a name such as <|endoftext|>');
    if (seen.has(token)) throw new UserError(`the special token ${token} is given twice; give it once`);
    if (alphabet.includes(token)) throw clash(token);
    seen.add(token);
  }
}

/** How often each word (as the split pattern cuts it) occurs. */
function countWords(
  texts: Iterable<string>,
  specialTokens: readonly string[],
  split: SplitName,
  onProgress: TrainTokenizerOptions['onProgress'],
): Map<string, number> {
  const counts = new Map<string, number>();
  const special = addedPattern(specialTokens);
  const count = (word: string) => counts.set(word, (counts.get(word) ?? 0) + 1);
  let done = 0;
  let lines = 0;
  for (const text of texts)
    for (const part of special === null ? [text] : text.split(special))
      for (let start = 0; start < part.length; ) {
        const newline = part.indexOf('\n', start);
        const end = newline === -1 ? part.length : newline + 1;
        forEachWord(part.slice(start, end), split, count);
        done += end - start;
        start = end;
        if (++lines % 4096 === 0) onProgress?.({ phase: 'count', done, total: null });
      }
  onProgress?.({ phase: 'count', done, total: done });
  return counts;
}

interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Indices of the words that hold the pair, or once held it. */
  readonly words: number[];
}

/** Appends the learned tokens to `tokens` and returns the merges. Ids below `specials` are special tokens. */
function learnMerges(
  counts: ReadonlyMap<string, number>,
  tokens: string[],
  vocabSize: number,
  minFrequency: number,
  specials: number,
  onProgress: TrainTokenizerOptions['onProgress'],
): (readonly [number, number])[] {
  const frequencies = Float64Array.from(counts.values());
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const byteIds = byteCharacters.map(character => ids.get(character)!);
  const encoder = new TextEncoder();
  const words = Array.from(counts.keys(), word => Array.from(encoder.encode(word), byte => byteIds[byte]!));
  const pairs = new Map<number, Pair>();

  /** Counts the pair `by` more times in a word, and returns it. */
  const change = (left: number, right: number, word: number, by: number): Pair => {
    const key = left * vocabSize + right;
    let pair = pairs.get(key);
    if (pair === undefined) {
      pair = { left, right, count: 0, words: [] };
      pairs.set(key, pair);
    }
    pair.count += by;
    if (by > 0 && pair.words.at(-1) !== word) pair.words.push(word);
    return pair;
  };
  words.forEach((symbols, word) => {
    for (let i = 0; i + 1 < symbols.length; i++) change(symbols[i]!, symbols[i + 1]!, word, frequencies[word]!);
  });

  const waiting = new Heap<{ readonly pair: Pair; readonly count: number }>((a, b) =>
    a.count !== b.count
      ? a.count > b.count
      : a.pair.left !== b.pair.left
        ? a.pair.left < b.pair.left
        : a.pair.right < b.pair.right,
  );
  for (const pair of pairs.values()) waiting.push({ pair, count: pair.count });

  const merges: (readonly [number, number])[] = [];
  while (tokens.length < vocabSize) {
    const top = waiting.pop();
    if (top === undefined) break;
    const { left, right, count, words: holders } = top.pair;
    if (count !== top.count) {
      if (count > 0) waiting.push({ pair: top.pair, count });
      continue;
    }
    if (count < minFrequency) break;

    // Two different pairs may make the same token (a + bc, ab + c): the second merge then adds no token.
    const spelling = tokens[left]! + tokens[right]!;
    const merged = ids.get(spelling) ?? tokens.length;
    if (merged < specials) throw clash(spelling);
    if (merged === tokens.length) tokens.push(spelling);
    ids.set(spelling, merged);
    merges.push([left, right]);

    const grown = new Set<Pair>();
    for (const word of holders) {
      const symbols = words[word]!;
      const by = frequencies[word]!;
      let kept = 0;
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] !== left || symbols[i + 1] !== right) {
          symbols[kept++] = symbols[i]!;
          continue;
        }
        if (kept > 0) {
          change(symbols[kept - 1]!, left, word, -by);
          grown.add(change(symbols[kept - 1]!, merged, word, by));
        }
        if (i + 2 < symbols.length) {
          change(right, symbols[i + 2]!, word, -by);
          grown.add(change(merged, symbols[i + 2]!, word, by));
        }
        symbols[kept++] = merged;
        i++;
      }
      symbols.length = kept;
    }
    pairs.delete(left * vocabSize + right);
    top.pair.count = 0;
    for (const pair of grown) if (pair.count > 0) waiting.push({ pair, count: pair.count });
    if (tokens.length % 64 === 0) onProgress?.({ phase: 'merge', done: tokens.length, total: vocabSize });
  }
  onProgress?.({ phase: 'merge', done: tokens.length, total: tokens.length });
  return merges;
}

function clash(token: string): UserError {
  return new UserError(
    `the special token ${token} is also how a byte-level vocabulary spells a piece of text; ` +
      `give it another name, such as <|${token}|>`,
  );
}
