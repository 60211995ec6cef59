// Training a byte-level BPE tokenizer: words are counted, and merges learned from them.
import { UserError } from '../../compiler/diagnostic.ts';
import { alphabet } from './alphabet.ts';
import { WordCounter } from './count.ts';
import { byteLevelText, parseTokenizer } from './json.ts';
import { type CountedWords, learnMerges } from './learn.ts';
import type { SplitName } from './split.ts';
import { type Texts, Threads } from './threads.ts';
import type { Tokenizer } from './tokenizer.ts';
import type { LearnOptions } from './worker.ts';

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
  /** `count`: words are counted, `done` is in bytes and the total is not known. `merge`: in tokens. */
  readonly phase: 'count' | 'merge';
  readonly done: number;
  readonly total: number | null;
}

/** Texts of fewer bytes are counted before threads would have started. */
const WORTH_THREADS = 1 << 22;

/** Progress of merging is told each time that so many tokens have been made. */
const TOKENS_TOLD = 64;

/**
 * Learns a vocabulary from texts, on this thread: for small ones. They are counted line by line, as the Hugging Face
 * library counts files: no token runs over a newline into the next line. Special tokens in the texts are left out.
 *
 * @throws UserError where the vocabulary has no room for the bytes and the special tokens, or these are not usable.
 */
export function trainTokenizer(texts: Iterable<string>, options: TrainTokenizerOptions): Tokenizer {
  const learning = completed(options);
  const { vocabSize, split, specialTokens } = learning;
  const { onProgress } = options;
  const counter = new WordCounter(split, specialTokens);
  let done = 0;
  for (const text of texts) {
    const bytes = Buffer.from(text);
    counter.addText(bytes);
    done += bytes.length;
    onProgress?.({ phase: 'count', done, total: null });
  }
  onProgress?.({ phase: 'count', done, total: done });
  const learned = learnTokenizer(counter.counted(), learning, made =>
    onProgress?.({ phase: 'merge', done: made, total: vocabSize }),
  );
  return finished(learned, onProgress);
}

/**
 * Learns a vocabulary as trainTokenizer does, with threads, while this one only hands them the text: pieces of UTF-8
 * that end where lines or words end (documentPieces). The pieces are given away.
 *
 * @throws UserError as trainTokenizer
 */
export async function trainTokenizerInThreads(pieces: Texts, options: TrainTokenizerOptions): Promise<Tokenizer> {
  const learning = completed(options);
  const { vocabSize, split, specialTokens } = learning;
  const { onProgress } = options;
  const threads = new Threads({ split, specialTokens });
  try {
    let done = 0;
    async function* counted() {
      for await (const piece of pieces) {
        done += piece.length;
        onProgress?.({ phase: 'count', done, total: null });
        yield piece;
      }
    }
    for await (const _ of threads.map('count', counted(), text => text.buffer));
    onProgress?.({ phase: 'count', done, total: done });
    const input = { counted: await threads.onEach('counted', null), options: learning };
    const learned = await threads.run('learn', input, {
      transfer: input.counted.flatMap(({ bytes, starts, counts }) =>
        [bytes, starts, counts].map(array => array.buffer as ArrayBuffer),
      ),
      onProgress: made => onProgress?.({ phase: 'merge', done: made, total: vocabSize }),
    });
    return finished(learned, onProgress);
  } finally {
    await threads.close();
  }
}

/**
 * Learns a vocabulary from a text in pieces, as trainTokenizerInThreads does; here where it has too few bytes for threads.
 *
 * @throws UserError as trainTokenizer
 */
export async function trainTokenizerOn(
  pieces: Texts,
  bytes: number,
  options: TrainTokenizerOptions,
): Promise<Tokenizer> {
  if (bytes >= WORTH_THREADS) return await trainTokenizerInThreads(pieces, options);
  const texts: Uint8Array[] = [];
  for await (const piece of pieces) texts.push(piece);
  return trainTokenizer([Buffer.concat(texts).toString('utf8')], options);
}

/** Learns from counted words; gives the tokenizer as the text of tokenizer.json. */
export function learnTokenizer(
  counted: CountedWords,
  options: LearnOptions,
  onProgress: (made: number) => void,
): string {
  const { specialTokens, split } = options;
  const tell = (made: number) => {
    if (made % TOKENS_TOLD === 0) onProgress(made);
  };
  return byteLevelText({ ...learnMerges(counted, options, tell, clash), specialTokens, split });
}

function finished(text: string, onProgress: TrainTokenizerOptions['onProgress']): Tokenizer {
  const tokenizer = parseTokenizer(text, 'the trained tokenizer');
  const made = tokenizer.vocabularySize;
  onProgress?.({ phase: 'merge', done: made, total: made });
  return tokenizer;
}

/** The options with their defaults. */
function completed(options: TrainTokenizerOptions): LearnOptions {
  const { vocabSize, minFrequency = 2, specialTokens = ['<|endoftext|>'], split = 'gpt2' } = options;
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
    if (/\s/.test(token))
      throw new UserError(
        `the special token ${JSON.stringify(token)} has white space in it, where texts are cut into lines and words; ` +
          'give it a name without, such as <|endoftext|>',
      );
    if (seen.has(token)) throw new UserError(`the special token ${token} is given twice; give it once`);
    if (alphabet.includes(token)) throw clash(token);
    seen.add(token);
  }
  return { vocabSize, minFrequency, specialTokens, split };
}

function clash(token: string): UserError {
  return new UserError(
    `the special token ${token} is also how a byte-level vocabulary spells a piece of text; ` +
      `give it another name, such as <|${token}|>`,
  );
}
