// From text to syntax tree, by the grammar mal/mal.ohm. The only importer of ohm-js.
import * as ohm from 'ohm-js';
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import { readPackageFile } from '../package-files.ts';
import { outline, type Section } from './outline.ts';
import type {
  BinaryOperator,
  Definition,
  FormulaConstant,
  FormulaDefinition,
  GroupDefinition,
  Property,
  PropertyValue,
  Span,
  SyntaxExpression,
  SyntaxFile,
} from './syntax.ts';

let mal: ohm.Grammar | null = null;

function grammar(): ohm.Grammar {
  mal ??= ohm.grammar(readPackageFile('mal/mal.ohm'));
  return mal;
}

/**
 * Parses a MAL text. Never throws: what is wrong is in the diagnostics, one for each definition that is at fault, and the
 * syntax then holds the definitions that are right. `file` is the name that spans and messages carry.
 */
export function parse(text: string, file: string): { syntax: SyntaxFile; diagnostics: Diagnostic[] } {
  const sections = outline(text, file);
  if (sections.every(section => section.problem === null)) {
    const match = grammar().match(text, 'file');
    if (match.succeeded()) {
      const definitions = treeReader(text, file, 0)(match) as Definition[];
      return { syntax: { file, text, definitions }, diagnostics: [] };
    }
  }
  const definitions: Definition[] = [];
  const diagnostics: Diagnostic[] = [];
  for (const section of sections) {
    if (section.problem) {
      diagnostics.push(section.problem);
      continue;
    }
    const match = grammar().match(text.slice(section.start, section.end), 'Definition');
    if (match.succeeded()) definitions.push(treeReader(text, file, section.start)(match) as Definition);
    else diagnostics.push(explain(section, match as Failure, file));
  }
  return { syntax: { file, text, definitions }, diagnostics };
}

/** ohm-js documents this method of a failed match but does not declare it. */
type Failure = ohm.FailedMatchResult & { getRightmostFailures(): { type: string; toString(): string }[] };

/** What the grammar expected where it gave up, in the language's own words. */
function explain(section: Section, match: Failure, file: string): Diagnostic {
  const position = section.start + match.getRightmostFailurePosition();
  const found = section.tokens.find(token => token.end > position);
  const span: Span = { file, start: found?.start ?? section.end, end: found?.end ?? section.end };
  // Literals come in quotation marks, descriptions do not.
  const expected = match.getRightmostFailures().map(failure => failure.toString().replace(/^"(.*)"$/, '$1'));
  return errors.unexpected(span, found?.text ?? null, [...new Set(expected)], section.tokens[0]!.text);
}

/** Builds syntax out of what the grammar matched in the part of `text` that begins at `base`. */
function treeReader(text: string, file: string, base: number): (match: ohm.MatchResult) => unknown {
  const spanOf = (node: ohm.Node): Span => ({
    file,
    start: base + node.source.startIdx,
    end: base + node.source.endIdx,
  });
  const tree = (node: ohm.Node) => node.tree();
  const each = (node: ohm.Node) => node.children.map(tree);
  const unary = (operator: ohm.Node, operand: ohm.Node, whole: ohm.Node): SyntaxExpression => ({
    kind: 'unary',
    operator: operator.sourceString as '-' | '!',
    operand: operand.tree(),
    span: spanOf(whole),
  });
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

  const semantics = grammar()
    .createSemantics()
    .addOperation<unknown>('tree', {
      file: (_mark, definitions, _spaces, _end) => definitions.tree(),
      Definitions: each,
      Definition_group(kind, name, properties): GroupDefinition {
        return {
          kind: kind.sourceString as GroupDefinition['kind'],
          name: name.sourceString,
          nameSpan: spanOf(name),
          properties: properties.tree(),
          span: spanOf(this),
        };
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
          text: text.slice(span.start, span.end),
        };
      },
      Parameters: (_open, names, _close) => names.asIteration().children.map(name => name.sourceString),
      Constants: (_open, constants, _close) => each(constants),
      Constant(name, _colon, learned, value): FormulaConstant {
        return {
          name: name.sourceString,
          value: Number(value.sourceString),
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
      Value: value => (value.ctorName === 'Group' ? group(value) : value.tree()),
      List(_open, first, _commas, others, _comma, _close): PropertyValue {
        const words = [first, ...others.children].map(word => ({ word: word.sourceString, span: spanOf(word) }));
        return { kind: 'list', words, span: spanOf(this) };
      },
      Word(word, properties): PropertyValue {
        const own = properties.children[0];
        return { kind: 'word', word: word.sourceString, properties: own ? own.tree() : null, span: spanOf(this) };
      },
      number(_sign, digits): PropertyValue {
        const integer = /^\d+$/.test(digits.sourceString);
        return { kind: 'number', value: Number(this.sourceString), integer, span: spanOf(this) };
      },
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
      Unary_prefix(operator, operand) {
        return unary(operator, operand, this);
      },
      Primary_call(callee, _open, args, _close): SyntaxExpression {
        const values = args.asIteration().children.map(tree);
        return { kind: 'call', callee: callee.sourceString, args: values, span: spanOf(this) };
      },
      Primary_brackets: (_open, expression, _close) => expression.tree(),
      Primary_name(name): SyntaxExpression {
        return { kind: 'name', name: name.sourceString, span: spanOf(this) };
      },
      Primary_number(number): SyntaxExpression {
        return { kind: 'number', value: Number(number.sourceString), span: spanOf(this) };
      },
    });
  return match => semantics(match).tree();
}

/** `\n` is a line break and `\t` a tab; any other escaped character stands for itself. */
function unescaped(text: string): string {
  return text.replace(/\\([\s\S])/g, (_, character) => ({ n: '\n', t: '\t' })[character as string] ?? character);
}
