// Encoding long texts in threads: pieces of them, cut where no token reaches over the cut.
import { safeCut } from './split.ts';
import { type Texts, Threads } from './threads.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Texts of fewer characters are encoded before threads would have started. */
const WORTH_THREADS = 1 << 22;
/** Characters in a piece. */
const PIECE = 1 << 20;

/** Where a text for this tokenizer may be cut, as readTextPieces (data/text-pieces.ts) asks it. */
export function cutFor(tokenizer: Tokenizer): (text: Uint8Array) => number {
  return tokenizer.cutsSafely ? text => safeCut(text, 0, text.length) : () => -1;
}

/**
 * The ids of a text in pieces (UTF-8, cut as `cutFor` says), in their order; joined, they are those of the whole text.
 * Pieces are drawn as fast as threads encode them, and given away, so that a text of any size takes little memory.
 */
export async function* encodePieces(pieces: Texts, tokenizer: Tokenizer): AsyncGenerator<Int32Array> {
  const threads = new Threads({ tokenizer: tokenizer.json });
  try {
    yield* threads.map('encode', pieces);
  } finally {
    await threads.close();
  }
}

/** The ids of a text in pieces, in their order: by threads where that is worth while, and possible. */
export async function* encodeLongText(text: string, tokenizer: Tokenizer): AsyncGenerator<Int32Array> {
  if (text.length < WORTH_THREADS || !tokenizer.cutsSafely) yield tokenizer.encode(text);
  else yield* encodePieces(piecesOf(text), tokenizer);
}

function* piecesOf(text: string): Generator<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  for (let start = 0; start < text.length; ) {
    const end = safeEnd(text, start + PIECE);
    yield encoder.encode(text.slice(start, end));
    start = end;
  }
}

/** The first place from `place` on where the text may be cut, as safeCut has it: after a letter, before a blank. */
function safeEnd(text: string, place: number): number {
  const found = /[A-Za-z](?=[ \n])/g;
  found.lastIndex = place - 1;
  return found.test(text) ? found.lastIndex : text.length;
}
