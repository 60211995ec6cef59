// Whatever is read, the outcome is a model or an error that can be shown: never a fault of the compiler, and never a wait.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { cacheSize, flopsPerToken } from '../compiler/check/cost.ts';
import { countParameters } from '../compiler/check/count.ts';
import { checkFile } from '../compiler/check/index.ts';
import { readModel, wellKnownModels } from '../compiler/check/read-model.ts';
import { SourceError } from '../compiler/diagnostic.ts';
import { packagePath, readPackageFile } from '../compiler/package-files.ts';
import { format } from '../compiler/syntax/format.ts';
import { parse } from '../compiler/syntax/parse.ts';

fc.configureGlobal({ includeErrorInReport: true });

/** Reads a text as the commands do: its models are counted, its diagnostics shown. */
function survives(text: string): void {
  const { syntax, diagnostics } = parse(text, 'fuzz.mal');
  const checked = checkFile(syntax);
  const { message } = new SourceError([...diagnostics, ...checked.diagnostics], new Map([['fuzz.mal', text]]));
  assert.is(typeof message, 'string');
  if (diagnostics.length === 0 && text.length < 10_000) assert.is(typeof format(text, 'fuzz.mal'), 'string');
  for (const model of checked.models) {
    const { perToken, constant } = cacheSize(model);
    const numbers = [countParameters(model).active, flopsPerToken(model, model.max_seq_len), perToken + constant];
    assert.ok(
      numbers.every(number => Number.isFinite(number) && number >= 0),
      `${numbers} of ${text}`,
    );
  }
}

const foldersOf = (folder: string) => readdirSync(folder).filter(name => name.endsWith('.mal'));
const examples = foldersOf(packagePath('mal/examples')).map(file => readPackageFile(join('mal/examples', file)));
const library = [...wellKnownModels().map(name => readModel(name).text), ...examples];
const formulas = ['activations', 'norms'].map(name => readFileSync(packagePath(`mal/std/${name}.mal`), 'utf8'));
const errorFolder = join(dirname(fileURLToPath(import.meta.url)), 'errors');
const wrong = foldersOf(errorFolder).map(file => readFileSync(join(errorFolder, file), 'utf8'));
const texts = [...library, ...formulas, ...wrong];
const pieces = [...new Set(texts.flatMap(text => text.match(/[\w.-]+|[^\s\w]/g)!))];

const survival = suite('any input');

survival('text of any characters', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 300 }), survives), { numRuns: 300, seed: 1 });
});

survival('bytes that are no text', () => {
  const bytes = fc.uint8Array({ maxLength: 300 }).map(array => Buffer.from(array).toString('utf8'));
  fc.assert(fc.property(bytes, survives), { numRuns: 300, seed: 2 });
});

survival('words of the language in any order', () => {
  const text = fc.array(fc.constantFrom(...pieces, '\n'), { maxLength: 60 }).map(words => words.join(' '));
  fc.assert(fc.property(text, survives), { numRuns: 300, seed: 3 });
});

survival('files with a part cut, doubled or replaced', () => {
  const mutation = fc.record({
    text: fc.constantFrom(...texts),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.nat(20),
    insert: fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 3 })),
    doubled: fc.boolean(),
  });
  const mutated = mutation.map(({ text, at, length, insert, doubled }) => {
    const start = Math.floor(at * text.length);
    const end = start + length;
    return text.slice(0, start) + insert + text.slice(doubled ? start - length : end);
  });
  fc.assert(fc.property(mutated, survives), { numRuns: 300, seed: 4 });
});

survival('right files with other numbers and words in their places', () => {
  const extremes = [
    '0',
    '1',
    '2',
    '3',
    '-1',
    '0.5',
    '1e-300',
    '1e308',
    '1e999',
    '2147483647',
    '9007199254740993',
    'none',
  ];
  const change = fc.record({
    text: fc.constantFrom(...library),
    picks: fc.array(fc.tuple(fc.nat(), fc.constantFrom(...extremes, ...pieces)), { minLength: 1, maxLength: 4 }),
  });
  const changed = change.map(({ text, picks }) => {
    const values = [...text.matchAll(/(?<=: ?)[\w.]+/g)];
    const replaced = new Map(picks.map(([pick, value]) => [pick % values.length, value]));
    let count = 0;
    return text.replace(/(?<=: ?)[\w.]+/g, value => replaced.get(count++) ?? value);
  });
  fc.assert(fc.property(changed, survives), { numRuns: 300, seed: 5 });
});

survival('nesting and length without end', () => {
  const depth = 20_000;
  for (const open of ['(', '-', 'x^', 'x+', 'x>0?x:', 'exp(', '!', '2*-('])
    survives(`activation f(x) = ${open.repeat(depth)}x`);
  for (const open of ['{', 'a { ', 'a: b { ', '[']) survives(`model m { ${open.repeat(depth)}`);
  for (const limit of [32, 200])
    survives(`activation f(x) = ${'('.repeat(31)}${'-'.repeat(limit)}x${')'.repeat(31)} model m { }`);
  survives(`activation f(x) = ${'x>0?x:(-'.repeat(31)}x${')'.repeat(31)} model m { }`);
  for (const open of ['1 + ', '-', '(', 'd * ', '[2 * ']) survives(`let d = 2 model m { layers: ${open.repeat(depth)}`);
  survives(Array.from({ length: 3000 }, (_, n) => `function f${n}(x) = f${n + 1}(x)`).join('\n'));
  survives('"'.repeat(depth));
  survives(`model m { num_layers: ${'9'.repeat(400)} }`);
});

/** Each of these takes seconds, some minutes, where work grows with the square of the text. */
survival('tens of thousands of characters of one kind', () => {
  const lines = (count: number, line: (n: number) => string) =>
    Array.from({ length: count }, (_, n) => line(n)).join('\n');
  survives(lines(1000, n => `model m${n} { num_layers: 9999 }`));
  survives(`block b { } model m { layers: [${'b, '.repeat(30_000)}] }`);
  survives(`block b { } model m { layers: [${'b, '.repeat(3_000)}] }`);
  survives(`${lines(1000, n => `ffn f${n} { }`)}\n${lines(1000, n => `block b${n} { ffn: g${n} }`)}`);
  survives(`model m { ${lines(3000, n => `vocab_siz${n}: 3`).replaceAll('\n', ' ')} }`);
  survives(lines(1500, n => `model m { a${n} : ${n} }`).replaceAll('\n', ' '));
  survives(`${'ffn f { }\n'.repeat(4_000)}ffn f { x }`);
  survives(`${lines(2000, n => `let a${n} = ${n}`)}\nmodel m { vocab_size: a2000 }`);
});

survival.run();
