// What a run learns from: documents, split into a training and a validation part, as tokens; and the tokenizer for them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { ContentHash } from '../data/content-hash.ts';
import { cachedFolder, cachedValue, cacheValue } from '../data/data-cache.ts';
import { filesOf, type ReadOptions, requireFields } from '../data/documents/documents.ts';
import { type Measured, measure, type Reading } from '../data/measure.ts';
import { areSettled, putStandardInputAside, requireUnchanged, type Stamp, stampsOf } from '../data/sources.ts';
import {
  DESCRIPTION,
  type DividedText,
  type TextDescription,
  TRAINING,
  tokenize,
  trainingPieces,
  VALIDATION,
} from '../data/tokenize.ts';
import { blocksOf, joined, partOf, TokenFile, type TokenStream } from '../data/tokens.ts';
import { tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { trainTokenizerOn } from '../tokenizer/train.ts';

export interface Corpus {
  /** The files and folders, as absolute paths. */
  readonly paths: readonly string[];
  /** Of all texts. */
  readonly hash: string;
  readonly tokenizer: Tokenizer;
  readonly training: TokenStream;
  readonly validation: TokenStream;
  /** Of the validation text, in UTF-8; null where it came as tokens. */
  readonly validationBytes: number | null;
  /** Texts, in all parts; 0 where they came as tokens. */
  readonly documents: number;
  /** The first lines of the training text. */
  readonly lines: readonly string[];
}

/** How far a corpus is: bytes of text, or, while a tokenizer is learned (`merge`), its tokens. */
export interface CorpusProgress {
  readonly phase: 'read' | 'count' | 'merge' | 'tokenize';
  readonly done: number;
  /** Null where nobody knows. */
  readonly total: number | null;
}

export interface CorpusOptions {
  readonly validationShare: number;
  /** Null: one is learned from the training part, with at most `vocabularySize` tokens. */
  readonly tokenizer: Tokenizer | null;
  readonly vocabularySize: number;
  /** The field or column that is the text; null for the usual one, and for standard input that is a text. */
  readonly textField: string | null;
  readonly onSkipped: ReadOptions['onSkipped'];
  readonly onProgress?: ((progress: CorpusProgress) => void) | undefined;
}

/** The field that a text has in nearly all data sets. */
const USUAL_FIELD = 'text';
/** Part of what cached tokens are found by: another number where the same text and tokenizer would give other tokens. */
const CACHE_VERSION = 1;

/**
 * Files and folders as tokens: read, divided and encoded once, and kept in the cache by their content, so that a text of
 * any size takes little memory, and the next run with it no time. Each file gives its last `validationShare` to
 * validation: of a text its last lines, of several documents the last ones. Documents are kept apart by the tokenizer's
 * end of a text, or by a line where it has none.
 *
 * @throws UserError where a file cannot be read, holds no text, or is not what its name says; WriteError where the disk
 *   has no room for the tokens.
 */
export async function readCorpus(paths: readonly string[], options: CorpusOptions): Promise<Corpus> {
  const absolute = paths.map(path => (path === '-' ? path : resolve(path)));
  const files = paths.flatMap(filesOf);
  requireFields(files, options.textField);
  if (paths.some(path => path.endsWith('.bin'))) return readShards(paths, absolute, options);
  const putAside = files.includes('-') ? await putStandardInputAside() : null;
  try {
    return { paths: absolute, ...(await readTexts(files, putAside?.path ?? null, options)) };
  } finally {
    putAside?.remove();
  }
}

async function readTexts(
  files: readonly string[],
  standardInput: string | null,
  options: CorpusOptions,
): Promise<Omit<Corpus, 'paths'>> {
  const { textField, onSkipped, validationShare, onProgress = () => {} } = options;
  const reading = { textField: textField ?? USUAL_FIELD, asLines: textField !== null, onSkipped, standardInput };
  const stamps = stampsOf(files.map(file => (file === '-' ? standardInput! : file)));
  const measured = await measureOnce(files, stamps, reading, onProgress);
  const text: DividedText = { measured, reading, validationShare };
  const bytes = measured.files.reduce((sum, file) => sum + file.bytes, 0);
  const learn = () => trainTokenizerOn(trainingPieces(text), bytes, { vocabSize: options.vocabularySize, onProgress });
  const tokenizer = options.tokenizer ?? (await learn());
  const hash = tokenizerHash(tokenizer);
  const documents = measured.files.map(file => file.documents);
  const folder = await cachedFolder(keyOf(['tokens', measured.hash, documents, validationShare, hash]), async place => {
    let done = 0;
    await tokenize(text, tokenizer, place, hash, more => {
      done += more;
      onProgress({ phase: 'tokenize', done, total: bytes });
    });
    requireUnchanged(stamps);
  });
  const description: TextDescription = JSON.parse(readFileSync(join(folder, DESCRIPTION), 'utf8'));
  return {
    hash: measured.hash,
    tokenizer,
    training: new TokenFile(join(folder, TRAINING)),
    validation: new TokenFile(join(folder, VALIDATION)),
    documents: documents.reduce((sum, count) => sum + count, 0),
    ...description,
  };
}

/**
 * What files hold, as it was found before where they are the same by their stamps. What holds no text is told each time,
 * and so read each time.
 */
async function measureOnce(
  files: readonly string[],
  stamps: readonly Stamp[],
  reading: Reading,
  onProgress: (progress: CorpusProgress) => void,
): Promise<Measured> {
  const key = keyOf(['measured', stamps, reading.textField, reading.asLines]);
  const isKnown = areSettled(stamps) && !files.includes('-');
  const known = isKnown ? (cachedValue(key) as Measured | null) : null;
  if (known !== null) return known;
  let isAllText = true;
  const { onSkipped } = reading;
  const told = (place: string, why: string) => {
    isAllText = false;
    onSkipped?.(place, why);
  };
  const measured = await measure(files, { ...reading, onSkipped: onSkipped && told }, done =>
    onProgress({ phase: 'read', done, total: null }),
  );
  requireUnchanged(stamps);
  if (isKnown && isAllText) cacheValue(key, measured);
  return measured;
}

function keyOf(parts: readonly unknown[]): string {
  const text = JSON.stringify([CACHE_VERSION, ...parts]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

/** What a file of tokens gives: all of it, or its beginning and its end. */
interface Shard {
  readonly files: readonly TokenFile[];
  readonly training: TokenStream;
  readonly validation: TokenStream;
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
  const shards = paths.map((path): Shard => {
    const tokens = openShard(path, tokenizer);
    const heldOut = join(dirname(path), 'val.bin');
    if (validationShare > 0 && basename(path) === 'train.bin' && existsSync(heldOut)) {
      const validation = openShard(heldOut, tokenizer);
      return { files: [tokens, validation], training: tokens, validation };
    }
    const cut = Math.round(tokens.length * (1 - validationShare));
    const [training, validation] = [partOf(tokens, 0, cut), partOf(tokens, cut, tokens.length)];
    return { files: [tokens], training, validation };
  });
  const training = joined(shards.map(shard => shard.training));
  const beginning = new Int32Array(Math.min(1000, training.length));
  training.read(0, beginning.length, beginning, 0);
  return {
    paths: absolute,
    hash: inspectOnce(shards, validationShare, tokenizer),
    tokenizer,
    training,
    validation: joined(shards.map(shard => shard.validation)),
    validationBytes: null,
    documents: 0,
    lines: tokenizer
      .decode(beginning)
      .split('\n')
      .slice(1, -1)
      .filter(line => line !== ''),
  };
}

/** A file of tokens that this tokenizer made, as far as its side-car tells. */
function openShard(path: string, tokenizer: Tokenizer): TokenFile {
  const tokens = new TokenFile(path);
  if (typeof tokens.sideCar?.tokenizer === 'string' && tokens.sideCar.tokenizer !== tokenizerHash(tokenizer))
    throw new UserError(`${path} was made with another tokenizer than the one given, as the file beside it says`);
  return tokens;
}

/** What is found in files of tokens when they are read through. */
interface Inspected {
  /** Of the ids, as 32 bits each, whatever holds them. */
  readonly hash: string;
  /** The largest id and its place in what a file gives to training and to validation, for all files. */
  readonly largest: readonly { readonly token: number; readonly place: number }[];
}

/** The hash of all tokens, as it was found before where the files are the same by their stamps. */
function inspectOnce(shards: readonly Shard[], validationShare: number, tokenizer: Tokenizer): string {
  const paths = shards.flatMap(shard => shard.files.map(file => file.path));
  const stamps = stampsOf(paths);
  const key = keyOf(['inspected', stamps, validationShare]);
  const isKnown = areSettled(stamps);
  const known = isKnown ? (cachedValue(key) as Inspected | null) : null;
  const streams = shards.flatMap(shard => [shard.training, shard.validation]);
  const { hash, largest } = known ?? inspect(streams);
  if (isKnown && known === null) cacheValue(key, { hash, largest });
  const { vocabularySize } = tokenizer;
  const wrong = largest.findIndex(({ token }) => token >= vocabularySize);
  if (wrong < 0) return hash;
  const { token, place } = largest[wrong]!;
  const { files, training } = shards[wrong >> 1]!;
  const isApart = files.length === 2 && wrong % 2 === 1;
  const start = wrong % 2 === 1 && !isApart ? training.length : 0;
  throw new UserError(
    `${files[isApart ? 1 : 0]!.path}: token ${start + place} is ${token}; the tokenizer has ${vocabularySize}: ` +
      'another one made the file',
  );
}

function inspect(streams: readonly TokenStream[]): Inspected {
  const hash = new ContentHash();
  const largest = streams.map(stream => {
    let [token, place, before] = [-1, 0, 0];
    hash.begin(4 * stream.length);
    for (const block of blocksOf(stream)) {
      hash.add(new Uint8Array(block.buffer, 0, block.byteLength));
      for (let i = 0; i < block.length; i++) if (block[i]! > token) [token, place] = [block[i]!, before + i];
      before += block.length;
    }
    return { token, place };
  });
  return { hash: hash.digest(), largest };
}
