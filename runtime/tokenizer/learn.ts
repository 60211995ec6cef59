// Learning the merges of byte-level BPE from counted words: the most frequent pair of neighbours becomes a token, again
// and again (Sennrich et al. 2016). Merges come out as the Hugging Face library learns them, its order among equals
// and its ways with pairs that come back included; millions of words and pairs lie in plain arrays of numbers.
import { alphabet, byteCharacters } from './alphabet.ts';
import { Heap } from './heap.ts';
import { PairTable } from './pairs.ts';
import { larger } from './words.ts';

/** Words, one after the other, where each begins and the last ends, and how often each occurs. */
export interface CountedWords {
  readonly bytes: Uint8Array;
  readonly starts: Int32Array;
  readonly counts: Float64Array;
}

export interface LearnedMerges {
  /** The spelling of each token in the byte alphabet, by id: the special tokens, the 256 bytes, what merges made. */
  readonly tokens: readonly string[];
  /** Pairs of ids, the first to be merged first. */
  readonly merges: readonly (readonly [left: number, right: number])[];
}

/**
 * Merges until there are `vocabSize` tokens, or no pair occurs `minFrequency` times.
 *
 * @param onMerge is told how many tokens there are, after each merge
 * @param refuse makes the error for a merge that spells a special token
 */
export function learnMerges(
  words: CountedWords,
  options: { specialTokens: readonly string[]; vocabSize: number; minFrequency: number },
  onMerge: (tokens: number) => void,
  refuse: (token: string) => Error,
): LearnedMerges {
  const { specialTokens, vocabSize, minFrequency } = options;
  const tokens = [...specialTokens, ...alphabet];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const texts = new Texts(
    words,
    byteCharacters.map(character => ids.get(character)!),
  );
  const candidates = new Candidates();
  texts.forEachPair((left, right, word, count) => candidates.count(left, right, word, count));
  candidates.offer();

  const merges: [number, number][] = [];
  while (tokens.length < vocabSize) {
    const best = candidates.take(minFrequency);
    if (best === null) break;
    const { left, right } = best;
    // Two different pairs may make the same token (a + bc, ab + c): the second merge then adds no token.
    const spelling = tokens[left]! + tokens[right]!;
    const merged = ids.get(spelling) ?? tokens.length;
    if (merged < specialTokens.length) throw refuse(spelling);
    if (merged === tokens.length) {
      tokens.push(spelling);
      ids.set(spelling, merged);
    }
    merges.push([left, right]);
    candidates.forEachWord(best.holders, word => texts.merge(word, left, right, merged, candidates));
    candidates.offer();
    onMerge(tokens.length);
  }
  return { tokens, merges: lastOfEach(merges) };
}

/**
 * A pair may be merged again, when merges of others bring it back. It counts where it came last: this is where the
 * Hugging Face library's table of merges, by pair, then has it.
 */
function lastOfEach(merges: readonly [number, number][]): [number, number][] {
  const last = new Map(merges.map(([left, right], index) => [`${left} ${right}`, index]));
  return merges.filter(([left, right], index) => last.get(`${left} ${right}`) === index);
}

/** The words as symbols, which merges make fewer. */
class Texts {
  readonly #symbols: Int32Array;
  readonly #starts: Int32Array;
  /** Symbols that a word has left. */
  readonly #lengths: Int32Array;
  readonly #counts: Float64Array;

  constructor({ bytes, starts, counts }: CountedWords, byteIds: readonly number[]) {
    this.#symbols = Int32Array.from(bytes, byte => byteIds[byte]!);
    this.#starts = starts;
    this.#lengths = Int32Array.from(counts, (_, word) => starts[word + 1]! - starts[word]!);
    this.#counts = counts;
  }

  forEachPair(visit: (left: number, right: number, word: number, count: number) => void): void {
    const symbols = this.#symbols;
    for (let word = 0; word < this.#counts.length; word++) {
      const start = this.#starts[word]!;
      const last = start + this.#lengths[word]! - 1;
      for (let i = start; i < last; i++) visit(symbols[i]!, symbols[i + 1]!, word, this.#counts[word]!);
    }
  }

  /** Merges the pair wherever it stands in a word, from left to right, and counts what goes and what comes. */
  merge(word: number, left: number, right: number, merged: number, candidates: Candidates): void {
    const symbols = this.#symbols;
    const start = this.#starts[word]!;
    const end = start + this.#lengths[word]!;
    const count = this.#counts[word]!;
    let kept = start;
    for (let i = start; i < end; i++) {
      if (symbols[i] !== left || i + 1 === end || symbols[i + 1] !== right) {
        symbols[kept++] = symbols[i]!;
        continue;
      }
      if (kept > start) {
        candidates.discount(symbols[kept - 1]!, left, count);
        candidates.count(symbols[kept - 1]!, merged, word, count);
      }
      if (i + 2 < end) {
        candidates.discount(right, symbols[i + 2]!, count);
        candidates.count(merged, symbols[i + 2]!, word, count);
      }
      symbols[kept++] = merged;
      i++;
    }
    this.#lengths[word] = kept - start;
  }
}

const NONE = -1;

/**
 * Pairs, how often each occurs, and candidates for the next merge: a pair with the words that came to hold it at one
 * time. A pair that arises at two merges is a candidate twice. The count of a pair that was merged stays: if it comes
 * back, it counts as more than it is. Both are so in the Hugging Face library, and may show in its merges.
 */
class Candidates {
  readonly #pairs = new PairTable();
  /** By pair: how often it occurs. */
  #counts = new Float64Array(1 << 12);
  /** By pair: the candidate that gathers its words until it is offered, plus 1; 0 where there is none. */
  #gathering = new Int32Array(1 << 12);
  /** Pairs whose candidate gathers words. */
  #grown: number[] = [];

  // Candidates: the pair, its count when it was put into the heap, and the words, as a list of nodes.
  #candidatePairs: number[] = [];
  #candidateCounts: number[] = [];
  #candidateNodes: number[] = [];
  #freeCandidates: number[] = [];
  #nodes = 0;
  #nodeWords = new Int32Array(1 << 16);
  #nodeNexts = new Int32Array(1 << 16);
  #freeNode = NONE;

  /** The largest count first; among equals the pair of smaller ids. */
  readonly #waiting = new Heap<number>((a, b) => {
    const more = this.#candidateCounts[a]! - this.#candidateCounts[b]!;
    if (more !== 0) return more > 0;
    const pair = this.#candidatePairs[a]!;
    const other = this.#candidatePairs[b]!;
    const further = this.#pairs.lefts[pair]! - this.#pairs.lefts[other]!;
    return further !== 0 ? further < 0 : this.#pairs.rights[pair]! < this.#pairs.rights[other]!;
  });

  /** A pair occurs `by` more times, in a word. */
  count(left: number, right: number, word: number, by: number): void {
    const pair = this.#pair(left, right);
    this.#counts[pair]! += by;
    let candidate = this.#gathering[pair]! - 1;
    if (candidate === NONE) {
      candidate = this.#freeCandidates.pop() ?? this.#candidatePairs.length;
      this.#candidatePairs[candidate] = pair;
      this.#candidateNodes[candidate] = NONE;
      this.#candidateCounts[candidate] = 0;
      this.#gathering[pair] = candidate + 1;
      this.#grown.push(pair);
    }
    const first = this.#candidateNodes[candidate]!;
    if (first === NONE || this.#nodeWords[first] !== word) this.#candidateNodes[candidate] = this.#node(word, first);
  }

  /** A pair occurs `by` fewer times. */
  discount(left: number, right: number, by: number): void {
    this.#counts[this.#pair(left, right)]! -= by;
  }

  /** Puts the pairs that were counted since the last time into the heap. */
  offer(): void {
    for (const pair of this.#grown) {
      const candidate = this.#gathering[pair]! - 1;
      this.#gathering[pair] = 0;
      if (this.#counts[pair]! > 0) {
        this.#candidateCounts[candidate] = this.#counts[pair]!;
        this.#waiting.push(candidate);
      } else {
        this.forEachWord(this.#candidateNodes[candidate]!, () => {});
        this.#freeCandidates.push(candidate);
      }
    }
    this.#grown = [];
  }

  /** Takes the pair to merge next, with the list of its words; null where none occurs often enough. */
  take(minFrequency: number): { readonly left: number; readonly right: number; readonly holders: number } | null {
    for (let top = this.#waiting.pop(); top !== undefined; top = this.#waiting.pop()) {
      const pair = this.#candidatePairs[top]!;
      const count = this.#counts[pair]!;
      if (count !== this.#candidateCounts[top]) {
        this.#candidateCounts[top] = count;
        this.#waiting.push(top);
        continue;
      }
      if (count < minFrequency) return null;
      this.#freeCandidates.push(top);
      return { left: this.#pairs.lefts[pair]!, right: this.#pairs.rights[pair]!, holders: this.#candidateNodes[top]! };
    }
    return null;
  }

  /** Visits the words of a list, and frees its nodes. */
  forEachWord(first: number, visit: (word: number) => void): void {
    for (let node = first; node !== NONE; ) {
      const word = this.#nodeWords[node]!;
      const next = this.#nodeNexts[node]!;
      this.#nodeNexts[node] = this.#freeNode;
      this.#freeNode = node;
      node = next;
      visit(word);
    }
  }

  #node(word: number, next: number): number {
    let node = this.#freeNode;
    if (node !== NONE) this.#freeNode = this.#nodeNexts[node]!;
    else {
      node = this.#nodes++;
      if (node === this.#nodeWords.length) {
        this.#nodeWords = larger(this.#nodeWords, node + 1);
        this.#nodeNexts = larger(this.#nodeNexts, node + 1);
      }
    }
    this.#nodeWords[node] = word;
    this.#nodeNexts[node] = next;
    return node;
  }

  #pair(left: number, right: number): number {
    const pair = this.#pairs.add(left, right);
    if (pair >= this.#counts.length) {
      this.#counts = larger(this.#counts, pair + 1);
      this.#gathering = larger(this.#gathering, pair + 1);
    }
    return pair;
  }
}
