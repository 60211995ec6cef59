// Which part of a file is learned from and which is held out: of several documents the last of them, of one its end.
import { UserError } from '../../compiler/diagnostic.ts';
import type { DocumentPart } from './documents/documents.ts';
import { type MeasuredFile, utf16Length } from './measure.ts';

export interface DividedPart extends DocumentPart {
  /** True where it is for validation. */
  readonly isHeldOut: boolean;
}

/** A line of more characters is cut where the share falls: no more of a text is looked at at once. */
const LONGEST_LINE = 2 ** 24;

/**
 * The parts of a file's documents, the last `share` of its characters for validation: of several documents those that lie
 * in it with their middle, the last one at least. A single one is cut at the end of the line that is nearest to that
 * place, so that neither side begins in the middle of a word.
 *
 * @throws UserError where the share is not in [0, 1).
 */
export async function* divide(
  parts: AsyncIterable<DocumentPart>,
  { documents, characters }: Pick<MeasuredFile, 'documents' | 'characters'>,
  share: number,
): AsyncGenerator<DividedPart> {
  if (!(share >= 0 && share < 1))
    throw new UserError(
      `the validation share is ${share}; give a number from 0 (nothing is held out) to less than 1, such as 0.1`,
    );
  if (documents === 1 && share > 0) {
    yield* divideText(parts, characters, Math.round(characters * (1 - share)));
    return;
  }
  let [number, before] = [0, 0];
  let isHeldOut = false;
  for await (const part of parts) {
    const length = utf16Length(part.bytes);
    number += 1;
    before += length;
    isHeldOut ||= share > 0 && (before - length / 2 >= (1 - share) * characters || number === documents);
    yield { ...part, isHeldOut };
  }
}

/** The parts of one document, cut near the character `target`. */
async function* divideText(
  parts: AsyncIterable<DocumentPart>,
  characters: number,
  target: number,
): AsyncGenerator<DividedPart> {
  let begins = true;
  const given = (text: string, isHeldOut: boolean): DividedPart => {
    const part = { bytes: new Uint8Array(Buffer.from(text)), begins, isHeldOut };
    begins = false;
    return part;
  };
  // What is not given yet, from the beginning of a line on, where there is one; and where that lies.
  let rest = '';
  let at = 0;
  let isDivided = false;
  for await (const { bytes } of parts) {
    if (isDivided) {
      yield { bytes, begins, isHeldOut: true };
      begins = false;
      continue;
    }
    rest += Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
    const isLast = at + rest.length >= characters;
    if (at + rest.length <= target && !isLast) {
      const end = rest.length > LONGEST_LINE ? rest.length : rest.lastIndexOf('\n') + 1;
      if (end > 0) yield given(rest.slice(0, end), false);
      rest = rest.slice(end);
      at += end;
      continue;
    }
    const place = cutNear(rest, target - at, at, isLast);
    if (place === null && rest.length <= LONGEST_LINE) continue;
    const end = place ?? target - at;
    if (end > 0) yield given(rest.slice(0, end), false);
    begins = true;
    if (end < rest.length) yield given(rest.slice(end), true);
    isDivided = true;
    rest = '';
  }
}

/**
 * Where in a text to cut: at the end of the line nearest to `target`. A text of one line is cut where the share falls,
 * though not inside a surrogate pair. Null where more of the text must be seen.
 *
 * @param before how many characters come before it, of which the last ends a line
 * @param isLast whether the text ends with it
 */
function cutNear(text: string, target: number, before: number, isLast: boolean): number | null {
  const next = text.indexOf('\n', target) + 1;
  if (next === 0 && !isLast) return null;
  const previous = target === 0 ? 0 : text.lastIndexOf('\n', target - 1) + 1;
  const isInside = (end: number) => before + end > 0 && !(isLast && end === text.length);
  const ends = [next, previous].filter((end, index) => isInside(end) && !(index === 0 && end === 0));
  const inPair = text.charCodeAt(target) >>> 10 === 0x37;
  return ends.sort((a, b) => Math.abs(a - target) - Math.abs(b - target))[0] ?? target + (inPair ? 1 : 0);
}
