// Files of tokens that another tool or `malc data prepare` made, as the streams of a run.
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { ContentHash } from '../data/content-hash.ts';
import { cachedValue, cacheKey, cacheValue } from '../data/data-cache.ts';
import { areSettled, stampsOf } from '../data/sources.ts';
import { blocksOf, joined, partOf, TokenFile, type TokenStream } from '../data/tokens.ts';
import { tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { SourceTokens } from './corpus.ts';

/** What a file of tokens gives: all of it, or its beginning and its end. */
interface Shard {
  readonly files: readonly TokenFile[];
  readonly training: TokenStream;
  readonly validation: TokenStream;
}

/**
 * Files of tokens, which another tool or `malc data prepare` made. Beside a train.bin a val.bin is what is held out; of other
 * files it is their end.
 *
 * @throws UserError where one is torn, or another tokenizer made it.
 */
export function readShards(
  paths: readonly string[],
  tokenizer: Tokenizer | null,
  validationShare: number,
): SourceTokens {
  const other = paths.find(path => !path.endsWith('.bin'));
  if (other !== undefined) throw new UserError(`--data: ${other} is text and others are tokens (.bin); give one kind`);
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
    hash: inspectOnce(shards, validationShare, tokenizer),
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
  const key = cacheKey(['inspected', stamps, validationShare]);
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
