// Writes indented C, line by line, and keeps names unique.

const widest = 118;

/** Stands for a kernel's own name until it is known. */
export const ownName = '@NAME@';

export class Writer {
  private readonly lines: string[] = [];
  private depth = 0;
  private readonly outer: number;

  /** @param outer columns that its lines will be moved by: where it is appended to another */
  constructor(outer = 0) {
    this.outer = outer;
  }

  /**
   * A writer of lines that are appended to this one.
   * @param deeper how many blocks they will lie in besides those that are open
   */
  inside(deeper = 0): Writer {
    return new Writer(this.outer + 2 * (this.depth + deeper));
  }

  line(text = ''): void {
    const pad = '  '.repeat(this.depth);
    if (text === '') this.lines.push('');
    else
      for (const part of wrapLine(text, widest - this.outer - pad.length))
        this.lines.push(text.startsWith('#') ? part : pad + part);
  }

  /** Words that belong to no longer statement, as many to a line as there is room for. */
  words(words: readonly string[]): void {
    const room = widest - this.outer - 2 * this.depth;
    let rest = '';
    for (const word of words) {
      if (rest !== '' && rest.length + 1 + word.length > room) {
        this.line(rest);
        rest = '';
      }
      rest += `${rest === '' ? '' : ' '}${word}`;
    }
    if (rest !== '') this.line(rest);
  }

  /** A block comment of several lines. */
  comment(lines: readonly string[]): void {
    const pad = '  '.repeat(this.depth);
    const last = lines.length - 1;
    lines.forEach((line, n) => {
      this.lines.push(`${pad}${n === 0 ? '/*' : ' *'} ${line}${n === last ? ' */' : ''}`);
    });
  }

  /** `header {`, the body one step in, `}`. */
  block(header: string, body: () => void): void {
    this.line(header === '' ? '{' : `${header} {`);
    this.inner(body);
    this.line('}');
  }

  /** A loop over [from, to). */
  loop(variable: string, from: string, to: string, body: () => void, step = 1): void {
    const advance = step === 1 ? `${variable}++` : `${variable} += ${step}`;
    this.block(`for (int64_t ${variable} = ${from}; ${variable} < ${to}; ${advance})`, body);
  }

  inner(body: () => void): void {
    this.depth++;
    body();
    this.depth--;
  }

  /** Appends what another writer wrote, at this one's depth. */
  append(other: Writer): void {
    const pad = '  '.repeat(this.depth);
    for (const line of other.lines) this.lines.push(line === '' || line.startsWith('#') ? line : pad + line);
  }

  toString(): string {
    return `${this.lines.join('\n')}\n`;
  }
}

/** Fills a kernel's name in, which may make its lines too long. */
export const withName = (text: string, name: string): string =>
  text
    .split('\n')
    .flatMap(line => (line.includes(ownName) ? wrapLine(line.replaceAll(ownName, name), widest) : [line]))
    .join('\n');

/**
 * Breaks a long line after a comma or before an operator, with the rest indented under it; where there is none, after an
 * opening bracket, and never within a string. A pragma goes on after `\\`.
 */
function wrapLine(text: string, width: number): string[] {
  if (text.length <= width || text.includes(ownName)) return [text];
  const goesOn = text.startsWith('#') ? ' \\' : '';
  const parts: string[] = [];
  let rest = text;
  const indent = ' '.repeat(4 + (text.length - text.trimStart().length));
  while (rest.length > width) {
    const fitting = rest.slice(0, width - goesOn.length).replace(/"[^"]*"?/g, string => '_'.repeat(string.length));
    const lastOf = (pattern: RegExp, after = 20) =>
      [...fitting.matchAll(pattern)].findLast(({ index }) => index > after);
    const last = lastOf(/, | (?=[-+*/?:=|&]{1,2} )/g) ?? lastOf(/\(/g) ?? lastOf(/, /g, indent.length);
    if (!last) break;
    const at = last[0] === ' ' ? last.index : last.index + 1;
    parts.push(rest.slice(0, at).trimEnd() + goesOn);
    rest = indent + rest.slice(at).trimStart();
  }
  return [...parts, rest];
}

const reserved = new Set(
  'auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while row rows column columns task batch time context block blocks packed scratch workspace partial chunk few tile run p g s c main index log exp sin cos'.split(
    ' ',
  ),
);

/** Hands out C identifiers, each once. */
export class Names {
  private readonly taken: Set<string>;

  /** @param outer names of the scope around this one, which are not taken again */
  constructor(outer?: Names) {
    this.taken = new Set(outer?.taken);
  }

  unique(wanted: string): string {
    const base = wanted.replace(/[^A-Za-z0-9_]/g, '_').replace(/^(?=\d)/, '_');
    let name = reserved.has(base) ? `${base}_` : base;
    for (let n = 2; this.taken.has(name); n++) name = `${base}_${n}`;
    this.taken.add(name);
    return name;
  }
}
