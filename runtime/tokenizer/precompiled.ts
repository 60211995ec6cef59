// The normalizer Precompiled of tokenizer.json: SentencePiece's table of replacements, as it comes in its model files.
// A double array (Aoe 1989, "An Efficient Digital Search Algorithm by Using a Double-Array Structure"), in the layout
// of Darts: 32-bit units, then the replacements, each ended by a zero byte.
import type { Part } from './part.ts';

/** Clusters of so many bytes or more are only looked up letter by letter. */
const LONGEST_CLUSTER = 6;

export function readPrecompiled(part: Part): (text: string) => string {
  const bytes = Buffer.from(part.text('precompiled_charsmap'), 'base64');
  const size = bytes.length >= 4 ? bytes.readUInt32LE(0) : -1;
  if (size < 4 || size % 4 !== 0 || size + 4 > bytes.length) throw part.broken('.precompiled_charsmap is cut short');
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i));
  const replacements = bytes.subarray(4 + size);
  const segmenter = new Intl.Segmenter('und', { granularity: 'grapheme' });

  /** The replacement of the shortest beginning of a piece that has one, or undefined. */
  const replacement = (piece: string): string | undefined => {
    const place = shortestValue(units, Buffer.from(piece));
    if (place === -1) return undefined;
    const end = replacements.indexOf(0, place);
    return replacements.toString('utf8', place, end === -1 ? replacements.length : end);
  };
  return text => {
    let result = '';
    for (const { segment } of segmenter.segment(text)) {
      const whole = Buffer.byteLength(segment) < LONGEST_CLUSTER ? replacement(segment) : undefined;
      if (whole !== undefined) result += whole;
      else for (const letter of segment) result += replacement(letter) ?? letter;
    }
    return result;
  };
}

/** The value of the shortest key of the double array that a piece of text begins with, or -1. */
function shortestValue(units: Uint32Array, piece: Uint8Array): number {
  let place = offset(units[0]!);
  for (const byte of piece) {
    if (byte === 0) return -1;
    place ^= byte;
    const unit = units[place];
    // The unit's label is its lower byte; the top bit is set in units that hold values.
    if (unit === undefined || (unit & 0x800000ff) !== byte) return -1;
    place ^= offset(unit);
    if ((unit >>> 8) & 1) return units[place]! & 0x7fffffff;
  }
  return -1;
}

/** How far a unit's children are: 21 bits, or as many with 8 more places where the unit says so. */
function offset(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
