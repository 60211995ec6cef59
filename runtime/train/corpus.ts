// What a run learns from: documents, split into a training and a validation part, as tokens; and the tokenizer for them.
import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { toUSVString } from 'node:util';
import { UserError } from '../../compiler/diagnostic.ts';
import { type Document, filesOf, type ReadOptions, readDocuments, requireFields } from '../data/documents/documents.ts';
import { encodeTokens, readTokens, splitText, type Tokens } from '../data/tokens.ts';
import { tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { trainTokenizerOn } from '../tokenizer/train.ts';
import { contentHash } from './settings.ts';

export interface Corpus {
  /** The files and folders, as absolute paths. */
  readonly paths: readonly string[];
  /** Of all texts. */
  readonly hash: string;
  readonly tokenizer: Tokenizer;
  readonly training: Tokens;
  readonly validation: Tokens;
  /** Of the validation text, in UTF-8; null where it came as tokens. */
  readonly validationBytes: number | null;
  /** Texts, in all parts; 0 where they came as tokens. */
  readonly documents: number;
  /** The first lines of the training text. */
  readonly lines: readonly string[];
}

export interface CorpusOptions {
  readonly validationShare: number;
  /** Null: one is learned from the training part, with at most `vocabularySize` tokens. */
  readonly tokenizer: Tokenizer | null;
  readonly vocabularySize: number;
  /** The field or column that is the text; null for the usual one, and for standard input that is a text. */
  readonly textField: string | null;
  readonly onSkipped: ReadOptions['onSkipped'];
}

/** The field that a text has in nearly all data sets. */
const USUAL_FIELD = 'text';
/** Characters of the training text whose lines are kept. */
const LINES_WITHIN = 20_000;

/**
 * Reads files and folders and turns them into tokens. Each file gives its last `validationShare` to validation: of a text
 * its last lines, of several documents the last ones. Documents are kept apart by the tokenizer's end of a text, or by a
 * line where it has none.
 *
 * @throws UserError where a file cannot be read, holds no text, or is not what its name says.
 */
export async function readCorpus(paths: readonly string[], options: CorpusOptions): Promise<Corpus> {
  const absolute = paths.map(path => (path === '-' ? path : resolve(path)));
  const files = paths.flatMap(filesOf);
  requireFields(files, options.textField);
  if (paths.some(path => path.endsWith('.bin'))) return readShards(paths, absolute, options);
  const training: string[] = [];
  const validation: string[] = [];
  const texts: string[] = [];
  const reading = { textField: options.textField ?? USUAL_FIELD, onSkipped: options.onSkipped };
  for (const file of files) {
    const documents: Document[] = [];
    for await (const document of readDocuments(file, reading, options.textField !== null)) documents.push(document);
    // One by one: there may be millions, and a call takes no more arguments than its stack has room for.
    for (const { text } of documents) texts.push(text);
    const parts = splitDocuments(documents, options.validationShare);
    for (const text of parts.training) training.push(text);
    for (const text of parts.validation) validation.push(text);
  }
  const tokenizer = options.tokenizer ?? (await trainTokenizerOn(training, { vocabSize: options.vocabularySize }));
  return {
    paths: absolute,
    hash: contentHash(texts),
    tokenizer,
    training: await encodeDocuments(training, tokenizer),
    validation: await encodeDocuments(validation, tokenizer),
    validationBytes: validation.reduce((sum, text) => sum + Buffer.byteLength(text), 0),
    documents: texts.length,
    lines: firstLines(training),
  };
}

/** As tokens can say them: half a surrogate pair, which no UTF-8 holds, comes back as U+FFFD from any tokenizer. */
function firstLines(texts: readonly string[]): string[] {
  let start = '';
  for (const text of texts) {
    if (start.length >= LINES_WITHIN) break;
    start += `${text.slice(0, LINES_WITHIN)}\n`;
  }
  return toUSVString(start.slice(0, LINES_WITHIN))
    .split('\n')
    .filter(line => line !== '');
}

/** A file's last share for validation: of one text its end, of several the last of them. */
function splitDocuments(documents: readonly Document[], share: number): Record<'training' | 'validation', string[]> {
  const texts = documents.map(({ text }) => text);
  if (texts.length === 1) {
    const { training, validation } = splitText(texts[0]!, share);
    return { training: [training], validation: validation === '' ? [] : [validation] };
  }
  if (share === 0) return { training: texts, validation: [] };
  const all = texts.reduce((sum, text) => sum + text.length, 0);
  let before = 0;
  const first = texts.findIndex(text => {
    before += text.length;
    return before - text.length / 2 >= (1 - share) * all;
  });
  return { training: texts.slice(0, first), validation: texts.slice(first) }; // one at least: the last, where it is long
}

/** Documents as one stream. */
async function encodeDocuments(texts: readonly string[], tokenizer: Tokenizer): Promise<Tokens> {
  const { endOfText } = tokenizer;
  if (endOfText === null || texts.length < 2) return await encodeTokens(texts.join('\n'), tokenizer);
  const parts: Tokens[] = [];
  for (const text of texts) parts.push(await encodeTokens(text, tokenizer));
  const length = parts.reduce((sum, part) => sum + part.length, parts.length - 1);
  const stream = tokenizer.vocabularySize <= 2 ** 16 ? new Uint16Array(length) : new Uint32Array(length);
  let at = 0;
  for (const part of parts) {
    if (at > 0) stream[at++] = endOfText;
    stream.set(part, at);
    at += part.length;
  }
  return stream;
}

/**
 * Files of tokens, which another tool or `malc data prepare` made. Beside a train.bin a val.bin is what is held out; of other
 * files it is their end.
 */
function readShards(paths: readonly string[], absolute: readonly string[], options: CorpusOptions): Corpus {
  const other = paths.find(path => !path.endsWith('.bin'));
  if (other !== undefined) throw new UserError(`--data: ${other} is text and others are tokens (.bin); give one kind`);
  const { tokenizer, validationShare } = options;
  if (tokenizer === null)
    throw new UserError(`${paths[0]} holds tokens; give with --tokenizer the tokenizer.json that made them`);
  const streams = paths.map(path => {
    const tokens = readShard(path, tokenizer);
    const heldOut = join(dirname(path), 'val.bin');
    if (validationShare > 0 && basename(path) === 'train.bin' && existsSync(heldOut))
      return { training: tokens, validation: readShard(heldOut, tokenizer) };
    const cut = Math.round(tokens.length * (1 - validationShare));
    return { training: tokens.subarray(0, cut), validation: tokens.subarray(cut) };
  });
  const training = joined(streams.map(stream => stream.training));
  return {
    paths: absolute,
    hash: contentHash(streams.flatMap(stream => [stream.training, stream.validation])),
    tokenizer,
    training,
    validation: joined(streams.map(stream => stream.validation)),
    validationBytes: null,
    documents: 0,
    lines: tokenizer
      .decode(Int32Array.from(training.subarray(0, 1000)))
      .split('\n')
      .slice(1, -1)
      .filter(line => line !== ''),
  };
}

/** A file of tokens that this tokenizer made, as far as can be told. */
function readShard(path: string, tokenizer: Tokenizer): Tokens {
  const { tokens, sideCar } = readTokens(path);
  if (typeof sideCar?.tokenizer === 'string' && sideCar.tokenizer !== tokenizerHash(tokenizer))
    throw new UserError(`${path} was made with another tokenizer than the one given, as the file beside it says`);
  const wrong = tokens.findIndex(token => token >= tokenizer.vocabularySize);
  if (wrong < 0) return tokens;
  throw new UserError(
    `${path}: token ${wrong} is ${tokens[wrong]}; the tokenizer has ${tokenizer.vocabularySize}: another one made the file`,
  );
}

function joined(parts: readonly Tokens[]): Tokens {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const stream = parts.some(part => part instanceof Uint32Array) ? new Uint32Array(length) : new Uint16Array(length);
  let at = 0;
  for (const part of parts) {
    stream.set(part, at);
    at += part.length;
  }
  return stream;
}
