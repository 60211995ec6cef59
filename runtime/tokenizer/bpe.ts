// The model BPE of tokenizer.json: a word becomes symbols, which merges join, the earliest merge first.
// Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; over bytes, Radford et al. 2019.
import { Heap } from './heap.ts';
import { IdList } from './id-list.ts';
import type { Model } from './model.ts';
import { PairTable } from './pairs.ts';
import type { Part } from './part.ts';
import type { Vocabulary } from './vocabulary.ts';

/** Merges waiting in the heap are numbers, rank * PLACES + place: the earliest merge first, then the leftmost. */
const PLACES = 2 ** 28;

/** Merges of pairs of ids, in the order in which they are applied. */
export class Merges {
  readonly #pairs = new PairTable();
  /** By pair: the rank of its merge, and the id that it becomes. */
  readonly #ranks: Int32Array;
  readonly #results: Int32Array;
  /** By rank. */
  readonly #resultsByRank: Int32Array;
  readonly #waiting = new Heap<number>((a, b) => a < b);
  /** A word's symbols as a linked list over places; kept from word to word. */
  #next = new Int32Array(64);
  #previous = new Int32Array(64);

  constructor(merges: readonly (readonly [left: number, right: number, result: number])[]) {
    this.#ranks = new Int32Array(merges.length);
    this.#results = new Int32Array(merges.length);
    this.#resultsByRank = Int32Array.from(merges, ([, , result]) => result);
    merges.forEach(([left, right, result], rank) => {
      // A pair that the file has twice counts where it comes last.
      const pair = this.#pairs.add(left, right);
      this.#ranks[pair] = rank;
      this.#results[pair] = result;
    });
  }

  /**
   * Applies the merges to symbols[0, length), in place, and returns how many are left. It takes n log n steps, so that
   * a run of a million equal letters is no trap.
   */
  apply(symbols: Int32Array, length: number): number {
    if (length < 2) return length;
    if (length > this.#next.length) {
      this.#next = new Int32Array(length);
      this.#previous = new Int32Array(length);
    }
    const next = this.#next;
    const previous = this.#previous;
    const waiting = this.#waiting;
    for (let place = 0; place < length; place++) {
      next[place] = place + 1;
      previous[place] = place - 1;
    }
    const consider = (place: number) => {
      const after = next[place]!;
      if (after >= length) return;
      const pair = this.#pairs.find(symbols[place]!, symbols[after]!);
      if (pair !== -1) waiting.push(this.#ranks[pair]! * PLACES + place);
    };
    for (let place = 0; place + 1 < length; place++) consider(place);

    // A symbol that was merged into the one before it is -1.
    for (let first = waiting.pop(); first !== undefined; first = waiting.pop()) {
      const place = first % PLACES;
      const result = this.#resultsByRank[(first - place) / PLACES]!;
      const gone = next[place]!;
      // An entry is out of date where one of its symbols was merged meanwhile, unless what stands there becomes the
      // same token: the Hugging Face library merges it then, early, and so do we.
      if (symbols[place] === -1 || gone >= length) continue;
      const pair = this.#pairs.find(symbols[place]!, symbols[gone]!);
      if (pair === -1 || this.#results[pair] !== result) continue;
      symbols[place] = result;
      symbols[gone] = -1;
      const after = next[gone]!;
      next[place] = after;
      if (after < length) previous[after] = place;
      consider(place);
      if (previous[place]! >= 0) consider(previous[place]!);
    }

    let kept = 0;
    for (let place = 0; place < length; place = next[place]!) symbols[kept++] = symbols[place]!;
    return kept;
  }
}

/** What of a model of BPE says how words become symbols. */
interface BpeOptions {
  readonly unknown: number | null;
  /** Unknown symbols that follow one another become one. */
  readonly fuseUnknown: boolean;
  /** A character that is no token is spelled in tokens such as <0x0A>, where all of them are there. */
  readonly byteFallback: boolean;
  /** A word that is itself a token is taken whole, merges or no merges. */
  readonly wholeWords: boolean;
  /** What symbols begin with that do not begin a word (`##`), and what the last of a word ends with (`</w>`). */
  readonly prefix: string;
  readonly suffix: string;
}

export class Bpe implements Model {
  readonly vocabulary: Vocabulary;
  readonly merges: Merges;
  readonly options: BpeOptions;
  readonly #byteIds: readonly (number | undefined)[];

  constructor(vocabulary: Vocabulary, merges: Merges, options: BpeOptions) {
    this.vocabulary = vocabulary;
    this.merges = merges;
    this.options = options;
    this.#byteIds = Array.from({ length: 256 }, (_, byte) => vocabulary.id(byteToken(byte)));
  }

  encode(word: string, ids: IdList): void {
    const whole = this.options.wholeWords ? this.vocabulary.id(word) : undefined;
    const symbols = whole === undefined ? this.#symbols(word) : Int32Array.of(whole);
    ids.append(symbols, 0, this.merges.apply(symbols, symbols.length));
  }

  #symbols(word: string): Int32Array {
    const { unknown, fuseUnknown, byteFallback, prefix, suffix } = this.options;
    const symbols = new IdList(word.length);
    const characters = Array.from(word);
    // An unknown symbol is put down when a known one follows; bytes do not count as that in the Hugging Face library.
    let pending = false;
    characters.forEach((character, index) => {
      const symbol = (index > 0 ? prefix : '') + character + (index === characters.length - 1 ? suffix : '');
      const known = this.vocabulary.id(symbol);
      if (known !== undefined) {
        if (pending) symbols.push(unknown!);
        pending = false;
        symbols.push(known);
        return;
      }
      const bytes = byteFallback ? Array.from(Buffer.from(symbol), byte => this.#byteIds[byte]) : [undefined];
      if (bytes.every(id => id !== undefined)) {
        for (const id of bytes) symbols.push(id);
        return;
      }
      if (unknown === null) return;
      if (pending && !fuseUnknown) symbols.push(unknown);
      pending = true;
    });
    if (pending) symbols.push(unknown!);
    return symbols.toArray();
  }
}

/** How vocabularies with byte fallback spell a byte. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

export function isByteToken(token: string): boolean {
  return /^<0x[\dA-Fa-f]{2}>$/.test(token);
}

/** @throws UserError for dropout, and where a merge lacks a token. */
export function readBpe(part: Part, vocabulary: Vocabulary): Bpe {
  if (part.number('dropout', 0) !== 0) throw part.unsupported(`.dropout ${part.number('dropout')}`);
  const unknownToken = part.text('unk_token', '');
  const unknown = unknownToken === '' ? null : (vocabulary.id(unknownToken) ?? null);
  if (unknownToken !== '' && unknown === null)
    throw part.broken(`.unk_token is ${JSON.stringify(unknownToken)}, which .vocab lacks`);
  const prefix = part.text('continuing_subword_prefix', '');
  const options = {
    unknown,
    fuseUnknown: part.flag('fuse_unk', false),
    byteFallback: part.flag('byte_fallback', false),
    wholeWords: part.flag('ignore_merges', false),
    prefix,
    suffix: part.text('end_of_word_suffix', ''),
  };
  const merges = part.list('merges').map((merge, rank): [number, number, number] => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!(Array.isArray(pair) && pair.length === 2 && pair.every(token => typeof token === 'string')))
      throw part.broken(`.merges[${rank}] is ${JSON.stringify(merge)}, not a pair of tokens`);
    const [left, right] = pair as [string, string];
    const id = (token: string) => {
      const found = vocabulary.id(token);
      if (found === undefined)
        throw part.broken(`.merges[${rank}] needs ${JSON.stringify(token)}, which model.vocab lacks`);
      return found;
    };
    return [id(left), id(right), id(left + right.slice(prefix.length))];
  });
  return new Bpe(vocabulary, new Merges(merges), options);
}
