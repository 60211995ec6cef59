// A rough reading of a MAL text that cannot fail: its tokens, and where its definitions begin. The parser uses it to report
// several errors of one file, since a grammar gives up at the first, and to keep its recursion within bounds.
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import { formulaKinds, type Span } from './syntax.ts';

export interface Token {
  readonly kind: 'word' | 'number' | 'string' | 'mark';
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

/** A stretch of the text that holds one definition, or what was meant to be one. */
export interface Section {
  readonly start: number;
  readonly end: number;
  readonly tokens: readonly Token[];
  /** What is wrong with it whatever the grammar says: a bracket or a quotation mark without its partner, too deep a nesting. */
  readonly problem: Diagnostic | null;
}

const definitionKinds = ['attention', 'ffn', 'block', 'model', 'ssm', 'memory'] as const;
const keywords: readonly string[] = [...definitionKinds, ...formulaKinds, 'extends', 'import', 'let'];

/** Brackets within brackets. Parser and compiler recurse over them. */
const maximumNesting = 32;
/** Operators of one formula. A tree of them is as deep in the worst case. */
const maximumOperators = 200;

/** Words and marks of one definition. */
const maximumLength = 20_000;

const partners: Readonly<Record<string, string>> = { '{': '}', '(': ')', '[': ']' };

// A word here is also what was meant as one: with letters of any alphabet, or digits that letters follow.
const tokenPattern =
  /[ \t\r\n\uFEFF]+|#[^\n]*|("[^"\\]*(?:\\[\s\S][^"\\]*)*")|(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\p{L}_\d]|\.\d))|((?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)?[\p{L}_][\p{L}\p{M}\p{N}_-]*)|(&&|\|\||[<>=!]=|[\s\S])/gu;

/** Splits a text into tokens; every character outside white space and comments is in one. */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  for (const match of text.matchAll(tokenPattern)) {
    const [all, string, number, word, mark] = match;
    const kind = string ? 'string' : word ? 'word' : number ? 'number' : mark ? 'mark' : null;
    if (kind !== null) tokens.push({ kind, text: all, start: match.index, end: match.index + all.length });
  }
  return tokens;
}

/** Splits a text into sections, one for each definition; their order is the text's. */
export function outline(text: string, file: string): Section[] {
  const tokens = tokenize(text);
  const sections: Section[] = [];
  let open: Token[] = [];
  let problem: Diagnostic | null = null;
  let first = 0;
  const spanOf = (token: Token): Span => ({ file, start: token.start, end: token.end });

  const close = (end: number) => {
    if (end === first) return;
    const own = tokens.slice(first, end);
    const unclosed = open.at(-1);
    if (unclosed) problem ??= errors.unclosedBracket(spanOf(unclosed), unclosed.text, partners[unclosed.text]!);
    const operators = own.filter(token => token.kind === 'mark' && /^[-+*/^<>=!&|?]/.test(token.text));
    const excess = operators[maximumOperators];
    if (excess) problem ??= errors.formulaTooLong(spanOf(excess), operators.length, maximumOperators);
    if (own.length > maximumLength) problem ??= errors.definitionTooLong(spanOf(own[0]!), own.length, maximumLength);
    sections.push({ start: own[0]!.start, end: own.at(-1)!.end, tokens: own, problem });
    open = [];
    problem = null;
    first = end;
  };

  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index]!;
    const header = headerLength(tokens, index);
    // Inside brackets `block {` is a property. `block NAME {` at the start of a line is a definition: a bracket was forgotten.
    const begins = header > 1 && keywords.includes(token.text) && startsLine(text, token.start);
    if (header > 0 && (open.length === 0 || begins)) {
      close(index);
      index += header - 1;
    } else if (token.kind === 'mark' && token.text === '"') {
      problem ??= errors.unclosedString(spanOf(token));
    } else if (token.kind === 'mark' && partners[token.text]) {
      open.push(token);
      if (open.length > maximumNesting) problem ??= errors.nestedTooDeep(spanOf(token), maximumNesting);
    } else if (token.kind === 'mark' && Object.values(partners).includes(token.text)) {
      const opener = open.pop();
      if (!opener) problem ??= errors.strayBracket(spanOf(token), token.text);
      else if (partners[opener.text] !== token.text)
        problem ??= errors.wrongBracket(spanOf(token), token.text, spanOf(opener), partners[opener.text]!);
    }
  }
  close(tokens.length);
  return sections;
}

/** How many tokens, from this one, are the head of a definition; 0 where none begins here. */
function headerLength(tokens: readonly Token[], index: number): number {
  const [a, b, c, d] = tokens.slice(index, index + 4);
  if (a?.kind !== 'word') return 0;
  const opens = (token: Token | undefined) => token?.text === '{' || token?.text === '(';
  if (a.text === 'import' && b?.kind === 'string') return 2;
  if (a.text === 'let' && b?.kind === 'word' && c?.text === '=') return 3;
  if (b?.kind === 'word' && c?.text === 'extends' && d?.kind === 'word') return 4;
  // Two names in a row end a formula, so that a misspelled keyword begins a definition too; `x model {` begins at `model`.
  if (b?.kind === 'word' && opens(c) && (keywords.includes(a.text) || !keywords.includes(b.text))) return 2;
  return b?.text === '{' && keywords.includes(a.text) ? 1 : 0;
}

const startsLine = (text: string, offset: number) => offset === 0 || text[offset - 1] === '\n';
