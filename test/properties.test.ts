// No property is ever ignored: each of the checker's tables is walked, each property is given several values under each of
// its names, and every value must make another Model or be refused in a message that names the property (in a sum of several dimensions, by its first name).
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { type PropertyRule, type PropertyTable, tables } from '../compiler/check/properties.ts';
import { normTable, standardLibrary } from '../compiler/check/standard-library.ts';
import { parse } from '../compiler/syntax/parse.ts';

const test = suite('no property is ignored');

/** What values refer to. The blocks differ, so that a model of one is not that of the other. */
const definitions = `
  score half(score, query, key, head) = score / 2
  score less(score, query, key, head) = score - 1
  mask near(query, key) = key <= query && query - key < 5
  mask even(query, key) = key <= query && key != 3
  attention narrow { head_dim: 2 }
  attention wide { head_dim: 64 }
  ffn small { hidden_dim: 8 }
  ffn large { hidden_dim: 16 }
  block one { attention { window_size: 3 } }
  block other { attention { window_size: 4 } }`;

/** Where the properties of each kind of definition stand in a file. */
const places: Record<keyof typeof tables, (properties: string) => string> = {
  attention: properties => places.block(`attention { ${properties} }`),
  ffn: properties => places.block(`ffn { ${properties} }`),
  block: properties => places.model(`hidden_size: 96 block { ${properties} }`),
  model: properties => `${definitions} model m { ${properties} }`,
};

/** Without these a property has nothing to act on, and is refused for that. */
const companions: Readonly<Record<string, string>> = { qk_norm_over: 'qk_norm: true' };

const references: Readonly<Record<string, readonly string[]>> = {
  attention: ['narrow', 'wide', '{ head_dim: 4 }'],
  ffn: ['small', 'large', '{ hidden_dim: 4 }'],
  block: ['one', 'other', '{ residual: false }'],
};

/** The Model without the places that it came from, or what is said against it. */
function outcome(text: string): { model: string | null; messages: string } {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  assert.equal(diagnostics, [], text);
  const checked = check(syntax);
  const model = checked.model && JSON.stringify(checked.model, (key, value) => (key === 'origin' ? undefined : value));
  return { model, messages: checked.diagnostics.map(({ message }) => message).join('\n') };
}

/** Different values for a property; each is a text that follows its name. */
function valuesOf({ type }: PropertyRule): readonly string[] {
  switch (type.kind) {
    case 'integer':
      return [': 4', ': 6', ': 24', ': 4096'];
    case 'number':
      return [': 0.25', ': 1.5', ': 50'];
    case 'boolean':
      return [': true', ': false'];
    case 'string':
      return [': "one text"', ': "another"'];
    case 'word':
      return type.words.map(word => `: ${word}`);
    case 'choice':
      return Object.entries(type.choices).map(([word, table]) => `: ${word} { ${requiredOf(table ?? {})} }`);
    case 'definition':
      return references[type.of]!.map(value => `: ${value}`);
    case 'list':
      return [': [one]', ': [other]', ': [one, other, one]'];
    case 'activation':
      return standardLibrary()
        .namesOf('activation')
        .map(name => `: ${name}`);
    case 'norm':
      return [...standardLibrary().namesOf('norm'), 'none'].map(name => `: ${name}`);
    case 'formula':
      return type.of === 'score' ? [': half', ': less'] : [': near', ': even'];
    case 'group':
      return [' { }'];
    case 'unsupported':
      return [': 1', ' { }'];
  }
}

/** A table's required properties but one. */
const requiredOf = (table: PropertyTable, except: string | null = null) =>
  Object.entries(table)
    .filter(([name, { required }]) => required && name !== except)
    .map(([name, { type }]) => `${name}: ${type.kind === 'integer' ? 64 : 2}`)
    .join(' ');

/** The tables of properties inside a property, and where their properties stand. */
function within(name: string, { type }: PropertyRule): (readonly [PropertyTable, (properties: string) => string])[] {
  if (type.kind === 'group') return [[type.table, properties => `${name} { ${properties} }`]];
  if (type.kind === 'choice')
    return Object.entries(type.choices).map(([word, table]) => [
      table ?? {},
      properties => `${name}: ${word} { ${properties} }`,
    ]);
  if (type.kind === 'norm')
    return standardLibrary()
      .namesOf('norm')
      .map(norm => [normTable(standardLibrary().get(norm)!), properties => `${name}: ${norm} { ${properties} }`]);
  return [];
}

let tried = 0;

function walk(table: PropertyTable, place: (properties: string) => string): void {
  for (const [canonical, rule] of Object.entries(table)) {
    const context = `${companions[canonical] ?? ''} ${requiredOf(table, canonical)}`;
    const base = rule.required ? null : outcome(place(context)).model;
    for (const name of [canonical, ...(rule.aliases ?? [])]) {
      const seen = new Map<string, string>();
      let acted = rule.type.kind === 'group';
      for (const value of valuesOf(rule)) {
        const text = place(`${context} ${name}${value}`);
        const { model, messages } = outcome(text);
        tried++;
        if (model === null) assert.ok(messages.includes(name) || messages.includes(canonical), `${text}: ${messages}`);
        else if (seen.has(model)) assert.unreachable(`${name}${value} is as ${name}${seen.get(model)} in ${text}`);
        else seen.set(model, value);
        acted ||= model === null || model !== base;
      }
      assert.ok(acted, `${name} does nothing in ${place('')}`);
    }
    for (const [inner, wrap] of within(canonical, rule))
      walk(inner, properties => place(`${context} ${wrap(properties)}`));
  }
}

for (const [kind, table] of Object.entries(tables) as [keyof typeof tables, PropertyTable][])
  test(kind, () => {
    tried = 0;
    walk(table, places[kind]);
    assert.ok(tried > 20);
  });

test('a property that is refused says so whatever its value is', () => {
  for (const text of ['attention { kind: mla { kv_latent: 3 } }', 'ffn { moe { experts: 2 } }', 'ssm { d_state: 4 }'])
    assert.match(outcome(places.block(text)).messages, 'is not supported in this version');
});

test.run();
