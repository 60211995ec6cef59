// What a run learns from: text files, split into a training and a validation part, as tokens; and the tokenizer for them.
import { resolve } from 'node:path';
import { readText } from '../data/text.ts';
import { encodeTokens, splitText, type Tokens } from '../data/tokens.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { trainTokenizer } from '../tokenizer/train.ts';
import { contentHash } from './settings.ts';

export interface Corpus {
  /** The text files, as absolute paths. */
  readonly paths: readonly string[];
  /** Of the whole text. */
  readonly hash: string;
  readonly tokenizer: Tokenizer;
  readonly training: Tokens;
  readonly validation: Tokens;
  /** Of the validation text, in UTF-8. */
  readonly validationBytes: number;
  /** The first lines of the training text. */
  readonly lines: readonly string[];
}

/** Characters of the training text whose lines are kept. */
const LINES_WITHIN = 20_000;

/**
 * Reads text files and turns them into tokens. Each file gives its last `validationShare` to validation.
 *
 * @param tokenizer null: one is learned from the training part, with at most `vocabularySize` tokens
 * @throws UserError where a file cannot be read, is empty, or is not UTF-8.
 */
export function readCorpus(
  files: readonly string[],
  options: { validationShare: number; tokenizer: Tokenizer | null; vocabularySize: number },
): Corpus {
  const texts = files.map(readText);
  const parts = texts.map(text => splitText(text, options.validationShare));
  const training = parts.map(part => part.training).join('\n');
  const validation = parts.map(part => part.validation).join('\n');
  const tokenizer = options.tokenizer ?? trainTokenizer([training], { vocabSize: options.vocabularySize });
  return {
    paths: files.map(file => (file === '-' ? file : resolve(file))),
    hash: contentHash(...texts),
    tokenizer,
    training: encodeTokens(training, tokenizer),
    validation: encodeTokens(validation, tokenizer),
    validationBytes: Buffer.byteLength(validation),
    lines: training
      .slice(0, LINES_WITHIN)
      .split('\n')
      .filter(line => line !== ''),
  };
}
