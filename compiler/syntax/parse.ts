// From text to syntax tree, by the grammar mal/mal.ohm. The only importer of ohm-js.
import * as ohm from 'ohm-js';
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import { readPackageFile } from '../package-files.ts';
import { outline, type Section } from './outline.ts';
import {
  type BinaryOperator,
  type Definition,
  type FormulaConstant,
  type FormulaDefinition,
  formulaKinds,
  type GroupDefinition,
  type Import,
  type LetDefinition,
  type ListItem,
  type Property,
  type PropertyValue,
  type Span,
  type SyntaxExpression,
  type SyntaxFile,
} from './syntax.ts';

interface Language {
  readonly grammar: ohm.Grammar;
  readonly readTree: TreeReader;
}

/** What ohm-js made of the grammar when the bundle was built (build.mjs): making it takes a tenth of a second. */
declare const grammarRecipe: unknown;

/** ohm-js has this function for its own bundles but does not declare it. */
type Kitchen = typeof ohm & { makeRecipe(recipe: unknown): ohm.Grammar };

const makeGrammar = (): ohm.Grammar =>
  typeof grammarRecipe === 'undefined'
    ? ohm.grammar(readPackageFile('mal/mal.ohm'))
    : (ohm as Kitchen).makeRecipe(grammarRecipe);

let mal: Language | null = null;

/** The grammar and what reads its matches; both take long to make. */
function language(): Language {
  if (mal === null) {
    const grammar = makeGrammar();
    mal = { grammar, readTree: treeReader(grammar) };
  }
  return mal;
}

/**
 * Parses a MAL text. Never throws: what is wrong is in the diagnostics, one for each definition that is at fault, and the
 * syntax then holds the definitions that are right. `file` is the name that spans and messages carry.
 */
export function parse(text: string, file: string): { syntax: SyntaxFile; diagnostics: Diagnostic[] } {
  const { grammar, readTree } = language();
  const statements: Statement[] = [];
  const diagnostics: Diagnostic[] = [];
  for (const section of outline(text, file)) {
    if (section.problem) {
      diagnostics.push(section.problem);
      continue;
    }
    const match = grammar.match(text.slice(section.start, section.end), 'Definition');
    if (match.succeeded()) statements.push(readTree(match, { text, file, base: section.start }) as Statement);
    else diagnostics.push(explain(section, match as Failure, file));
  }
  return { syntax: syntaxFile(text, file, statements), diagnostics };
}

/** Parses the formula that a section of a text holds, or says what is wrong with it. */
export function parseFormula(text: string, file: string, section: Section): FormulaDefinition | Diagnostic {
  const { grammar, readTree } = language();
  const match = grammar.match(text.slice(section.start, section.end), 'Definition_formula');
  if (match.failed()) return explain(section, match as Failure, file);
  return readTree(match, { text, file, base: section.start }) as FormulaDefinition;
}

type Statement = Definition | Import;

function syntaxFile(text: string, file: string, statements: readonly Statement[]): SyntaxFile {
  const imports = statements.filter(statement => statement.kind === 'import');
  const definitions = statements.filter(statement => statement.kind !== 'import');
  return { file, text, imports, definitions };
}

/** ohm-js documents this method of a failed match but does not declare it. */
type Failure = ohm.FailedMatchResult & { getRightmostFailures(): { type: string; toString(): string }[] };

const isWord = /^[A-Za-z_][A-Za-z0-9_-]*$/;

/** What the grammar expected where it gave up, in the language's own words. */
function explain(section: Section, match: Failure, file: string): Diagnostic {
  const position = section.start + match.getRightmostFailurePosition();
  const index = section.tokens.findIndex(token => token.end > position);
  const found = section.tokens[index];
  // Of `0x10` the grammar reads a number and a name, and gives up at what follows it.
  const malformed = [found, section.tokens.at(index < 0 ? -1 : Math.max(0, index - 1))].find(
    token => token?.kind === 'word' && !isWord.test(token.text),
  );
  if (malformed) {
    const inFormula = formulaKinds.some(kind => kind === section.tokens[0]!.text);
    return errors.malformedWord({ file, start: malformed.start, end: malformed.end }, malformed.text, inFormula);
  }
  const span: Span = { file, start: found?.start ?? section.end, end: found?.end ?? section.end };
  // Literals come in quotation marks, descriptions do not.
  const expected = match.getRightmostFailures().map(failure => failure.toString().replace(/^"(.*)"$/, '$1'));
  return errors.unexpected(span, found?.text ?? null, [...new Set(expected)], section.tokens[0]!.text);
}

/** Builds syntax out of what the grammar matched in the part of `text` that begins at `base`. */
type TreeReader = (match: ohm.MatchResult, source: Source) => unknown;

interface Source {
  readonly text: string;
  readonly file: string;
  readonly base: number;
}

function treeReader(grammar: ohm.Grammar): TreeReader {
  // Of the match that is being read.
  let source: Source;
  const spanOf = (node: ohm.Node): Span => ({
    file: source.file,
    start: source.base + node.source.startIdx,
    end: source.base + node.source.endIdx,
  });
  const tree = (node: ohm.Node) => node.tree();
  const each = (node: ohm.Node) => node.children.map(tree);
  function name(this: ohm.Node, word: ohm.Node): SyntaxExpression {
    return { kind: 'name', name: word.sourceString, span: spanOf(this) };
  }
  function number(this: ohm.Node, digits: ohm.Node): SyntaxExpression {
    const written = digits.sourceString;
    return { kind: 'number', value: Number(written), integer: /^\d+$/.test(written), span: spanOf(this) };
  }
  function unary(this: ohm.Node, operator: ohm.Node, operand: ohm.Node): SyntaxExpression {
    const spelled = operator.sourceString as '-' | '!';
    return { kind: 'unary', operator: spelled, operand: operand.tree(), span: spanOf(this) };
  }
  function binary(this: ohm.Node, left: ohm.Node, operator: ohm.Node, right: ohm.Node): SyntaxExpression {
    const spelled = operator.sourceString as BinaryOperator;
    return { kind: 'binary', operator: spelled, left: left.tree(), right: right.tree(), span: spanOf(this) };
  }
  const property = (name: ohm.Node, value: PropertyValue, whole: ohm.Node): Property => ({
    name: name.sourceString,
    nameSpan: spanOf(name),
    value,
    span: spanOf(whole),
  });
  const group = (node: ohm.Node): PropertyValue => ({ kind: 'group', properties: node.tree(), span: spanOf(node) });

  const semantics = grammar.createSemantics().addOperation<unknown>('tree', {
    Definition_group(kind, name, base, properties): GroupDefinition {
      return {
        kind: kind.sourceString as GroupDefinition['kind'],
        name: name.sourceString,
        nameSpan: spanOf(name),
        base: base.children[0]?.tree() ?? null,
        properties: properties.tree(),
        span: spanOf(this),
      };
    },
    Base: (_extends, name): GroupDefinition['base'] => ({ name: name.sourceString, span: spanOf(name) }),
    Definition_let(_let, name, _equals, value): LetDefinition {
      const nameSpan = spanOf(name);
      return { kind: 'let', name: name.sourceString, nameSpan, value: value.tree(), span: spanOf(this) };
    },
    Definition_import(_import, path): Import {
      const { value, span } = path.tree() as Extract<PropertyValue, { kind: 'string' }>;
      return { kind: 'import', path: value, pathSpan: span };
    },
    Definition_formula(kind, name, parameters, constants, _equals, body): FormulaDefinition {
      const span = spanOf(this);
      return {
        kind: kind.sourceString as FormulaDefinition['kind'],
        name: name.sourceString,
        nameSpan: spanOf(name),
        parameters: parameters.tree(),
        constants: each(constants).flat() as FormulaConstant[],
        body: body.tree(),
        span,
        text: source.text.slice(span.start, span.end),
      };
    },
    Parameters: (_open, names, _close) => names.asIteration().children.map(name => name.sourceString),
    Constants: (_open, constants, _close) => each(constants),
    Constant(name, _colon, learned, value): FormulaConstant {
      const expression = value.tree() as SyntaxExpression;
      const number = arithmeticValue(expression);
      const [given, arithmetic] = number.kind === 'number' ? [number.value, null] : [0, expression];
      return {
        name: name.sourceString,
        value: given,
        arithmetic,
        learned: learned.children.length > 0,
        span: spanOf(this),
      };
    },

    Group: (_open, properties, _close) => each(properties),
    Property_value(name, _colon, value) {
      return property(name, value.tree(), this);
    },
    Property_group(name, properties) {
      return property(name, group(properties), this);
    },
    Property_tier(keyword, name, properties) {
      const span = { ...spanOf(properties), start: spanOf(name).start };
      return property(keyword, { kind: 'word', word: name.sourceString, properties: properties.tree(), span }, this);
    },
    Value: value => {
      if (value.ctorName === 'Group') return group(value);
      return value.ctorName === 'Arithmetic' ? arithmeticValue(value.tree()) : value.tree();
    },
    Choice(word, properties): PropertyValue {
      return { kind: 'word', word: word.sourceString, properties: properties.tree(), span: spanOf(this) };
    },
    List(_open, first, _commas, others, _comma, _close): PropertyValue & ListItem {
      return { kind: 'list', items: [first, ...others.children].map(tree) as ListItem[], span: spanOf(this) };
    },
    Item_repeat(count, _times, item): ListItem {
      return { kind: 'repeat', count: count.tree(), item: item.tree(), span: spanOf(this) };
    },
    Item_word(word): ListItem {
      return { kind: 'word', word: word.sourceString, span: spanOf(this) };
    },
    Count_brackets: (_open, expression, _close) => expression.tree(),
    Count_number: number,
    Count_name: name,
    Arithmetic_add: binary,
    Term_multiply: binary,
    Factor_negate: unary,
    Factor_brackets: (_open, expression, _close) => expression.tree(),
    Factor_name: name,
    Factor_number: number,
    boolean(_word): PropertyValue {
      return { kind: 'boolean', value: this.sourceString === 'true', span: spanOf(this) };
    },
    string(_open, characters, _close): PropertyValue {
      return { kind: 'string', value: unescaped(characters.sourceString), span: spanOf(this) };
    },

    Expression_select(condition, _question, whenTrue, _colon, whenFalse): SyntaxExpression {
      return {
        kind: 'select',
        condition: condition.tree(),
        whenTrue: whenTrue.tree(),
        whenFalse: whenFalse.tree(),
        span: spanOf(this),
      };
    },
    Disjunction_or: binary,
    Conjunction_and: binary,
    Comparison_compare: binary,
    Sum_add: binary,
    Product_multiply: binary,
    Power_raise: binary,
    Unary_prefix: unary,
    Primary_call(callee, _open, args, _close): SyntaxExpression {
      const values = args.asIteration().children.map(tree);
      return { kind: 'call', callee: callee.sourceString, args: values, span: spanOf(this) };
    },
    Primary_brackets: (_open, expression, _close) => expression.tree(),
    Primary_name: name,
    Primary_number: number,
  });
  return (match, from) => {
    source = from;
    return semantics(match).tree();
  };
}

/** A number or a word where there is nothing to work out. */
function arithmeticValue(expression: SyntaxExpression): PropertyValue {
  const { span } = expression;
  if (expression.kind === 'number') return expression;
  if (expression.kind === 'name') return { kind: 'word', word: expression.name, properties: null, span };
  if (expression.kind === 'unary' && expression.operand.kind === 'number')
    return { ...expression.operand, value: -expression.operand.value, span };
  return { kind: 'arithmetic', expression, span };
}

/** `\n` is a line break and `\t` a tab; any other escaped character stands for itself. */
function unescaped(text: string): string {
  return text.replace(/\\([\s\S])/g, (_, character) => ({ n: '\n', t: '\t' })[character as string] ?? character);
}
