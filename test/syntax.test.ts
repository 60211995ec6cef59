// The grammar: the lexical rules of LANGUAGE 1.1, the forms of properties, the precedence of operators, and the places
// that syntax and messages point to.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatDiagnostic, formatDiagnostics } from '../compiler/diagnostic.ts';
import { outline, tokenize } from '../compiler/syntax/outline.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { Definition, FormulaDefinition, GroupDefinition, SyntaxExpression } from '../compiler/syntax/syntax.ts';

function definitionsOf(text: string): readonly Definition[] {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  assert.equal(diagnostics, [], text);
  return syntax.definitions;
}

/** The properties of the only definition, without places. */
function propertiesOf(text: string): unknown {
  const { properties } = definitionsOf(text)[0] as GroupDefinition;
  return JSON.parse(JSON.stringify(properties, (key, value) => (/span$/i.test(key) ? undefined : value)));
}

const errorsOf = (text: string) => parse(text, 'test.mal').diagnostics.map(diagnostic => diagnostic.message);

/** An expression with every bracket written. */
function bracketed(expression: SyntaxExpression): string {
  switch (expression.kind) {
    case 'number':
      return String(expression.value);
    case 'name':
      return expression.name;
    case 'unary':
      return `(${expression.operator}${bracketed(expression.operand)})`;
    case 'binary':
      return `(${bracketed(expression.left)} ${expression.operator} ${bracketed(expression.right)})`;
    case 'select': {
      const [condition, whenTrue, whenFalse] = [expression.condition, expression.whenTrue, expression.whenFalse];
      return `(${bracketed(condition)} ? ${bracketed(whenTrue)} : ${bracketed(whenFalse)})`;
    }
    case 'call':
      return `${expression.callee}(${expression.args.map(bracketed).join(', ')})`;
  }
}

const formula = (body: string) => bracketed((definitionsOf(`function f(x) = ${body}`)[0] as FormulaDefinition).body);

const lexical = suite('lexical rules');

lexical('white space and comments are free, a byte-order mark is skipped', () => {
  const dense = propertiesOf('attention a{num_heads:4bias:false}');
  const loose = '\uFEFF# comment }\r\nattention # kind\r\n\ta {\r\n num_heads # {\n:\n4\n\n bias : false # "\n}#end';
  assert.equal(propertiesOf(loose), dense);
  assert.equal(definitionsOf('').length, 0);
  assert.equal(definitionsOf('# only a comment').length, 0);
});

lexical('a byte-order mark and other blanks are refused elsewhere', () => {
  for (const character of ['\uFEFF', '\u00a0', '\f', '\v', '\u2028'])
    assert.is(errorsOf(`model m {${character}}`).length, 1, JSON.stringify(character));
});

lexical('a keyword may be a name, and ends at a word boundary', () => {
  for (const name of ['model', 'attention', 'ffn', 'block', 'norm', 'true', 'learned', 'attention-2', '_x', 'a-b-'])
    assert.is(definitionsOf(`attention ${name} { }`)[0]!.name, name);
  assert.is(definitionsOf('model attention { } attention model { }').length, 2);
  assert.equal(propertiesOf('model m { a: trueish b: true }'), [
    { name: 'a', value: { kind: 'word', word: 'trueish', properties: null } },
    { name: 'b', value: { kind: 'boolean', value: true } },
  ]);
  for (const head of ['modelm', 'model-m', 'model2']) assert.is(errorsOf(`${head} { }`).length, 1, head);
});

lexical('numbers and texts', () => {
  assert.equal(propertiesOf('model m { a: 007 b: -2 c: 1.50 d: 2e3 e: -1.5E-3 f: "a \\"b\\" \\\\ \\n # { é" g: "" }'), [
    { name: 'a', value: { kind: 'number', value: 7, integer: true } },
    { name: 'b', value: { kind: 'number', value: -2, integer: true } },
    { name: 'c', value: { kind: 'number', value: 1.5, integer: false } },
    { name: 'd', value: { kind: 'number', value: 2000, integer: false } },
    { name: 'e', value: { kind: 'number', value: -0.0015, integer: false } },
    { name: 'f', value: { kind: 'string', value: 'a "b" \\ \n # { é' } },
    { name: 'g', value: { kind: 'string', value: '' } },
  ]);
  for (const wrong of ['.5', '1.', '+1', '0x10', '"a'])
    assert.ok(errorsOf(`model m { a: ${wrong} }`).length > 0, wrong);
});

const properties = suite('properties');

properties('groups, words and lists in all their forms', () => {
  assert.equal(propertiesOf('block b { a { } b: { } c: w { x: 1 } d: w e: [p, q,] f: [r] tier t { } }'), [
    { name: 'a', value: { kind: 'group', properties: [] } },
    { name: 'b', value: { kind: 'group', properties: [] } },
    {
      name: 'c',
      value: {
        kind: 'word',
        word: 'w',
        properties: [{ name: 'x', value: { kind: 'number', value: 1, integer: true } }],
      },
    },
    { name: 'd', value: { kind: 'word', word: 'w', properties: null } },
    {
      name: 'e',
      value: {
        kind: 'list',
        items: [
          { kind: 'word', word: 'p' },
          { kind: 'word', word: 'q' },
        ],
      },
    },
    { name: 'f', value: { kind: 'list', items: [{ kind: 'word', word: 'r' }] } },
    { name: 'tier', value: { kind: 'word', word: 't', properties: [] } },
  ]);
  for (const wrong of ['[]', '[,]', '[a b]', '[a,,]', '[1]'])
    assert.is(errorsOf(`model m { a: ${wrong} }`).length, 1, wrong);
});

properties('repetitions in lists', () => {
  const list = (text: string) => (propertiesOf(`model m { a: ${text} }`) as [{ value: unknown }])[0].value;
  const word = (name: string) => ({ kind: 'word', word: name });
  const count = (value: number) => ({ kind: 'number', value, integer: true });
  assert.equal(list('[2 * x, y-z]'), {
    kind: 'list',
    items: [{ kind: 'repeat', count: count(2), item: word('x') }, word('y-z')],
  });
  assert.equal(list('[n * [x, 3 * y,]]'), {
    kind: 'list',
    items: [
      {
        kind: 'repeat',
        count: { kind: 'name', name: 'n' },
        item: { kind: 'list', items: [word('x'), { kind: 'repeat', count: count(3), item: word('y') }] },
      },
    ],
  });
  for (const wrong of ['[x * 2]', '[2 x]', '[2 *]', '[1 + 1 * x]'])
    assert.is(errorsOf(`model m { a: ${wrong} }`).length, 1, wrong);
});

properties('arithmetic', () => {
  const arithmetic = (text: string) => {
    const { value } = (definitionsOf(`model m { a: ${text} b: 1 }`)[0] as GroupDefinition).properties[0]!;
    return value.kind === 'arithmetic' ? bracketed(value.expression) : value.kind;
  };
  assert.is(arithmetic('d'), 'word');
  assert.is(arithmetic('(4)'), 'number');
  assert.is(arithmetic('- 4'), 'number');
  assert.is(arithmetic('d / 64'), '(d / 64)');
  assert.is(arithmetic('d - 1'), '(d - 1)');
  assert.is(arithmetic('d-1'), 'word');
  assert.is(arithmetic('4 -1'), '(4 - 1)');
  assert.is(arithmetic('-(a + b * 2) / c - 1'), '(((-(a + (b * 2))) / c) - 1)');
  for (const wrong of ['2 ^ 3', '1 +', '(1', 'a b', 'exp(1)'])
    assert.is(errorsOf(`model m { a: ${wrong} }`).length, 1, wrong);
});

properties('every kind of definition', () => {
  const kinds = ['attention', 'ffn', 'ssm', 'memory', 'block', 'model'];
  assert.equal(
    definitionsOf(kinds.map(kind => `${kind} x { }`).join(' ')).map(definition => definition.kind),
    kinds,
  );
});

properties('let, import and extends', () => {
  const { syntax, diagnostics } = parse('import "a.mal" let d = 3 * 2 block x extends y { } let e = d', 'test.mal');
  assert.equal(diagnostics, []);
  assert.equal(
    syntax.imports.map(({ path }) => path),
    ['a.mal'],
  );
  const [d, x, e] = syntax.definitions;
  assert.is(d!.kind === 'let' && bracketed(d!.value), '(3 * 2)');
  assert.is(x!.kind === 'block' && x!.base!.name, 'y');
  assert.is(e!.kind === 'let' && bracketed(e!.value), 'd');
  for (const wrong of ['let = 3', 'let a-b = 3', 'let d 3', 'import a.mal', 'import', 'block x extends { }'])
    assert.ok(errorsOf(wrong).length > 0, wrong);
});

properties('groups without a name may stand at the start of a line', () => {
  const [model, ...others] = definitionsOf('model m {\nblock {\nattention { num_heads: 2 }\nnorm: none\n}\n}\n');
  assert.is(others.length, 0);
  assert.equal(
    (model as GroupDefinition).properties.map(({ name }) => name),
    ['block'],
  );
});

const formulas = suite('formulas');

formulas('operators bind as in mathematics', () => {
  const cases = {
    'a - b - c': '((a - b) - c)',
    'a / b * c': '((a / b) * c)',
    'a + b * c ^ d': '(a + (b * (c ^ d)))',
    'a ^ b ^ c': '(a ^ (b ^ c))',
    '-x^2': '(-(x ^ 2))',
    '2^-x': '(2 ^ (-x))',
    '2^-x^2': '(2 ^ (-(x ^ 2)))',
    '-a * b': '((-a) * b)',
    '--x': '(-(-x))',
    'a - -b': '(a - (-b))',
    'x-1': '(x - 1)',
    'a < b + 1 ? c : d': '((a < (b + 1)) ? c : d)',
    'a ? b : c ? d : e': '(a ? b : (c ? d : e))',
    'a ? b ? c : d : e': '(a ? (b ? c : d) : e)',
    '!a && b || c == d': '(((!a) && b) || (c == d))',
    'a || b && c': '(a || (b && c))',
    'f(x, g(y)) + (x)': '(f(x, g(y)) + x)',
    '1e-5 + 2.5e3': '(0.00001 + 2500)',
  };
  for (const [text, expected] of Object.entries(cases)) assert.is(formula(text), expected);
});

formulas('a chain of comparisons, a number before a name and a call without arguments are refused', () => {
  for (const body of ['a < b < c', '2x', 'f()', 'x +', '', 'a = b', 'x ? y', '(x', 'a & b'])
    assert.ok(errorsOf(`function f(x) = ${body}`).length > 0, body);
});

formulas('heads, constants and the text as it was written', () => {
  const text =
    '# first\nnorm dyt(x) { alpha: learned 0.5  eps: -1e-5 } = tanh(alpha * x) * weight  # last\nactivation a(x) = x';
  const [norm, activation] = definitionsOf(text) as FormulaDefinition[];
  assert.equal(
    norm!.constants.map(({ name, value, learned }) => ({ name, value, learned })),
    [
      { name: 'alpha', value: 0.5, learned: true },
      { name: 'eps', value: -1e-5, learned: false },
    ],
  );
  assert.is(norm!.text, 'norm dyt(x) { alpha: learned 0.5  eps: -1e-5 } = tanh(alpha * x) * weight');
  assert.equal(activation!.parameters, ['x']);
});

const places = suite('places');

places('every span is the text that it stands for', () => {
  const text = '\uFEFF# é\nblock b {\n  norm: rmsnorm { eps: 1e-6 }\n}\nactivation a(x) = x + sin(2 * x)';
  const [block, activation] = definitionsOf(text) as [GroupDefinition, FormulaDefinition];
  const written = ({ start, end }: { start: number; end: number }) => text.slice(start, end);
  assert.is(written(block.nameSpan), 'b');
  assert.is(written(block.properties[0]!.nameSpan), 'norm');
  assert.is(written(block.properties[0]!.span), 'norm: rmsnorm { eps: 1e-6 }');
  assert.is(written(block.properties[0]!.value.span), 'rmsnorm { eps: 1e-6 }');
  assert.is(written(activation.span), 'activation a(x) = x + sin(2 * x)');
  assert.is(activation.body.kind === 'binary' && written(activation.body.right.span), 'sin(2 * x)');
});

places('definitions that are right are kept beside those that are not', () => {
  const text = 'attention a { }\nffn f { hidden_dim 3 }\nblock b { attention: a }\n';
  const { syntax, diagnostics } = parse(text, 'test.mal');
  assert.equal(
    syntax.definitions.map(({ name, nameSpan }) => [name, text.slice(nameSpan.start, nameSpan.end)]),
    [
      ['a', 'a'],
      ['b', 'b'],
    ],
  );
  assert.is(text.slice(diagnostics[0]!.span!.start, diagnostics[0]!.span!.end), '3');
});

places('a frame counts lines and columns, and underlines below tabs and control characters', () => {
  const text = '\uFEFFmodel m {\r\n\tbias 3 \u0007x\r\n}';
  const shown = formatDiagnostic(parse(text, 'a b.mal').diagnostics[0]!, new Map([['a b.mal', text]]), {
    color: false,
  });
  assert.is(
    shown,
    'error: expected `:` or `{`, found `3`\n --> a b.mal:2:7\n1 | model m {\n2 |  bias 3  x\n  |       ^',
  );
  const coloured = formatDiagnostic(parse(text, 'a b.mal').diagnostics[0]!, new Map(), { color: true });
  assert.match(coloured, '\u001b[31;1merror\u001b[0m: ');
});

places('of a very long line the part around the place is shown, and of very many messages the first', () => {
  const text = `model m { ${'vocab_size: 3 '.repeat(500)}hidden_size 3 }`;
  const { diagnostics } = parse(text, 'test.mal');
  const sources = new Map([['test.mal', text]]);
  const shown = formatDiagnostic(diagnostics[0]!, sources, { color: false }).split('\n');
  assert.ok(shown.every(line => line.length < 450));
  const column = shown[3]!.indexOf('^');
  assert.is(shown[2]![column], '3');
  assert.match(shown[2]!.slice(column - 12), /^hidden_size 3 }$/);
  const many = formatDiagnostics(Array(250).fill(diagnostics[0]), sources, { color: false });
  assert.is(many.split('error: ').length - 1, 100);
  assert.ok(many.endsWith('\n\nand 150 more like these'));
});

places('an outline finds the definitions of any text and loses no token', () => {
  const text = 'x y { a model b {\nblock c { } } activation f(x) = x model m { } let z = 3 nonsense';
  const sections = outline(text, 'test.mal');
  assert.equal(
    sections.map(({ tokens }) => tokens[0]!.text),
    ['x', 'block', 'activation', 'model', 'let'],
  );
  assert.is(
    sections.reduce((count, { tokens }) => count + tokens.length, 0),
    tokenize(text).length,
  );
});

lexical.run();
properties.run();
formulas.run();
places.run();
