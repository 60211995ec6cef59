// The canonical layout of a MAL text. Tokens and comments stay as they were written and in their order; what changes is
// the white space between them.
//
// Brackets with a comment or a line break in them, or that do not fit on their line, are broken: a group then has one
// property on each line, a list keeps the lines that it was written in. A formula keeps its line breaks too.
import { SourceError } from '../diagnostic.ts';
import { parse } from './parse.ts';
import type { Definition, FormulaDefinition, Property, SyntaxFile } from './syntax.ts';

/** Columns of a line, not counting a comment at its end. */
const lineWidth = 100;
const indentation = 2;

/**
 * Lays a text out. The result means the same and is laid out already: to format it again changes nothing.
 *
 * @param file the name that messages carry.
 * @throws SourceError with the parser's diagnostics where the text has syntax errors.
 */
export function format(text: string, file: string): string {
  const { syntax, diagnostics } = parse(text, file);
  if (diagnostics.length > 0) throw new SourceError(diagnostics, new Map([[file, text]]));
  return render(layOut(readTokens(syntax)));
}

interface Comment {
  readonly text: string;
  /** Line breaks before it, from the token or comment that precedes it: 0 for one at the end of a line. */
  readonly breaks: number;
  /** Where it stands in its line. */
  readonly column: number;
}

interface Token {
  readonly kind: 'word' | 'number' | 'string' | 'mark' | 'end';
  readonly text: string;
  readonly start: number;
  /** Those between the preceding token and this one. */
  readonly comments: readonly Comment[];
  /** Line breaks before it, from the token or comment that precedes it. */
  readonly breaks: number;
  /** The white space before it where the preceding token is on the same line. */
  gap: '' | ' ' | '  ';
  /** True where a definition, property or constant begins. */
  begins: boolean;
  /** True where a line break before it is kept. */
  mayBreak: boolean;
  /** Of an opening bracket, the index of its partner. */
  partner: number;
}

// ---- Tokens ----

// White space, then a comment, string, word, number or mark (LANGUAGE 1.1), or the end of the text.
const tokenPattern = (word: string) =>
  new RegExp(
    String.raw`([ \t\r\n\uFEFF]*)(?:(#[^\n]*)|("(?:[^"\\]|\\[\s\S])*")|(${word})|` +
      String.raw`(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(&&|\|\||[<>=!]=|\S)|$)`,
    'y',
  );
const plainToken = tokenPattern('[A-Za-z_][A-Za-z0-9_-]*');
/** In a formula '-' is minus. */
const formulaToken = tokenPattern('[A-Za-z_][A-Za-z0-9_]*');

const countBreaks = (space: string) => space.split('\n').length - 1;

/** The tokens of a text without syntax errors, and one of kind `end` that holds the last comments. */
function readTokens(syntax: SyntaxFile): Token[] {
  const { text } = syntax;
  const formulas = syntax.definitions.filter(isFormula);
  const tokens: Token[] = [];
  let comments: Comment[] = [];
  for (let position = 0; tokens.at(-1)?.kind !== 'end'; ) {
    const inFormula = formulas.some(({ span }) => span.start <= position && position < span.end);
    const pattern = inFormula ? formulaToken : plainToken;
    pattern.lastIndex = position;
    const [all, space, comment, string, word, number, mark] = pattern.exec(text)!;
    const start = position + space!.length;
    position += all.length;
    const breaks = countBreaks(space!);
    if (comment !== undefined) {
      comments.push({ text: comment.trimEnd(), breaks, column: start - text.lastIndexOf('\n', start) - 1 });
      continue;
    }
    const kind = string ? 'string' : word ? 'word' : number ? 'number' : mark ? 'mark' : 'end';
    const written = { kind, text: text.slice(start, position), start, comments, breaks } as const;
    tokens.push({ ...written, gap: '', begins: false, mayBreak: false, partner: -1 });
    comments = [];
  }
  describe(tokens, syntax);
  return tokens;
}

/** Says of each token what the tree knows: where things begin, what is a sign and what an operator. */
function describe(tokens: readonly Token[], syntax: SyntaxFile): void {
  const starts = beginningsOf(syntax.definitions);
  // The tree has no span for a whole import: it begins one token before its path.
  const paths = new Set(syntax.imports.map(({ pathSpan }) => pathSpan.start));
  const formulas = new Set(syntax.definitions.filter(isFormula).map(({ span }) => span.start));
  const open: number[] = [];
  // Of the definition that the token is in.
  let formula = false;
  let body = false;
  let sign = false;
  for (const [index, token] of tokens.entries()) {
    const before = tokens[index - 1];
    token.begins = starts.has(token.start) || paths.has(tokens[index + 1]?.start ?? -1);
    if (token.begins && open.length === 0) [formula, body] = [formulas.has(token.start), false];
    if (before) token.gap = gapBetween(before, token, sign);
    token.mayBreak = body && (token.gap !== '' || before?.text === '(' || token.text === ')');
    // In the head of a formula `learned -1` is no difference.
    const inHead = formula && !body;
    const follows = before && (before.kind !== 'mark' || before.text === ')');
    const operand = follows && !(inHead && before.text === 'learned');
    sign = token.text === '!' || (token.text === '-' && !operand);
    if (token.text === '=') body = true;
    if (token.kind !== 'mark') continue;
    if ('{[('.includes(token.text)) open.push(index);
    else if ('}])'.includes(token.text)) tokens[open.pop()!]!.partner = index;
  }
}

const isFormula = (definition: Definition): definition is FormulaDefinition => 'body' in definition;

/** Where definitions, properties and constants begin. */
function beginningsOf(definitions: readonly Definition[]): Set<number> {
  const starts = new Set<number>();
  const addProperties = (properties: readonly Property[]) => {
    for (const { span, value } of properties) {
      starts.add(span.start);
      if ('properties' in value) addProperties(value.properties ?? []);
    }
  };
  for (const definition of definitions) {
    starts.add(definition.span.start);
    if ('properties' in definition) addProperties(definition.properties);
    if (isFormula(definition)) for (const { span } of definition.constants) starts.add(span.start);
  }
  return starts;
}

/** What stands between two tokens of one line. `sign`: whether `before` is a sign and not an operator between two operands. */
function gapBetween(before: Token, token: Token, sign: boolean): Token['gap'] {
  if ('([^'.includes(before.text) || ')],^'.includes(token.text) || sign) return '';
  if (before.text === '{') return ' ';
  if (token.begins) return '  ';
  if (token.text === ':' && before.begins) return '';
  if (token.text === '(' && before.kind === 'word') return '';
  return ' ';
}

// ---- Lines ----

interface Line {
  readonly indent: number;
  /** Without the indent; a comment of its own line is here too. */
  text: string;
  /** At the line's end. Where there is no text, it goes on with the comment of the line above. */
  comment: string;
  /** True where a blank line stands above. */
  readonly blank: boolean;
}

/** The column that follows a line's text, whose last string may hold line breaks. */
function widthOf({ indent, text }: Line): number {
  const lastBreak = text.lastIndexOf('\n');
  return lastBreak < 0 ? indent + text.length : text.length - lastBreak - 1;
}

/** The lines of a text, its comments among them; those at line ends are not aligned yet. */
function layOut(tokens: readonly Token[]): Line[] {
  const lines: Line[] = [];
  // True where nothing can follow on the last line: there is none, or a comment ends it.
  let ended = true;
  // True where nothing yet stands within the innermost bracket, so that a blank line would be at its edge.
  let atEdge = true;

  const startLine = (indent: number, text: string, comment: string, blank: boolean) => {
    lines.push({ indent, text, comment, blank: blank && !atEdge });
    atEdge = false;
  };

  /** `between`: whether the comments stand between things and not within one, where blank lines are not kept. */
  const writeComments = ({ comments }: Token, indent: number, between: boolean) => {
    let above: Comment | null = null;
    for (const comment of comments) {
      const last = lines.at(-1);
      if (last && comment.breaks === 0) last.comment = comment.text;
      else if (last?.comment && above?.column === comment.column && comment.breaks === 1)
        startLine(indent, '', comment.text, false);
      else startLine(indent, comment.text, '', between && comment.breaks > 1);
      above = comment;
      ended = true;
    }
  };

  const write = (token: Token, indent: number, breaks: boolean, between = false) => {
    writeComments(token, indent, between);
    if (ended || breaks) startLine(indent, token.text, '', between && token.breaks > 1);
    else lines.at(-1)!.text += token.gap + token.text;
    ended = false;
  };

  /** The tokens of one definition, property or list item, from one index to before another. */
  const writeThing = (from: number, to: number, indent: number, breaks: boolean) => {
    write(tokens[from]!, indent, breaks, true);
    for (let index = from; index < to; index++) {
      const token = tokens[index]!;
      if (index > from) write(token, indent + indentation, token.mayBreak && token.breaks > 0);
      if (token.text === '{' || token.text === '[') {
        writeBracket(index, token.partner);
        index = token.partner;
      }
    }
  };

  /** What follows an opening bracket, which is written, up to its partner. */
  const writeBracket = (open: number, close: number) => {
    const line = lines.at(-1)!;
    const flat = flatText(tokens, open, close + 1)?.slice(1) ?? null;
    const comma = tokens[close + 1]!.text === ',' ? 1 : 0;
    if (flat !== null && widthOf(line) + flat.length + comma <= lineWidth) {
      line.text += flat;
      return;
    }
    const inner = line.indent + indentation;
    const isGroup = tokens[open]!.text === '{';
    atEdge = true;
    for (const [from, to] of thingsBetween(tokens, open + 1, close)) {
      const item = flatText(tokens, from, to);
      const isFirst = from === open + 1;
      const isLong = item !== null && widthOf(lines.at(-1)!) + 1 + item.length > lineWidth;
      writeThing(from, to, inner, isGroup || isFirst || isLong || tokens[from]!.breaks > 0);
    }
    writeComments(tokens[close]!, inner, true);
    startLine(line.indent, tokens[close]!.text, '', false);
    ended = false;
  };

  for (const [from, to] of thingsBetween(tokens, 0, tokens.length - 1)) writeThing(from, to, 0, true);
  writeComments(tokens.at(-1)!, 0, true);
  return lines;
}

/** The definitions, properties or list items among the tokens of one bracket, each from an index to before another. */
function thingsBetween(tokens: readonly Token[], from: number, to: number): [number, number][] {
  const firsts: number[] = [];
  for (let index = from; index < to; index++) {
    if (index === from || tokens[index]!.begins || tokens[index - 1]!.text === ',') firsts.push(index);
    if (tokens[index]!.partner >= 0) index = tokens[index]!.partner;
  }
  return firsts.map((first, place) => [first, firsts[place + 1] ?? to]);
}

/** Tokens as one line, or null where a comment or a line break stands between them or in one. */
function flatText(tokens: readonly Token[], from: number, to: number): string | null {
  let text = '';
  for (let index = from; index < to; index++) {
    const token = tokens[index]!;
    if (token.text.includes('\n')) return null;
    if (index === from) {
      text = token.text;
      continue;
    }
    const before = tokens[index - 1]!.text;
    // `{` and `}` alone are an empty group on however many lines.
    const broken = token.breaks > 0 && !(before === '{' && token.text === '}');
    if (broken || token.comments.length > 0) return null;
    // A comma before a bracket is for lists of several lines.
    const isLast = token.text === ',' && index + 1 < to && tokens[index + 1]!.text === ']';
    if (!isLast) text += token.gap + token.text;
  }
  return text;
}

// ---- Text ----

/** The lines as a text, with the comments at line ends one below the other where the lines belong together. */
function render(lines: readonly Line[]): string {
  const rendered: string[] = [];
  for (const section of sectionsOf(lines)) {
    const column = Math.max(...section.filter(({ comment }) => comment).map(widthOf)) + 2;
    for (const line of section) {
      const padding = line.comment && ' '.repeat(column - (line.text ? widthOf(line) : 0));
      const indent = line.text && ' '.repeat(line.indent);
      rendered.push(`${line.blank ? '\n' : ''}${indent}${line.text}${padding}${line.comment}\n`);
    }
  }
  return rendered.join('');
}

/** Runs of lines that no blank line, no comment of its own line and no border of a definition with braces divides. */
function sectionsOf(lines: readonly Line[]): Line[][] {
  const sections: Line[][] = [];
  let divided = true;
  for (const line of lines) {
    const isComment = line.text.startsWith('#');
    const continues = line.text === '';
    const opens = line.indent === 0 && line.text.endsWith('{');
    if ((divided || line.blank || isComment || opens) && !continues) sections.push([]);
    sections.at(-1)!.push(line);
    if (!continues) divided = isComment || (line.indent === 0 && line.text === '}');
  }
  return sections;
}
