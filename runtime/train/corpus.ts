// What a run learns from: documents, split into a training and a validation part, as tokens; and the tokenizer for them.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cachedFolder, cachedValue, cacheKey, cacheValue } from '../data/data-cache.ts';
import { filesOf, type ReadOptions, requireFields } from '../data/documents/documents.ts';
import { type Measured, measure, type Reading } from '../data/measure.ts';
import type { OnProgress } from '../data/progress.ts';
import { areSettled, putStandardInputAside, requireUnchanged, type Stamp, stampsOf } from '../data/sources.ts';
import { absolute, fetchAll, readSpecs, type SourceSpec } from '../data/specs.ts';
import {
  DESCRIPTION,
  type DividedText,
  type TextDescription,
  TRAINING,
  tokenize,
  trainingPieces,
  VALIDATION,
} from '../data/tokenize.ts';
import { joined, TokenFile, type TokenStream } from '../data/tokens.ts';
import { parseTokenizer, tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { trainTokenizerOn } from '../tokenizer/train.ts';
import { contentHash } from './settings.ts';
import { readShards } from './shards.ts';

/** The tokens that one source gives. */
export interface SourceTokens {
  /** Of all texts. */
  readonly hash: string;
  readonly training: TokenStream;
  readonly validation: TokenStream;
  /** Of the validation text, in UTF-8; null where it came as tokens. */
  readonly validationBytes: number | null;
  /** Texts, in all parts; 0 where they came as tokens. */
  readonly documents: number;
  /** The first lines of the training text. */
  readonly lines: readonly string[];
}

export interface Source extends SourceTokens {
  /** What tables and metrics call it. */
  readonly name: string;
  /** Of the samples that are drawn; the shares of all sources are 1 together. */
  readonly share: number;
}

/** All sources, each by itself and, where that is asked for, after one another. */
export interface Corpus extends SourceTokens {
  /** What was given, as `readCorpus` takes it: paths from the root, and data sets of the hub with their commit. */
  readonly paths: readonly string[];
  readonly tokenizer: Tokenizer;
  /** Those with weights, or one: all that was given. */
  readonly sources: readonly Source[];
}

export interface CorpusOptions {
  readonly validationShare: number;
  /** Null: one is learned from the training part, with at most `vocabularySize` tokens. */
  readonly tokenizer: Tokenizer | null;
  readonly vocabularySize: number;
  /** The field or column that is the text; null for the usual one, and for standard input that is a text. */
  readonly textField: string | null;
  readonly onSkipped: ReadOptions['onSkipped'];
  readonly onProgress?: OnProgress | undefined;
}

/** The field that a text has in nearly all data sets. */
const USUAL_FIELD = 'text';

/**
 * Files and folders as tokens: read, divided and encoded once, and kept in the cache by their content, with the tokenizer
 * that was learned from them, so that a text of any size takes little memory, and the next run with it no time. Each file
 * gives its last `validationShare` to validation: of a text its last lines, of several documents the last ones. Documents
 * are kept apart by the tokenizer's end of a text, or by a line where it has none. What has weights is a mixture: each is a
 * source of its own.
 *
 * @param specs as readSpecs takes them
 * @throws UserError where a file cannot be read, holds no text, or is not what its name says; WriteError where the disk
 *   has no room for the tokens.
 */
export async function readCorpus(specs: readonly string[], options: CorpusOptions): Promise<Corpus> {
  const { validationShare, onProgress = () => {} } = options;
  const given: (SourceSpec & { readonly words: readonly string[] })[] = [];
  for (const spec of readSpecs(specs)) {
    const { paths, pinned } = await fetchAll(spec.paths, onProgress);
    given.push({ ...spec, paths, words: absolute({ ...spec, paths: pinned }) });
  }
  const texts = given.map(source => (source.paths.some(path => path.endsWith('.bin')) ? null : filesIn(source)));
  if (texts.every(files => files !== null)) requireFields(texts.flat(), options.textField);
  const putAside = texts.some(files => files?.includes('-')) ? await putStandardInputAside() : null;
  try {
    const read: (ReadText | null)[] = [];
    for (const files of texts) read.push(files && (await readText(files, putAside?.path ?? null, options)));
    const readable = read.filter(text => text !== null);
    const tokenizer = options.tokenizer ?? (readable.length > 0 ? await learnOnce(readable, options) : null);
    const sources: Source[] = [];
    const weights = given.reduce((sum, { weight }) => sum + weight, 0);
    for (const [index, { name, paths, weight }] of given.entries()) {
      const text = read[index];
      const tokens = text
        ? await tokenizeOnce(text, tokenizer!, onProgress)
        : readShards(paths, tokenizer, validationShare);
      sources.push({ ...tokens, name, share: weight / weights });
    }
    return { paths: given.flatMap(source => source.words), tokenizer: tokenizer!, ...together(sources), sources };
  } finally {
    putAside?.remove();
  }
}

const filesIn = ({ paths }: SourceSpec) => paths.flatMap(filesOf);

/** A source's text, measured. */
interface ReadText extends DividedText {
  readonly stamps: readonly Stamp[];
  readonly bytes: number;
}

async function readText(
  files: readonly string[],
  standardInput: string | null,
  options: CorpusOptions,
): Promise<ReadText> {
  const { textField, onSkipped, validationShare, onProgress = () => {} } = options;
  const reading = { textField: textField ?? USUAL_FIELD, asLines: textField !== null, onSkipped, standardInput };
  const stamps = stampsOf(files.map(file => (file === '-' ? standardInput! : file)));
  const measured = await measureOnce(files, stamps, reading, onProgress);
  const bytes = measured.files.reduce((sum, file) => sum + file.bytes, 0);
  return { measured, reading, validationShare, stamps, bytes };
}

/** What decides which documents a text has, and what of them is learned from. */
const contentOf = ({ measured, validationShare }: DividedText) => [
  measured.hash,
  measured.files.map(file => file.documents),
  validationShare,
];

/** A tokenizer learned from what texts give to training, once. */
async function learnOnce(
  texts: readonly ReadText[],
  { vocabularySize, onProgress }: CorpusOptions,
): Promise<Tokenizer> {
  const key = cacheKey(['tokenizer', texts.map(contentOf), vocabularySize]);
  const known = cachedValue(key) as string | null;
  if (known !== null) return parseTokenizer(known, 'the tokenizer in the cache');
  const bytes = texts.reduce((sum, text) => sum + text.bytes, 0);
  const tokenizer = await trainTokenizerOn(trainingPieces(texts), bytes, {
    vocabSize: vocabularySize,
    ...(onProgress && { onProgress }),
  });
  requireUnchanged(texts.flatMap(text => text.stamps));
  cacheValue(key, tokenizer.json);
  return tokenizer;
}

async function tokenizeOnce(text: ReadText, tokenizer: Tokenizer, onProgress: OnProgress): Promise<SourceTokens> {
  const { measured, bytes, stamps } = text;
  const hash = tokenizerHash(tokenizer);
  const key = cacheKey(['tokens', ...contentOf(text), hash]);
  const folder = await cachedFolder(key, async place => {
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
    training: new TokenFile(join(folder, TRAINING)),
    validation: new TokenFile(join(folder, VALIDATION)),
    documents: measured.files.reduce((sum, file) => sum + file.documents, 0),
    ...description,
  };
}

/** Sources as one. The hash of several tells of their shares too. */
function together(sources: readonly Source[]): SourceTokens {
  const [only] = sources;
  const bytes = sources.map(source => source.validationBytes);
  return {
    hash: sources.length === 1 ? only!.hash : contentHash(sources.flatMap(({ share, hash }) => [`${share}`, hash])),
    training: joined(sources.map(source => source.training)),
    validation: joined(sources.map(source => source.validation)),
    validationBytes: bytes.includes(null) ? null : bytes.reduce((sum: number, each) => sum + each!, 0),
    documents: sources.reduce((sum, source) => sum + source.documents, 0),
    lines: sources.flatMap(source => source.lines),
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
  onProgress: OnProgress,
): Promise<Measured> {
  const key = cacheKey(['measured', stamps, reading.textField, reading.asLines]);
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
