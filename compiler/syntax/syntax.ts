// The syntax tree of a MAL file: what was written, where, before any name is resolved.

/** A place in a source text: byte offsets are UTF-16 code units, as JavaScript strings count. */
export interface Span {
  readonly file: string;
  readonly start: number;
  readonly end: number;
}

/**
 * A scalar expression as written (LANGUAGE 2.2): the body of a formula, whose names are parameters, constants or learned
 * values, or arithmetic of numbers and `let`s. An integer is written in digits alone.
 */
export type SyntaxExpression = { readonly span: Span } & (
  | { readonly kind: 'number'; readonly value: number; readonly integer: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'unary'; readonly operator: '-' | '!'; readonly operand: SyntaxExpression }
  | {
      readonly kind: 'binary';
      readonly operator: BinaryOperator;
      readonly left: SyntaxExpression;
      readonly right: SyntaxExpression;
    }
  | {
      readonly kind: 'select';
      readonly condition: SyntaxExpression;
      readonly whenTrue: SyntaxExpression;
      readonly whenFalse: SyntaxExpression;
    }
  | { readonly kind: 'call'; readonly callee: string; readonly args: readonly SyntaxExpression[] }
);

export type BinaryOperator = '+' | '-' | '*' | '/' | '^' | '<' | '<=' | '>' | '>=' | '==' | '!=' | '&&' | '||';

/** `name: 3`, `name: d / 64`, `name: gelu`, `name: rope { theta: 1e4 }`, `name { ... }`, `name: [a, 2 * b]`. */
export interface Property {
  readonly name: string;
  readonly nameSpan: Span;
  readonly value: PropertyValue;
  readonly span: Span;
}

export type PropertyValue = { readonly span: Span } & (
  | { readonly kind: 'number'; readonly value: number; readonly integer: boolean }
  | { readonly kind: 'boolean'; readonly value: boolean }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'word'; readonly word: string; readonly properties: readonly Property[] | null }
  | { readonly kind: 'arithmetic'; readonly expression: SyntaxExpression }
  | { readonly kind: 'group'; readonly properties: readonly Property[] }
  | { readonly kind: 'list'; readonly items: readonly ListItem[] }
);

/** `local`, `[local, global]`, `3 * local`. */
export type ListItem = { readonly span: Span } & (
  | { readonly kind: 'word'; readonly word: string }
  | { readonly kind: 'list'; readonly items: readonly ListItem[] }
  | { readonly kind: 'repeat'; readonly count: SyntaxExpression; readonly item: ListItem }
);

/** `attention ID { ... }`, `ssm`, `ffn`, `block`, `model` and, refused by name, `memory`. */
export interface GroupDefinition {
  readonly kind: 'attention' | 'ssm' | 'ffn' | 'block' | 'model' | 'memory';
  readonly name: string;
  readonly nameSpan: Span;
  /** The definition that it `extends`. */
  readonly base: { readonly name: string; readonly span: Span } | null;
  readonly properties: readonly Property[];
  readonly span: Span;
}

/** The words that begin a formula. */
export const formulaKinds = ['activation', 'norm', 'score', 'mask', 'function', 'loss'] as const;

/** `activation relu2(x) = max(x, 0)^2`; `norm dyt(x) { alpha: learned 0.5 } = ...`; `function` is what others may call. */
export interface FormulaDefinition {
  readonly kind: (typeof formulaKinds)[number];
  readonly name: string;
  readonly nameSpan: Span;
  readonly parameters: readonly string[];
  readonly constants: readonly FormulaConstant[];
  readonly body: SyntaxExpression;
  readonly span: Span;
  /** The definition as it was written, for comments in generated source. */
  readonly text: string;
}

export interface FormulaConstant {
  readonly name: string;
  /** 0 as long as there is `arithmetic`. */
  readonly value: number;
  /** What the value is worked out from, where it is written with names of numbers; null for a number. */
  readonly arithmetic: SyntaxExpression | null;
  /** True where the file says `learned NUM`: a trained parameter that starts at that value. */
  readonly learned: boolean;
  readonly span: Span;
}

/** `let d = 768`: a number by name. */
export interface LetDefinition {
  readonly kind: 'let';
  readonly name: string;
  readonly nameSpan: Span;
  readonly value: SyntaxExpression;
  readonly span: Span;
}

export type Definition = GroupDefinition | FormulaDefinition | LetDefinition;

/** `import "blocks.mal"`. */
export interface Import {
  readonly kind: 'import';
  readonly path: string;
  readonly pathSpan: Span;
}

export interface SyntaxFile {
  readonly file: string;
  readonly text: string;
  readonly imports: readonly Import[];
  readonly definitions: readonly Definition[];
}
