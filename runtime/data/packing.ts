// Documents as pieces for threads to encode: small ones gathered, large ones cut where no token reaches over the cut.
import { safeCut } from '../tokenizer/split.ts';
import type { TextPiece } from '../tokenizer/text-piece.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { DocumentPart } from './documents/documents.ts';

/** Bytes of a piece, about: enough to keep a thread busy, and few enough for many of them. */
const PIECE = 2 ** 20;
/** A text that can be cut nowhere in so many bytes is cut at the end of a line, or of a character, all the same. */
const LONGEST = 2 ** 22;
const NEWLINE = Uint8Array.of(0x0a);

/**
 * Packs the documents of one stream. Between documents comes the tokenizer's end of a text, or a newline where it has
 * none. Joined, the tokens of the pieces are those of the documents; only a document of more than 4 MiB may get other
 * tokens where it is cut, if the tokenizer allows no cut (`cutsSafely`), or no word in so much of it ends with a letter
 * of ASCII.
 */
export class Packer {
  readonly #isMarked: boolean;
  readonly #cutsSafely: boolean;
  #parts: Uint8Array[] = [];
  #length = 0;
  #breaks: number[] = [];
  #isFirst = true;
  /** How many bytes there must be before a cut is looked for again. */
  #awaited = PIECE;

  constructor({ endOfText, cutsSafely }: Pick<Tokenizer, 'endOfText' | 'cutsSafely'>) {
    this.#isMarked = endOfText !== null;
    this.#cutsSafely = cutsSafely;
  }

  /** Adds a part of the stream, and gives the pieces that are full. */
  *add({ bytes, begins }: DocumentPart): Generator<TextPiece> {
    if (begins && !this.#isFirst) {
      if (this.#isMarked) this.#breaks.push(this.#length);
      else this.#append(NEWLINE);
    }
    this.#isFirst = false;
    this.#append(bytes);
    while (this.#length >= this.#awaited) {
      const place = this.#cut();
      if (place === null) this.#awaited = Math.min(2 * this.#length, LONGEST);
      else yield this.#take(place);
    }
  }

  /** What is left at the end of the stream. */
  *end(): Generator<TextPiece> {
    if (this.#length > 0 || this.#breaks.length > 0) yield this.#take(this.#length);
  }

  #append(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#length += bytes.length;
  }

  /** Where to cut what there is: before its last document, or inside of it; null where more of it must come first. */
  #cut(): number | null {
    const last = this.#breaks.at(-1) ?? 0;
    if (last > 0) return last;
    const text = this.#joined();
    const limit = Math.min(text.length, LONGEST);
    const place = this.#cutsSafely ? safeCut(text, 0, limit) : -1;
    if (place > 0) return place;
    if (text.length < LONGEST) return null;
    const line = text.lastIndexOf(0x0a, limit - 1) + 1;
    if (line > 0) return line;
    let character = limit;
    while ((text[character]! & 0xc0) === 0x80) character -= 1;
    return character;
  }

  /** The first `place` bytes, which go, and the marks in them; a mark at their end belongs to what follows. */
  #take(place: number): TextPiece {
    const text = this.#joined();
    const piece = { text: new Uint8Array(text.subarray(0, place)), breaks: this.#breaks.filter(each => each < place) };
    this.#parts = [text.subarray(place)];
    this.#length -= place;
    this.#breaks = this.#breaks.filter(each => each >= place).map(each => each - place);
    this.#awaited = PIECE;
    return piece;
  }

  #joined(): Buffer {
    const [only] = this.#parts;
    const text = this.#parts.length === 1 && only instanceof Buffer ? only : Buffer.concat(this.#parts);
    this.#parts = [text];
    return text;
  }
}
