// A piece of a stream of texts, and its ids: what a thread encodes at once.
import type { Tokenizer } from './tokenizer.ts';

/** A piece of a stream of texts, in UTF-8. */
export interface TextPiece {
  readonly text: Uint8Array<ArrayBuffer>;
  /** Where in it one text ends and another begins, ascending: the tokenizer's token for that stands there. */
  readonly breaks: readonly number[];
}

export function encodePiece({ text, breaks }: TextPiece, tokenizer: Tokenizer): Int32Array<ArrayBuffer> {
  const bytes = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
  const encode = (start: number, end: number) => tokenizer.encode(bytes.toString('utf8', start, end));
  if (breaks.length === 0) return encode(0, bytes.length);
  const { endOfText } = tokenizer;
  if (endOfText === null) throw new Error('the tokenizer has no token that ends a text');
  const parts = [encode(0, breaks[0]!)];
  for (const [index, start] of breaks.entries())
    parts.push(Int32Array.of(endOfText), encode(start, breaks[index + 1] ?? bytes.length));
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let length = 0;
  for (const part of parts) {
    ids.set(part, length);
    length += part.length;
  }
  return ids;
}
