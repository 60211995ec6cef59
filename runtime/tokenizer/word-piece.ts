// The models WordPiece and WordLevel of tokenizer.json. WordPiece takes from the left of a word the longest token that
// it knows, again and again; WordLevel knows whole words only. Both have one token for all that they do not know.
// Devlin et al. 2019, "BERT"; Wu et al. 2016, arXiv:1609.08144, section 4.1.
import type { IdList } from './id-list.ts';
import type { Model } from './model.ts';
import type { Part } from './part.ts';
import type { Vocabulary } from './vocabulary.ts';

/** @throws UserError where the unknown token is not in the vocabulary. */
export function readWordPiece(part: Part, vocabulary: Vocabulary): Model {
  const unknown = unknownId(part, vocabulary);
  const prefix = part.text('continuing_subword_prefix', '##');
  const longest = part.number('max_input_chars_per_word', 100);
  return {
    encode(word, ids) {
      const characters = Array.from(word);
      const found = characters.length > longest ? null : longestFirst(characters, prefix, vocabulary);
      for (const id of found ?? [unknown]) ids.push(id);
    },
  };
}

/** The ids of a word's tokens, each the longest that goes on from the one before; null where the word has no such. */
function longestFirst(characters: readonly string[], prefix: string, vocabulary: Vocabulary): number[] | null {
  const ids: number[] = [];
  for (let start = 0; start < characters.length; ) {
    let end = characters.length;
    let id: number | undefined;
    for (; end > start; end--) {
      id = vocabulary.id((start > 0 ? prefix : '') + characters.slice(start, end).join(''));
      if (id !== undefined) break;
    }
    if (id === undefined) return null;
    ids.push(id);
    start = end;
  }
  return ids;
}

/** @throws UserError where the unknown token is not in the vocabulary. */
export function readWordLevel(part: Part, vocabulary: Vocabulary): Model {
  const unknown = unknownId(part, vocabulary);
  return {
    encode(word: string, ids: IdList) {
      ids.push(vocabulary.id(word) ?? unknown);
    },
  };
}

function unknownId(part: Part, vocabulary: Vocabulary): number {
  const token = part.text('unk_token');
  const id = vocabulary.id(token);
  if (id === undefined) throw part.broken(`.unk_token is ${JSON.stringify(token)}, which .vocab lacks`);
  return id;
}
