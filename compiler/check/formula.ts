// Checks formulas (LANGUAGE 2.2): parameters, names, functions and their arguments, numbers against conditions, recursion,
// and reduction, which only norms and losses may do.
import type { Diagnostic } from '../diagnostic.ts';
import { chainTooLong } from '../errors.ts';
import * as errors from '../formula-errors.ts';
import type { BinaryOperator, FormulaDefinition, Span, SyntaxExpression } from '../syntax/syntax.ts';

/** How many arguments each built-in function takes. With one argument `max` reduces, with two it compares. */
const builtInFunctions: Readonly<Record<string, readonly number[]>> = {
  abs: [1],
  cos: [1],
  erf: [1],
  exp: [1],
  floor: [1],
  log: [1],
  log1p: [1],
  rsqrt: [1],
  sigmoid: [1],
  sin: [1],
  sqrt: [1],
  tanh: [1],
  min: [2],
  max: [1, 2],
  // Over the last dimension; `var` is the mean of the squared distances from the mean.
  mean: [1],
  sum: [1],
  var: [1],
  // The argument itself, with no gradient.
  detach: [1],
  // at(x, i): element i of x along the dimension that reductions run over.
  at: [2],
};

/** A function calls a function that calls another: they are checked, and later built, one within the other. */
const longestChain = 100;
/** The formulas of single elements. */
const elementwise: ReadonlySet<FormulaDefinition['kind']> = new Set(['activation', 'score', 'mask']);
const reductions: ReadonlySet<string> = new Set(['mean', 'sum', 'var', 'max', 'at']);
/** Built-in names inside a norm: one trained value for each element of the normalised dimension. */
const normParameters = ['weight', 'bias'];

const parameterCount: Readonly<Record<FormulaDefinition['kind'], number | null>> = {
  activation: 1,
  norm: 1,
  // The score of a query and a key, their positions, and the head.
  score: 4,
  // The positions of a query and a key.
  mask: 2,
  loss: 2,
  function: null,
};

type Formulas = ReadonlyMap<string, FormulaDefinition>;

/**
 * Checks a formula that may call the `function`s of `library`, which may hold it too.
 *
 * @returns what is at fault, in the order of the text.
 */
export function checkFormula(formula: FormulaDefinition, library: Formulas): Diagnostic[] {
  const diagnostics = [...checkHead(formula), ...checkBody(formula, library)];
  // Reduction and recursion are looked for through calls, which must be right by then.
  return diagnostics.length > 0 ? diagnostics : checkCalls(formula, library);
}

/** The function that a call means; null for one that is built in, and where there is none. */
function functionOf(library: Formulas, callee: string): FormulaDefinition | null {
  if (Object.hasOwn(builtInFunctions, callee)) return null;
  const found = library.get(callee);
  return found?.kind === 'function' ? found : null;
}

function checkHead(formula: FormulaDefinition): Diagnostic[] {
  const { kind, name, nameSpan, parameters, constants } = formula;
  const diagnostics: Diagnostic[] = [];
  const expected = parameterCount[kind];
  if (expected !== null && parameters.length !== expected)
    diagnostics.push(errors.wrongParameters(nameSpan, kind, expected, parameters.length));
  if (kind === 'function' && Object.hasOwn(builtInFunctions, name))
    diagnostics.push(errors.nameTaken(nameSpan, name, 'a built-in function'));
  if (kind !== 'norm' && constants[0]) diagnostics.push(errors.constantsOutsideNorm(constants[0].span, kind));
  const given = [
    ...parameters.map(parameter => ({ name: parameter, span: nameSpan })),
    ...constants.map(constant => ({ name: constant.name, span: constant.span })),
  ];
  const seen = new Set<string>();
  for (const { name, span } of given) {
    const trained = constants.some(constant => constant.learned && constant.name === name);
    if (kind === 'norm' && normParameters.includes(name) && !trained)
      diagnostics.push(errors.nameTaken(span, name, 'a built-in name in a norm'));
    if (seen.has(name)) diagnostics.push(errors.nameTwice(span, name));
    seen.add(name);
  }
  const read = namesIn(formula.body);
  // A score or mask need not look at everything that there is to see.
  for (const parameter of kind === 'score' || kind === 'mask' ? parameters : []) read.add(parameter);
  const unread = given.filter(({ name }) => !read.has(name));
  // After another fault the formula is not what was meant.
  if (diagnostics.length === 0)
    diagnostics.push(...unread.map(({ name, span }) => errors.nameNotRead(span, kind, name)));
  for (const { value, arithmetic, span } of constants) {
    if (!Number.isFinite(value)) diagnostics.push(errors.numberTooLarge(span));
    // Of a file they have been worked out: what is left is in a formula that must stand for itself.
    if (arithmetic) diagnostics.push(errors.arithmeticAlone(arithmetic.span));
  }
  return diagnostics;
}

type Sort = 'number' | 'condition';

/** What each operator takes and gives. `==` and `!=` compare numbers. */
function sortsOf(operator: BinaryOperator): { takes: Sort; gives: Sort } {
  if (operator === '&&' || operator === '||') return { takes: 'condition', gives: 'condition' };
  return { takes: 'number', gives: ['+', '-', '*', '/', '^'].includes(operator) ? 'number' : 'condition' };
}

function checkBody(formula: FormulaDefinition, library: Formulas): Diagnostic[] {
  const diagnostics: Diagnostic[] = [];
  const constants = formula.constants.map(constant => constant.name);
  const names = [...formula.parameters, ...constants, ...(formula.kind === 'norm' ? normParameters : [])];
  const callable = () => [
    ...Object.keys(builtInFunctions),
    ...[...library.values()].filter(({ kind }) => kind === 'function').map(({ name }) => name),
  ];

  const expect = (expression: SyntaxExpression, sort: Sort, operator: string) => {
    const found = sortOf(expression);
    if (found === null || found === sort) return;
    const expected = sort === 'number' ? errors.numberExpected : errors.conditionExpected;
    diagnostics.push(expected(expression.span, operator));
  };
  // Null for a name that means nothing: one mistake is one error.
  const sortOf = (expression: SyntaxExpression): Sort | null => {
    switch (expression.kind) {
      case 'number':
        if (!Number.isFinite(expression.value)) diagnostics.push(errors.numberTooLarge(expression.span));
        return 'number';
      case 'name':
        if (names.includes(expression.name)) return 'number';
        diagnostics.push(unknownName(formula, expression, names, callable()));
        return null;
      case 'unary': {
        const sort = expression.operator === '!' ? 'condition' : 'number';
        expect(expression.operand, sort, expression.operator);
        return sort;
      }
      case 'binary': {
        const { takes, gives } = sortsOf(expression.operator);
        expect(expression.left, takes, expression.operator);
        expect(expression.right, takes, expression.operator);
        if (expression.operator === '/' && constantOf(expression.right) === 0)
          diagnostics.push(errors.divisionByZero(expression.span));
        return gives;
      }
      case 'select':
        expect(expression.condition, 'condition', '?');
        expect(expression.whenTrue, 'number', '? :');
        expect(expression.whenFalse, 'number', '? :');
        return 'number';
      case 'call': {
        const { callee, args, span } = expression;
        const expected = arityOf(callee, library);
        if (expected === null) diagnostics.push(errors.unknownFunction(calleeSpan(span, callee), callee, callable()));
        else if (!expected.includes(args.length))
          diagnostics.push(errors.wrongArity(span, callee, expected, args.length));
        for (const argument of args) expect(argument, 'number', callee);
        return 'number';
      }
    }
  };
  const sort = sortOf(formula.body);
  if (sort === 'condition' && formula.kind !== 'mask')
    diagnostics.push(errors.bodyIsCondition(formula.body.span, formula.kind));
  if (sort === 'number' && formula.kind === 'mask')
    diagnostics.push(errors.bodyIsNumber(formula.body.span, formula.kind, comparison(formula)));
  return diagnostics;
}

/** What arithmetic of numbers alone comes to; null for what depends on a name. */
function constantOf(expression: SyntaxExpression): number | null {
  if (expression.kind === 'number') return expression.value;
  if (expression.kind === 'unary' && expression.operator === '-') {
    const operand = constantOf(expression.operand);
    return operand === null ? null : -operand;
  }
  if (expression.kind !== 'binary') return null;
  const [left, right] = [constantOf(expression.left), constantOf(expression.right)];
  if (left === null || right === null) return null;
  switch (expression.operator) {
    case '+':
      return left + right;
    case '-':
      return left - right;
    case '*':
      return left * right;
    case '/':
      return left / right;
    case '^':
      return left ** right;
    default:
      return null;
  }
}

/** A condition to show in help, of the formula's own names. */
function comparison({ kind, parameters: [first = 'x', second] }: FormulaDefinition): string {
  if (kind !== 'mask') return `${first} > 0`;
  return second === undefined ? 'key <= query' : `${second} <= ${first}`;
}

/** The numbers of arguments that a function takes; null where there is none of the name. */
function arityOf(callee: string, library: Formulas): readonly number[] | null {
  if (Object.hasOwn(builtInFunctions, callee)) return builtInFunctions[callee]!;
  const called = functionOf(library, callee);
  return called && [called.parameters.length];
}

const calleeSpan = (span: Span, callee: string): Span => ({ ...span, end: span.start + callee.length });

function unknownName(
  formula: FormulaDefinition,
  expression: { readonly name: string; readonly span: Span },
  names: readonly string[],
  callable: readonly string[],
): Diagnostic {
  const { name, span } = expression;
  const hint = callable.includes(name)
    ? `\`${name}\` is a function: write \`${name}(...)\``
    : normParameters.includes(name)
      ? `\`${name}\` is a trained parameter of norms only, not of ${formula.kind} \`${formula.name}\``
      : name === 'true' || name === 'false'
        ? `a condition compares numbers: \`${comparison(formula)}\``
        : null;
  return errors.unknownName(span, name, names, hint);
}

/** Walks the calls of a formula, into the functions it calls, for recursion and, where there is nothing to reduce, for reduction. */
function checkCalls(formula: FormulaDefinition, library: Formulas): Diagnostic[] {
  // Whether a function reduces, itself or through a call; in progress while it is `null`.
  const known = new Map<string, boolean | null>();
  let cycle = null as readonly string[] | null;
  let tooDeep = false;

  const reduces = (callee: string, argumentCount: number, path: readonly string[]): boolean => {
    const called = functionOf(library, callee);
    if (!called) return reductions.has(callee) && !(callee === 'max' && argumentCount === 2);
    if (known.get(callee) === null) cycle ??= [...path.slice(path.indexOf(callee)), callee];
    if (known.has(callee)) return known.get(callee) === true;
    tooDeep ||= path.length > longestChain;
    if (tooDeep) return false;
    known.set(callee, null);
    const result = callsIn(called.body).some(call => reduces(call.callee, call.args.length, [...path, callee]));
    known.set(callee, result);
    return result;
  };

  if (formula.kind === 'function') known.set(formula.name, null);
  const reducing = callsIn(formula.body).filter(call => reduces(call.callee, call.args.length, [formula.name]));
  if (tooDeep) return [chainTooLong(formula.nameSpan, formula.name, longestChain)];
  // One of the functions of a cycle reports it.
  if (cycle) return [...cycle].sort()[0] === formula.name ? [errors.recursion(formula.nameSpan, cycle)] : [];
  if (!elementwise.has(formula.kind)) return [];
  return reducing.map(call => errors.reductionOutsideNorm(call.span, formula.kind, call.callee));
}

type Call = Extract<SyntaxExpression, { kind: 'call' }>;

/** Every call in an expression, outer ones first. */
export function callsIn(expression: SyntaxExpression): Call[] {
  const within = partsOf(expression).flatMap(callsIn);
  return expression.kind === 'call' ? [expression, ...within] : within;
}

/** Every name that an expression reads. */
export function namesIn(expression: SyntaxExpression): Set<string> {
  if (expression.kind === 'name') return new Set([expression.name]);
  return new Set(partsOf(expression).flatMap(part => [...namesIn(part)]));
}

function partsOf(expression: SyntaxExpression): readonly SyntaxExpression[] {
  switch (expression.kind) {
    case 'number':
    case 'name':
      return [];
    case 'unary':
      return [expression.operand];
    case 'binary':
      return [expression.left, expression.right];
    case 'select':
      return [expression.condition, expression.whenTrue, expression.whenFalse];
    case 'call':
      return expression.args;
  }
}
