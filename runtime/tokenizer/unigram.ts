// The model Unigram of tokenizer.json: of all ways to make a word of tokens, the one of the highest sum of scores.
// Kudo 2018, "Subword Regularization", section 3.2; the best path by Viterbi's algorithm.
import { byteToken } from './bpe.ts';
import type { IdList } from './id-list.ts';
import type { Model } from './model.ts';
import type { Part } from './part.ts';
import type { Vocabulary } from './vocabulary.ts';

/** An unknown character scores this much less than the worst token, as in SentencePiece. */
const UNKNOWN_PENALTY = 10;

/** A node of the tokens' letters, for finding all tokens that begin at a place. */
interface Node {
  readonly next: Map<string, Node>;
  id: number;
}

class Unigram implements Model {
  readonly #vocabulary: Vocabulary;
  readonly #scores: Float64Array;
  readonly #unknown: number | null;
  readonly #unknownScore: number;
  readonly #byteIds: readonly (number | undefined)[];
  readonly #root: Node = { next: new Map(), id: -1 };
  readonly #missing: (character: string) => Error;

  constructor(
    vocabulary: Vocabulary,
    scores: Float64Array,
    unknown: number | null,
    byteFallback: boolean,
    missing: (character: string) => Error,
  ) {
    this.#vocabulary = vocabulary;
    this.#scores = scores;
    this.#unknown = unknown;
    this.#unknownScore = scores.reduce((a, b) => Math.min(a, b), Infinity) - UNKNOWN_PENALTY;
    this.#byteIds = Array.from({ length: byteFallback ? 256 : 0 }, (_, byte) => vocabulary.id(byteToken(byte)));
    this.#missing = missing;
    for (const token of vocabulary.tokens) {
      let node = this.#root;
      for (const letter of token!) {
        let next = node.next.get(letter);
        if (next === undefined) {
          next = { next: new Map(), id: -1 };
          node.next.set(letter, next);
        }
        node = next;
      }
      // A token that is there twice has the id of the last, as in the Hugging Face library.
      if (token !== '') node.id = vocabulary.id(token!)!;
    }
  }

  encode(word: string, ids: IdList): void {
    const letters = Array.from(word);
    // The best path to each place between letters: its score, where its last token begins, and which it is.
    const best = new Float64Array(letters.length + 1);
    const begins = new Int32Array(letters.length + 1).fill(-1);
    const last = new Int32Array(letters.length + 1);
    const offer = (end: number, begin: number, id: number, score: number) => {
      const sum = score + best[begin]!;
      if (begins[end] !== -1 && sum <= best[end]!) return;
      best[end] = sum;
      begins[end] = begin;
      last[end] = id;
    };
    for (let begin = 0; begin < letters.length; begin++) {
      let single = false;
      let node: Node | undefined = this.#root;
      for (let end = begin; end < letters.length; end++) {
        node = node.next.get(letters[end]!);
        if (node === undefined) break;
        if (node.id === -1) continue;
        offer(end + 1, begin, node.id, this.#scores[node.id]!);
        if (end === begin) single = true;
      }
      if (single) continue;
      if (this.#unknown === null) throw this.#missing(letters[begin]!);
      offer(begin + 1, begin, this.#unknown, this.#unknownScore);
    }

    // Unknown characters that follow one another are one piece of text.
    const pieces: [begin: number, end: number, id: number][] = [];
    for (let end = letters.length; end > 0; end = begins[end]!) {
      const following = pieces.at(-1);
      if (last[end] === this.#unknown && following?.[2] === this.#unknown) following[0] = begins[end]!;
      else pieces.push([begins[end]!, end, last[end]!]);
    }
    for (const [begin, end, id] of pieces.reverse())
      if (id !== this.#unknown) ids.push(id);
      else this.#unknownIds(letters.slice(begin, end).join(''), ids);
  }

  #unknownIds(piece: string, ids: IdList): void {
    const known = this.#vocabulary.id(piece);
    const bytes = Array.from(Buffer.from(piece), byte => this.#byteIds[byte]);
    if (known !== undefined) ids.push(known);
    else if (bytes.every(id => id !== undefined)) for (const id of bytes) ids.push(id);
    else ids.push(this.#unknown!);
  }
}

/** @throws UserError where `unk_id` is not in the vocabulary. */
export function readUnigram(part: Part, vocabulary: Vocabulary): Model {
  const scores = Float64Array.from(part.list('vocab') as [string, number][], ([, score]) => score);
  const unknown = part.has('unk_id') ? part.id('unk_id') : null;
  part.ignore('unk_id');
  if (unknown !== null && unknown >= scores.length) throw part.broken(`.unk_id is ${unknown}, which .vocab lacks`);
  for (const sampling of ['alpha', 'nbest_size'])
    if (part.has(sampling)) throw part.unsupported(`.${sampling} ${part.number(sampling)}`);
  return new Unigram(vocabulary, scores, unknown, part.flag('byte_fallback', false), character =>
    part.unsupported(`: the text has ${JSON.stringify(character)}, no token is it, and the model has no unk_id: it`),
  );
}
