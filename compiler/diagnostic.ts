// What an error is, and how it is shown. A user's error says what, where and how to mend it; an internal error asks for a
// report. The texts themselves are in errors.ts.
import type { Span } from './syntax/syntax.ts';

export interface Diagnostic {
  readonly severity: 'error' | 'warning';
  /** One plain sentence with the values in it. */
  readonly message: string;
  readonly span: Span | null;
  /** Further places or reasons, each with its own span where it has one. */
  readonly notes: readonly { readonly message: string; readonly span: Span | null }[];
  /** How to mend it. */
  readonly help: string | null;
}

/** The user's input is at fault: the command line prints the message and leaves with 1. */
export class UserError extends Error {
  override readonly name = 'UserError';
}

/** The machine lacks something (a compiler, memory): the command line leaves with 3. */
export class MachineError extends Error {
  override readonly name = 'MachineError';
}

/** The texts of the files that spans point into, by file name. */
export type Sources = ReadonlyMap<string, string>;

/** Errors in source files. The message is the whole text, with every place shown; warnings are among the diagnostics. */
export class SourceError extends UserError {
  readonly diagnostics: readonly Diagnostic[];
  readonly sources: Sources;

  constructor(diagnostics: readonly Diagnostic[], sources: Sources) {
    super(formatDiagnostics(diagnostics, sources, { color: false }));
    this.diagnostics = diagnostics;
    this.sources = sources;
  }
}

export interface Position {
  /** From 1. */
  readonly line: number;
  /** From 1, in UTF-16 code units. */
  readonly column: number;
}

/** The line and column of an offset. A byte-order mark takes no column. */
export function positionOf(text: string, offset: number): Position {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  const mark = lineStart === 0 && before.startsWith('\uFEFF') ? 1 : 0;
  return { line: before.split('\n').length, column: offset - lineStart - mark + 1 };
}

/** More than these at once help nobody. */
const mostShown = 100;

/** Diagnostics one below the other, of very many the first. */
export function formatDiagnostics(
  diagnostics: readonly Diagnostic[],
  sources: Sources,
  options: { color: boolean },
): string {
  const shown = diagnostics.slice(0, mostShown).map(diagnostic => formatDiagnostic(diagnostic, sources, options));
  const more = diagnostics.length - shown.length;
  return [...shown, ...(more > 0 ? [`and ${more} more like these`] : [])].join('\n\n');
}

/**
 * A diagnostic as a person reads it: the sentence, the place, the lines with the part underlined, the notes with their own
 * places, the remedy. Without a final line break.
 */
export function formatDiagnostic(diagnostic: Diagnostic, sources: Sources, options: { color: boolean }): string {
  const paint = options.color ? withColor : (_: Style, text: string) => text;
  const severity = paint(diagnostic.severity === 'error' ? 'red' : 'yellow', diagnostic.severity);
  const lines = [`${severity}: ${paint('bold', printable(diagnostic.message))}`];
  if (diagnostic.span) lines.push(...codeFrame(diagnostic.span, sources, paint, 1));
  for (const note of diagnostic.notes) {
    lines.push(`${paint('blue', 'note')}: ${printable(note.message)}`);
    if (note.span) lines.push(...codeFrame(note.span, sources, paint, 0));
  }
  if (diagnostic.help) lines.push(`${paint('green', 'help')}: ${printable(diagnostic.help)}`);
  return lines.join('\n');
}

type Style = keyof typeof styles;
type Paint = (style: Style, text: string) => string;

const styles = { red: '31;1', yellow: '33;1', blue: '34;1', green: '32;1', bold: '1', faint: '2' } as const;
const withColor: Paint = (style, text) => `\u001b[${styles[style]}m${text}\u001b[0m`;

/** `--> file:line:column` and the line with the span underlined, below as many lines of context as `before` says. */
function codeFrame(span: Span, sources: Sources, paint: Paint, before: number): string[] {
  const text = sources.get(span.file);
  if (text === undefined) return [`  --> ${span.file}`];
  const { line, column } = positionOf(text, span.start);
  const lines = text.replace(/^\uFEFF/, '').split('\n');
  const first = Math.max(1, line - before);
  const width = String(line).length;
  // Of a line that is too long to be looked at, the part around the place.
  const cut = lines[line - 1]!.length > longestLine ? Math.max(0, column - 1 - longestLine / 4) : 0;
  const frame = lines.slice(first - 1, line).flatMap((content, index) => {
    const shown = printable(content.slice(cut, cut + longestLine));
    // A blank line above explains nothing.
    if (first + index < line && shown === '') return [];
    return `${String(first + index).padStart(width)} | ${shown}`.trimEnd();
  });
  const lineEnd = text.indexOf('\n', span.start);
  const end = Math.min(span.end, lineEnd < 0 ? text.length : lineEnd, span.start + longestLine);
  const underline = '^'.repeat(Math.max(1, columnsOf(text.slice(span.start, end).trimEnd())));
  return [
    `${' '.repeat(width)}--> ${span.file}:${line}:${column}`,
    ...frame,
    `${' '.repeat(width)} | ${' '.repeat(columnsOf(lines[line - 1]!.slice(cut, column - 1)))}${paint('red', underline)}`,
  ];
}

const longestLine = 400;

/** How many columns of a terminal a text takes. */
function columnsOf(text: string): number {
  let columns = 0;
  for (const character of text) columns += noColumn.test(character) ? 0 : twoColumns.test(character) ? 2 : 1;
  return columns;
}

/** Marks that stand on the letter before them, and characters that only join others. */
const noColumn = /[\p{Mn}\p{Me}\u200B-\u200D]/u;
/** East Asian wide and full-width characters (Unicode, annex 11) and emoji. */
const twoColumns =
  /[\u1100-\u115F\u2E80-\u303E\u3041-\u4DBF\u4E00-\uA4CF\uA960-\uA97C\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF01-\uFF60\uFFE0-\uFFE6\u{1B000}-\u{1B2FF}\u{20000}-\u{3FFFD}]|\p{Emoji_Presentation}/u;

/** A line with a blank for every tab and control character: the underlining fits, and a terminal obeys no source file. */
const printable = (line: string) => line.replace(/\p{Cc}/gu, ' ').trimEnd();

/** The candidate that a mistyped word most likely means, or null where none is near. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  let compared = 0;
  for (const candidate of candidates) {
    // One letter in three may be wrong, so that words of one or two letters match nothing but themselves.
    const limit = Math.floor(Math.max(word.length, candidate.length) / 3);
    if (Math.abs(word.length - candidate.length) > Math.min(limit, longestDifference)) continue;
    if (compared++ === mostCandidates) break;
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance <= limit && distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Limits on the work for a pathological file: on the difference in length, and on the candidates of about that length. */
const longestDifference = 32;
const mostCandidates = 100;

/** Insertions, deletions, replacements and swaps of neighbours that turn one word into the other (Damerau, 1964). */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = last[column - 1]! + (from[row - 1] === to[column - 1] ? 0 : 1);
      let distance = Math.min(replaced, last[column]! + 1, current[column - 1]! + 1);
      if (row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1])
        distance = Math.min(distance, beforeLast[column - 2]! + 1);
      current.push(distance);
    }
    [beforeLast, last] = [last, current];
  }
  return last[to.length]!;
}
