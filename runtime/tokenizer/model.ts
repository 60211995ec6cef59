// What the models of tokenizer.json have in common, and which there are: BPE, Unigram, WordPiece and WordLevel.
import { readBpe } from './bpe.ts';
import type { IdList } from './id-list.ts';
import { isId, type Part } from './part.ts';
import { readUnigram } from './unigram.ts';
import { Vocabulary } from './vocabulary.ts';
import { readWordLevel, readWordPiece } from './word-piece.ts';

export interface Model {
  /** Appends the ids of a word: a piece of text as pre-tokenizers leave it, not empty. */
  encode(word: string, ids: IdList): void;
}

/** An added token's place in the vocabulary. */
interface Placed {
  readonly id: number;
  readonly content: string;
}

/** @throws UserError for a kind of model that is not supported, and for a vocabulary that contradicts itself. */
export function readModel(part: Part, added: readonly Placed[]): { model: Model; vocabulary: Vocabulary } {
  const scored = Array.isArray(part.any('vocab'));
  // Files of old versions do not say their kind.
  const type = part.type ?? (scored ? 'Unigram' : part.has('merges') ? 'BPE' : 'WordPiece');
  const read = { BPE: readBpe, Unigram: readUnigram, WordPiece: readWordPiece, WordLevel: readWordLevel }[type];
  if (read === undefined) throw part.unsupported(` ${type}`);
  // What the model itself knows; an added token beyond it is made of no merges.
  const own = scored ? scoredTokens(part) : tokensById(part);
  const model = read(part, new Vocabulary(own));
  return part.read({ model, vocabulary: new Vocabulary(withAdded(part, own, added)) });
}

function tokensById(part: Part): (string | undefined)[] {
  const tokens: (string | undefined)[] = [];
  const vocabulary = part.part('vocab');
  for (const [token, id] of Object.entries(part.any('vocab') as object)) {
    if (!isId(id)) throw vocabulary.broken(`[${JSON.stringify(token)}] is ${JSON.stringify(id)}, not an id`);
    put(part, tokens, id, token);
  }
  return tokens;
}

function scoredTokens(part: Part): string[] {
  return part.list('vocab').map((entry, id) => {
    if (!(Array.isArray(entry) && typeof entry[0] === 'string' && typeof entry[1] === 'number'))
      throw part.broken(`.vocab[${id}] is ${JSON.stringify(entry)}, not a token and its score`);
    return entry[0];
  });
}

function withAdded(part: Part, own: readonly (string | undefined)[], added: readonly Placed[]): (string | undefined)[] {
  const tokens = [...own];
  const ids = new Map(own.map((token, id) => [token, id]));
  for (const { id, content } of added) {
    if ((ids.get(content) ?? id) !== id)
      throw part.broken(`.vocab has ${JSON.stringify(content)} as ${ids.get(content)}, and added_tokens as ${id}`);
    put(part, tokens, id, content);
  }
  return tokens;
}

function put(part: Part, tokens: (string | undefined)[], id: number, token: string): void {
  const there = tokens[id];
  if (there !== undefined && there !== token)
    throw part.broken(`.vocab: id ${id} is both ${JSON.stringify(there)} and ${JSON.stringify(token)}`);
  tokens[id] = token;
}
