// Numbers by name and the arithmetic of them (LANGUAGE 2.1), worked out before anything else is read. An integer stays one
// under + - * and under a division without remainder; a number written with a point or an exponent makes numbers.
import type { Diagnostic } from '../diagnostic.ts';
import { chainTooLong } from '../errors.ts';
import * as errors from '../formula-errors.ts';
import type { FormulaDefinition, LetDefinition, SyntaxExpression } from '../syntax/syntax.ts';

export interface Numeric {
  readonly value: number;
  readonly integer: boolean;
}

/** Names that stand for names that stand for names: the evaluation recurses over them. */
const longestChain = 100;

/** The `let`s of a file. What is wrong with them is reported once, whether they are used or not. */
export class Constants {
  readonly #definitions: ReadonlyMap<string, LetDefinition>;
  /** Null where it is at fault. */
  readonly #values = new Map<string, Numeric | null>();
  /** The names that a value is made of. */
  readonly #parts = new Map<string, Set<string>>();
  readonly #used = new Set<string>();
  readonly #report: (diagnostic: Diagnostic) => void;
  /** The names that are being worked out, outermost first. */
  readonly #open: string[] = [];

  constructor(definitions: readonly LetDefinition[], report: (diagnostic: Diagnostic) => void) {
    this.#definitions = new Map(definitions.map(definition => [definition.name, definition]));
    this.#report = report;
    for (const { name } of definitions) this.#valueOf(name);
    this.#used.clear();
  }

  has(name: string): boolean {
    return this.#definitions.has(name);
  }

  isUsed(name: string): boolean {
    return this.#used.has(name);
  }

  names(): string[] {
    return [...this.#definitions.keys()];
  }

  /** The value of an arithmetic expression, or null where it is at fault, which has been reported. */
  evaluate(expression: SyntaxExpression): Numeric | null {
    const { span } = expression;
    switch (expression.kind) {
      case 'number':
        return this.#checked(expression, expression);
      case 'name':
        if (this.has(expression.name)) return this.#valueOf(expression.name);
        return this.#fault(errors.unknownConstant(span, expression.name, this.names()));
      case 'unary': {
        const operand = this.evaluate(expression.operand);
        return operand && { ...operand, value: -operand.value };
      }
      case 'binary': {
        const left = this.evaluate(expression.left);
        const right = this.evaluate(expression.right);
        if (left === null || right === null) return null;
        const integer = left.integer && right.integer;
        if (expression.operator === '/' && right.value === 0) return this.#fault(errors.divisionByZero(span));
        if (expression.operator === '/' && integer && left.value % right.value !== 0)
          return this.#fault(errors.remainder(span, left.value, right.value));
        return this.#checked(expression, { value: apply(expression.operator, left.value, right.value), integer });
      }
      default:
        throw new Error(`the grammar has no ${expression.kind} in arithmetic`);
    }
  }

  /**
   * A formula with numbers in place of the `let`s that it names, in its text as well, so that it stands for itself. Its own
   * parameters and constants come before `let`s.
   */
  substituted(formula: FormulaDefinition): FormulaDefinition {
    const own = new Set([...formula.parameters, ...formula.constants.map(constant => constant.name)]);
    const replaced: { start: number; end: number; text: string }[] = [];
    const visit = (expression: SyntaxExpression): SyntaxExpression => {
      const { span } = expression;
      switch (expression.kind) {
        case 'number':
          return expression;
        case 'name': {
          if (own.has(expression.name) || !this.has(expression.name)) return expression;
          const { value, integer } = this.#valueOf(expression.name) ?? { value: 0, integer: true };
          replaced.push({ start: span.start, end: span.end, text: value < 0 ? `(${value})` : String(value) });
          return { kind: 'number', value, integer, span };
        }
        case 'unary':
          return { ...expression, operand: visit(expression.operand) };
        case 'binary':
          return { ...expression, left: visit(expression.left), right: visit(expression.right) };
        case 'select': {
          const { condition, whenTrue, whenFalse } = expression;
          return {
            ...expression,
            condition: visit(condition),
            whenTrue: visit(whenTrue),
            whenFalse: visit(whenFalse),
          };
        }
        case 'call':
          return { ...expression, args: expression.args.map(visit) };
      }
    };
    const constants = formula.constants.map(constant => {
      const { arithmetic } = constant;
      if (arithmetic === null) return constant;
      const value = this.evaluate(arithmetic)?.value ?? 0;
      replaced.push({ start: arithmetic.span.start, end: arithmetic.span.end, text: String(value) });
      return { ...constant, value, arithmetic: null };
    });
    const body = visit(formula.body);
    if (replaced.length === 0) return formula;
    const { start } = formula.span;
    let text = '';
    let written = start;
    for (const part of replaced) {
      text += formula.text.slice(written - start, part.start - start) + part.text;
      written = part.end;
    }
    return { ...formula, constants, body, text: text + formula.text.slice(written - start) };
  }

  /** What uses a number uses those that it is made of. */
  #use(name: string): void {
    for (const names = [name]; names.length > 0; ) {
      const next = names.pop()!;
      if (this.#used.has(next)) continue;
      this.#used.add(next);
      names.push(...(this.#parts.get(next) ?? []));
    }
  }

  #valueOf(name: string): Numeric | null {
    const whole = this.#open.at(-1);
    if (whole === undefined) this.#use(name);
    else this.#parts.get(whole)!.add(name);
    const known = this.#values.get(name);
    if (known !== undefined) return known;
    const { value, nameSpan } = this.#definitions.get(name)!;
    const cycle = this.#open.indexOf(name);
    if (cycle >= 0) return this.#fault(errors.constantCycle(nameSpan, [...this.#open.slice(cycle), name]));
    if (this.#open.length >= longestChain) return this.#fault(chainTooLong(nameSpan, 'let', longestChain));
    this.#parts.set(name, new Set());
    this.#open.push(name);
    const result = this.evaluate(value);
    this.#open.pop();
    this.#values.set(name, result);
    return result;
  }

  #checked({ span }: SyntaxExpression, result: Numeric): Numeric | null {
    const { value, integer } = result;
    const exact = Number.isFinite(value) && (!integer || Number.isSafeInteger(value));
    return exact ? { value, integer } : this.#fault(errors.numberTooLarge(span));
  }

  #fault(diagnostic: Diagnostic): null {
    this.#report(diagnostic);
    return null;
  }
}

function apply(operator: string, left: number, right: number): number {
  switch (operator) {
    case '+':
      return left + right;
    case '-':
      return left - right;
    case '*':
      return left * right;
    case '/':
      return left / right;
    default:
      throw new Error(`the grammar has no ${operator} in arithmetic`);
  }
}
