// No property is ever ignored: each of the checker's tables is walked, each property is given several values under each of
// its names, and every value must make another program or be refused in a message that names the property (in a sum of
// several dimensions, by its first name).
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, graphsOf } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { type PropertyRule, type PropertyTable, tables } from '../compiler/check/properties.ts';
import { formulaLibrary, normTable, standardLibrary } from '../compiler/check/standard-library.ts';
import { printGraph } from '../compiler/graph/print.ts';
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
  ssm brief { state_dim: 3 }
  ssm long { state_dim: 5 }
  ffn small { hidden_dim: 8 }
  ffn large { hidden_dim: 16 }
  block one { attention { window_size: 3 } }
  block other { attention { window_size: 4 } }`;

/** Where the properties of each kind of definition stand in a file. */
const places: Record<keyof typeof tables, (properties: string) => string> = {
  attention: properties => places.block(`attention { ${properties} }`),
  ssm: properties => places.block(`ssm { ${properties} }`),
  ffn: properties => places.block(`ffn { ${properties} }`),
  block: properties => places.model(`hidden_size: 96 block { ${properties} }`),
  model: properties => `${definitions} model m { ${properties} }`,
};

/** Without these a property has nothing to act on, and is refused for that. */
const companions: Readonly<Record<string, string>> = {
  qk_norm_over: 'qk_norm: true',
  groups: 'top_groups: 2',
  top_groups: 'groups: 4',
};

/** Of properties that their group is nothing without, values that go together. */
const requiredValues: Readonly<Record<string, number>> = {
  experts: 24,
  top_k: 2,
  kv_latent: 16,
  nope_head_dim: 8,
  rope_head_dim: 4,
  original_max_positions: 4096,
};

/** Values for properties of which some of the usual ones mean the same. */
const tellingValues: Readonly<Record<string, readonly string[]>> = {
  // Below some hundreds yarn stretches every frequency.
  original_max_positions: [': 256', ': 1024', ': 4096'],
};

const references: Readonly<Record<string, readonly string[]>> = {
  attention: ['narrow', 'wide', '{ head_dim: 4 }'],
  ssm: ['brief', 'long', '{ state_dim: 4 }'],
  ffn: ['small', 'large', '{ hidden_dim: 4 }'],
  block: ['one', 'other', '{ residual: false }'],
};

/** The program of a model: its graphs, what they are trained from, and what acts beside them. */
function programOf(model: Model): string {
  const program = buildProgram(model, formulaLibrary(model));
  const { embedding, blocks, head, modules } = program;
  const stages = [embedding, ...blocks, head, ...(modules ? [modules.join, modules.head] : [])];
  const beside = {
    description: model.description,
    // The most that the program can be asked for.
    length: model.max_seq_len,
    layers: model.layers,
    // How often the modules' functions run, and the share of their losses.
    mtp: model.mtp,
    // Of the optimizer.
    rates: model.blocks.map(({ ffn }) => (ffn?.moe?.balance.kind === 'aux_free' ? ffn.moe.balance.rate : null)),
  };
  return [
    JSON.stringify(beside),
    ...stages.map(({ parameters }) => JSON.stringify(parameters)),
    ...graphsOf(program).map(printGraph),
  ].join('\n');
}

/** The program of a text, or what is said against it. */
function outcome(text: string): { program: string | null; messages: string } {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  assert.equal(diagnostics, [], text);
  const { model, diagnostics: found } = check(syntax);
  return { program: model && programOf(model), messages: found.map(({ message }) => message).join('\n') };
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
      return Object.entries(type.choices).map(([word, table]) => `: ${word} { ${requiredOf(table)} }`);
    case 'definition':
      return [...references[type.of]!, ...(type.none ? ['none'] : [])].map(value => `: ${value}`);
    case 'list':
      return [': [one]', ': [other]', ': [one, other, one]'];
    case 'activation':
      return (
        standardLibrary()
          .namesOf('activation')
          // Which is elu.
          .filter(name => name !== 'celu')
          .map(name => `: ${name}`)
      );
    case 'norm':
      return [...standardLibrary().namesOf('norm'), 'none'].map(name => `: ${name}`);
    case 'formula':
      return type.of === 'score' ? [': half', ': less'] : [': near', ': even'];
    case 'group':
      return [` { ${requiredOf(type.table)} }`];
    case 'unsupported':
      return [': 1', ' { }'];
  }
}

/** A table's required properties but one. */
const requiredOf = (table: PropertyTable, except: string | null = null) =>
  Object.entries(table)
    .filter(([name, { required }]) => required && name !== except)
    .map(([name]) => `${name}: ${requiredValues[name] ?? 2}`)
    .join(' ');

/** The tables of properties inside a property, and where their properties stand. */
function within(name: string, { type }: PropertyRule): (readonly [PropertyTable, (properties: string) => string])[] {
  if (type.kind === 'group') return [[type.table, properties => `${name} { ${properties} }`]];
  if (type.kind === 'choice')
    return Object.entries(type.choices).map(([word, table]) => [
      table,
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
    const base = rule.required ? null : outcome(place(context)).program;
    for (const name of [canonical, ...(rule.aliases ?? [])]) {
      const seen = new Map<string, string>();
      let acted = rule.type.kind === 'group' && !rule.optional;
      for (const value of tellingValues[canonical] ?? valuesOf(rule)) {
        const text = place(`${context} ${name}${value}`);
        const { program, messages } = outcome(text);
        tried++;
        if (program === null)
          assert.ok(messages.includes(name) || messages.includes(canonical), `${text}: ${messages}`);
        else if (seen.has(program)) assert.unreachable(`${name}${value} is as ${name}${seen.get(program)} in ${text}`);
        else seen.set(program, value);
        acted ||= program === null || program !== base;
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
    assert.ok(tried >= 20, `${tried}`);
  });

test('a property that is refused says so whatever its value is', () => {
  for (const text of ['memory { tier fast { x: 1 } }', 'memory: 3', 'attention { causal: false }'])
    assert.match(outcome(places.block(text)).messages, 'is not supported in this version');
});

test.run();
