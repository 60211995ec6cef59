// Checks formulas (LANGUAGE 2.2): parameters, names, functions and their arguments, numbers against conditions, recursion,
// and reduction, which an activation may not do.
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { BinaryOperator, FormulaDefinition, Span, SyntaxExpression } from '../syntax/syntax.ts';

/** How many arguments each built-in function takes. With one argument `max` reduces, with two it compares. */
const builtInFunctions: Readonly<Record<string, readonly number[]>> = {
  abs: [1],
  cos: [1],
  erf: [1],
  exp: [1],
  floor: [1],
  log: [1],
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

const reductions: ReadonlySet<string> = new Set(['mean', 'sum', 'var', 'max', 'at']);
/** Built-in names inside a norm: one trained value for each element of the normalised dimension. */
const normParameters = ['weight', 'bias'];

const parameterCount: Readonly<Record<FormulaDefinition['kind'], number | null>> = {
  activation: 1,
  norm: 1,
  loss: 2,
  function: null,
};

/**
 * Checks formulas that may call each other's `function`s and those of `library`.
 *
 * @returns what is at fault, in the order of the text.
 */
export function checkFormulas(
  formulas: readonly FormulaDefinition[],
  library: ReadonlyMap<string, FormulaDefinition>,
): Diagnostic[] {
  const functions = new Map([...library].filter(([, formula]) => formula.kind === 'function'));
  for (const formula of formulas) if (formula.kind === 'function') functions.set(formula.name, formula);
  return formulas.flatMap(formula => {
    const diagnostics = [...checkHead(formula), ...checkBody(formula, functions)];
    // Reduction and recursion are looked for through calls, which must be right by then.
    return diagnostics.length > 0 ? diagnostics : checkCalls(formula, functions);
  });
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
    if (kind === 'norm' && normParameters.includes(name))
      diagnostics.push(errors.nameTaken(span, name, 'a built-in name in a norm'));
    if (seen.has(name)) diagnostics.push(errors.nameTwice(span, name));
    seen.add(name);
  }
  for (const constant of constants)
    if (!Number.isFinite(constant.value)) diagnostics.push(errors.numberTooLarge(constant.span));
  return diagnostics;
}

type Sort = 'number' | 'condition';

/** What each operator takes and gives. `==` and `!=` compare numbers. */
function sortsOf(operator: BinaryOperator): { takes: Sort; gives: Sort } {
  if (operator === '&&' || operator === '||') return { takes: 'condition', gives: 'condition' };
  return { takes: 'number', gives: ['+', '-', '*', '/', '^'].includes(operator) ? 'number' : 'condition' };
}

function checkBody(formula: FormulaDefinition, functions: ReadonlyMap<string, FormulaDefinition>): Diagnostic[] {
  const diagnostics: Diagnostic[] = [];
  const constants = formula.constants.map(constant => constant.name);
  const names = [...formula.parameters, ...constants, ...(formula.kind === 'norm' ? normParameters : [])];
  const callable = [...Object.keys(builtInFunctions), ...functions.keys()];

  const expect = (expression: SyntaxExpression, sort: Sort, operator: string) => {
    if (sortOf(expression) === sort) return;
    const expected = sort === 'number' ? errors.numberExpected : errors.conditionExpected;
    diagnostics.push(expected(expression.span, operator));
  };
  const sortOf = (expression: SyntaxExpression): Sort => {
    switch (expression.kind) {
      case 'number':
        if (!Number.isFinite(expression.value)) diagnostics.push(errors.numberTooLarge(expression.span));
        return 'number';
      case 'name':
        if (!names.includes(expression.name)) diagnostics.push(unknownName(formula, expression, names, callable));
        return 'number';
      case 'unary': {
        const sort = expression.operator === '!' ? 'condition' : 'number';
        expect(expression.operand, sort, expression.operator);
        return sort;
      }
      case 'binary': {
        const { takes, gives } = sortsOf(expression.operator);
        expect(expression.left, takes, expression.operator);
        expect(expression.right, takes, expression.operator);
        return gives;
      }
      case 'select':
        expect(expression.condition, 'condition', '?');
        expect(expression.whenTrue, 'number', '? :');
        expect(expression.whenFalse, 'number', '? :');
        return 'number';
      case 'call': {
        const { callee, args, span } = expression;
        const expected = functions.has(callee) ? [functions.get(callee)!.parameters.length] : arityOf(callee);
        if (expected === null) diagnostics.push(errors.unknownFunction(calleeSpan(span, callee), callee, callable));
        else if (!expected.includes(args.length))
          diagnostics.push(errors.wrongArity(span, callee, expected, args.length));
        for (const argument of args) expect(argument, 'number', callee);
        return 'number';
      }
    }
  };
  if (sortOf(formula.body) === 'condition') diagnostics.push(errors.bodyIsCondition(formula.body.span, formula.kind));
  return diagnostics;
}

const arityOf = (callee: string) => (Object.hasOwn(builtInFunctions, callee) ? builtInFunctions[callee]! : null);

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
      : null;
  return errors.unknownName(span, name, names, hint);
}

/** Walks the calls of a formula, into the functions it calls, for recursion and, in an activation, for reduction. */
function checkCalls(formula: FormulaDefinition, functions: ReadonlyMap<string, FormulaDefinition>): Diagnostic[] {
  // Whether a function reduces, itself or through a call; in progress while it is `null`.
  const known = new Map<string, boolean | null>();
  let cycle = null as readonly string[] | null;

  const reduces = (callee: string, argumentCount: number, path: readonly string[]): boolean => {
    const called = functions.get(callee);
    if (!called) return reductions.has(callee) && !(callee === 'max' && argumentCount === 2);
    if (known.get(callee) === null) cycle ??= [...path.slice(path.indexOf(callee)), callee];
    if (known.has(callee)) return known.get(callee) === true;
    known.set(callee, null);
    const result = callsIn(called.body).some(call => reduces(call.callee, call.args.length, [...path, callee]));
    known.set(callee, result);
    return result;
  };

  if (formula.kind === 'function') known.set(formula.name, null);
  const reducing = callsIn(formula.body).filter(call => reduces(call.callee, call.args.length, [formula.name]));
  // One of the functions of a cycle reports it.
  if (cycle) return [...cycle].sort()[0] === formula.name ? [errors.recursion(formula.nameSpan, cycle)] : [];
  if (formula.kind !== 'activation') return [];
  return reducing.map(call => errors.reductionInActivation(call.span, call.callee));
}

type Call = Extract<SyntaxExpression, { kind: 'call' }>;

function callsIn(expression: SyntaxExpression): Call[] {
  switch (expression.kind) {
    case 'number':
    case 'name':
      return [];
    case 'unary':
      return callsIn(expression.operand);
    case 'binary':
      return [...callsIn(expression.left), ...callsIn(expression.right)];
    case 'select':
      return [expression.condition, expression.whenTrue, expression.whenFalse].flatMap(callsIn);
    case 'call':
      return [expression, ...expression.args.flatMap(callsIn)];
  }
}
