// Encoding texts of any length: piece by piece, cut where no token reaches over the cut, in threads where that is worth while.
import { safeCut } from './split.ts';
import { encodePiece, type TextPiece } from './text-piece.ts';
import { Threads } from './threads.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Texts of fewer bytes are encoded before threads would have started. */
const WORTH_THREADS = 1 << 22;
/** Each has a vocabulary of its own, which takes 50 MB and more: with more threads it would be half a gigabyte in all. */
const MOST_THREADS = 4;

/** Where a text for this tokenizer may be cut, as readTextPieces (data/text-pieces.ts) asks it. */
export function cutFor(tokenizer: Tokenizer): (text: Uint8Array) => number {
  return tokenizer.cutsSafely ? text => safeCut(text, 0, text.length) : () => -1;
}

/**
 * The ids of pieces, in their order; of pieces that are cut as `cutFor` says they are, joined, those of the whole text.
 * Pieces are drawn as fast as they are encoded, and given away, so that a text of any size takes little memory.
 *
 * @param bytes how much text they are together, about
 */
export async function* encodePieces(
  pieces: Iterable<TextPiece> | AsyncIterable<TextPiece>,
  tokenizer: Tokenizer,
  bytes: number,
): AsyncGenerator<Int32Array> {
  if (bytes < WORTH_THREADS) {
    for await (const piece of pieces) yield encodePiece(piece, tokenizer);
    return;
  }
  const threads = new Threads({ tokenizer: tokenizer.json }, MOST_THREADS);
  try {
    yield* threads.map('encode', pieces, ({ text }) => text.buffer);
  } finally {
    await threads.close();
  }
}
