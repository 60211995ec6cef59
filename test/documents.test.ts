// Documents out of every format: what they hold, in order, with their places; what is no text, counted or refused by name;
// and the corpus that a run makes of them.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { trainTokenizer } from '../runtime/commands/train-tokenizer.ts';
import { documentParts, filesOf, placeOf } from '../runtime/data/documents/documents.ts';
import { Seen } from '../runtime/data/documents/seen.ts';
import { Skipped } from '../runtime/data/documents/skipped.ts';
import { Surveyor } from '../runtime/data/documents/survey.ts';
import { previewOf } from '../runtime/data/preview.ts';
import { type TokenStream, writeTokens } from '../runtime/data/tokens.ts';
import { showTokens } from '../runtime/show/token-colors.ts';
import { tokenizerHash } from '../runtime/tokenizer/json.ts';
import { trainTokenizer as learnHere } from '../runtime/tokenizer/train.ts';
import { readCorpus } from '../runtime/train/corpus.ts';
import { streamOf } from './fixtures/stream-of.ts';

const test = suite('documents');
const folder = mkdtempSync(join(tmpdir(), 'malc-documents-'));
const path = (name: string) => join(folder, name);
// What an earlier run of the tests has made is not taken.
process.env.MALC_CACHE = path('cache');
test.after(() => rmSync(folder, { recursive: true }));

/** A table of two groups of rows, packed with Zstandard: text "row one", "row two", null, "row four"; id 1 to 4. */
const table = join(import.meta.dirname, 'fixtures/rows.parquet');
/** "One text, packed." three times, as `zstd` packs it. */
const packed = Buffer.from('KLUv/SA2xQAAkE9uZSB0ZXh0LCBwYWNrZWQuCgEAFjnD', 'base64');

async function read(file: string, skipped: string[] | null = [], textField = 'text') {
  const documents: { text: string; place: string }[] = [];
  const onSkipped = skipped && ((place: string, why: string) => void skipped.push(`${place}: ${why}`));
  for await (const { bytes, begins, number } of documentParts(file, { textField, onSkipped }, false)) {
    if (begins) documents.push({ text: '', place: placeOf(file, number) });
    documents.at(-1)!.text += Buffer.from(bytes).toString();
  }
  return documents;
}

async function refuses(work: () => Promise<unknown>, says: RegExp): Promise<void> {
  const error = await work().then(
    () => null,
    fault => fault,
  );
  assert.instance(error, UserError, String(error));
  assert.match(error.message, says);
}

test('texts are whole, packed or not', async () => {
  writeFileSync(path('a.txt'), 'line 1\nline 2\n');
  writeFileSync(path('b.txt.gz'), gzipSync('packed: ü\n'.repeat(200_000)));
  writeFileSync(path('c.txt.zst'), Buffer.concat([packed, packed]));
  assert.equal(await read(path('a.txt')), [{ text: 'line 1\nline 2\n', place: path('a.txt') }]);
  assert.is((await read(path('b.txt.gz')))[0]!.text, 'packed: ü\n'.repeat(200_000));
  assert.is((await read(path('c.txt.zst')))[0]!.text, 'One text, packed.\n'.repeat(6));
});

test('of JSON lines the field is the text; other lines are told with their place', async () => {
  const lines = [
    '\uFEFF{"text":"one\\ntwo"}',
    '{broken',
    '',
    '{"body":"three"}',
    '[1]',
    '{"text":""}',
    '{"text":"four"}',
  ];
  writeFileSync(path('d.jsonl'), `${lines.join('\r\n')}`);
  writeFileSync(path('d.jsonl.gz'), gzipSync(lines.join('\n')));
  for (const name of ['d.jsonl', 'd.jsonl.gz']) {
    const skipped: string[] = [];
    const documents = await read(path(name), skipped);
    assert.equal(
      documents.map(({ text, place }) => [text, place]),
      [
        ['one\ntwo', `${path(name)}:1`],
        ['four', `${path(name)}:7`],
      ],
    );
    assert.equal(
      skipped.map(line => line.slice(path(name).length)),
      [
        skipped[0]!.slice(path(name).length),
        ":4: the object has no text 'text'; texts are in body (--text-field)",
        ':5: the line is no JSON object',
        ":6: its 'text' is empty",
      ],
    );
    assert.match(skipped[0]!, /:2: the line is no JSON \(/);
  }
  assert.equal((await read(path('d.jsonl'), [], 'body'))[0]!.text, 'three');
  await refuses(() => read(path('d.jsonl'), null), /d\.jsonl:2: the line is no JSON/);
  writeFileSync(path('latin.jsonl'), Buffer.from('{"text":"caf\xe9"}\n', 'latin1'));
  await refuses(() => read(path('latin.jsonl')), /latin\.jsonl:1: the line is not UTF-8/);
});

test('of a table the column is the text, row by row', async () => {
  const skipped: string[] = [];
  assert.equal(await read(table, skipped), [
    { text: 'row one', place: `${table}: row 1` },
    { text: 'row two', place: `${table}: row 2` },
    { text: 'row four', place: `${table}: row 4` },
  ]);
  assert.equal(skipped, [`${table}: row 3: its 'text' is no text`]);
  await refuses(() => read(table, [], 'body'), /has no column 'body'; it has text, id \(--text-field\)/);
  const torn = readFileSync(table).fill(0xff, 4, 120);
  writeFileSync(path('bad.parquet'), torn);
  await refuses(() => read(path('bad.parquet')), /bad\.parquet: rows 1 to 2 cannot be read: /);
  writeFileSync(path('torn.parquet'), readFileSync(table).subarray(0, 500));
  await refuses(() => read(path('torn.parquet')), /cannot be read as Parquet: /);
});

test('what cannot be unpacked or read is said by name', async () => {
  writeFileSync(path('torn.txt.gz'), gzipSync('a text').subarray(0, 15));
  writeFileSync(path('not.txt.zst'), 'no Zstandard');
  writeFileSync(path('array.json'), '[]');
  await refuses(() => read(path('torn.txt.gz')), /torn\.txt\.gz cannot be unpacked/);
  await refuses(() => read(path('not.txt.zst')), /not\.txt\.zst cannot be unpacked/);
  await refuses(() => read(path('array.json')), /jq -c '\.\[\]'/);
  await refuses(() => read(path('none.jsonl')), /there is no file .*none\.jsonl/);
  mkdirSync(path('folder.txt.gz'));
  await refuses(() => read(path('folder.txt.gz')), /folder\.txt\.gz is a folder/);
});

test('a folder stands for its files that have text, by name', async () => {
  mkdirSync(path('tree/inner'), { recursive: true });
  for (const name of ['z.txt', 'inner/a.jsonl.gz', 'b.md', 'picture.png']) writeFileSync(path(`tree/${name}`), 'x');
  assert.equal(
    filesOf(path('tree')).map(file => file.slice(folder.length)),
    ['/tree/b.md', '/tree/inner/a.jsonl.gz', '/tree/z.txt'],
  );
  mkdirSync(path('empty'));
  await refuses(async () => filesOf(path('empty')), /holds no file with text in it/);
});

const corpusOf = (paths: readonly string[], more = {}) =>
  readCorpus(paths, {
    validationShare: 0.25,
    tokenizer: null,
    vocabularySize: 300,
    textField: null,
    onSkipped: null,
    ...more,
  });

/** All tokens of a stream. */
function tokensOf(stream: TokenStream): Int32Array {
  const tokens = new Int32Array(stream.length);
  stream.read(0, tokens.length, tokens, 0);
  return tokens;
}

test('a corpus holds out the last documents of each file, and keeps documents apart', async () => {
  const texts = ['first text', 'second text', 'third text', 'fourth text'];
  writeFileSync(path('four.jsonl'), texts.map(text => `${JSON.stringify({ text })}\n`).join(''));
  const corpus = await corpusOf([path('four.jsonl')]);
  const { tokenizer } = corpus;
  const [training, validation] = [tokensOf(corpus.training), tokensOf(corpus.validation)];
  const marks = training.filter(token => token === tokenizer.endOfText).length;
  assert.equal([corpus.documents, marks], [4, 2]);
  assert.is(tokenizer.decode(training.filter(token => token !== tokenizer.endOfText)), texts.slice(0, 3).join(''));
  assert.is(tokenizer.decode(validation), 'fourth text');
  assert.is(corpus.validationBytes, 'fourth text'.length);
});

test('a corpus of tokens needs their tokenizer, and only tokens', async () => {
  const { tokenizer } = await corpusOf([path('a.txt')]);
  const forty = Array.from({ length: 40 }, (_, n) => n);
  const source = { tokenizer: tokenizerHash(tokenizer), text: '', vocabularySize: 300 };
  writeTokens(path('t.bin'), streamOf(forty), source);
  const corpus = await corpusOf([path('t.bin')], { tokenizer });
  assert.equal([corpus.training.length, corpus.validation.length, corpus.validationBytes], [30, 10, null]);
  mkdirSync(path('prepared'));
  writeTokens(path('prepared/train.bin'), streamOf(forty), source);
  writeTokens(path('prepared/val.bin'), streamOf(forty.slice(0, 7)), source);
  const prepared = await corpusOf([path('prepared/train.bin')], { tokenizer });
  assert.equal([prepared.training.length, prepared.validation.length], [40, 7], 'what was held out before');
  const all = await corpusOf([path('prepared/train.bin')], { tokenizer, validationShare: 0 });
  assert.equal([all.training.length, all.validation.length], [40, 0]);
  await refuses(() => corpusOf([path('t.bin')]), /holds tokens; give with --tokenizer/);
  await refuses(() => corpusOf([path('t.bin'), path('a.txt')], { tokenizer }), /a\.txt is text and others are tokens/);
  writeTokens(path('o.bin'), streamOf(forty), { ...source, tokenizer: 'of another' });
  await refuses(() => corpusOf([path('o.bin')], { tokenizer }), /o\.bin was made with another tokenizer/);
  writeTokens(path('u.bin'), streamOf([1, 60_000]), source);
  await refuses(() => corpusOf([path('u.bin')], { tokenizer }), /token 1 is 60000; the tokenizer has \d+/);
});

test('a corpus may have more documents than a call has arguments', async () => {
  const count = 150_000;
  writeFileSync(path('many.jsonl'), '{"text":"a b"}\n'.repeat(count));
  assert.is((await corpusOf([path('many.jsonl')])).documents, count);
});

test('the lines of a corpus are whole characters', async () => {
  writeFileSync(path('pairs.txt'), `a${'😀'.repeat(20_000)}\n`);
  const { tokenizer, lines } = await corpusOf([path('pairs.txt')], { validationShare: 0 });
  assert.is(tokenizer.decode(tokenizer.encode(lines[0]!)), lines[0]);
});

test('a tokenizer is learned from the texts of JSON lines, packed or not, as from a file of them', async () => {
  const texts = Array.from({ length: 300 }, (_, n) => `the cat sat on mat ${n}\n"and" so on, für ${n * n}`);
  writeFileSync(path('plain.txt'), texts.map(text => `${text}\n`).join(''));
  const lines = texts.map(body => `${JSON.stringify({ body, id: 1 })}\n`).join('');
  writeFileSync(path('texts.jsonl.gz'), gzipSync(`{broken\n${lines}`));
  writeFileSync(path('plain.txt.gz'), gzipSync(readFileSync(path('plain.txt'))));
  const learn = async (input: string, more = {}) => {
    const output = path('learned.json');
    await trainTokenizer.run({
      input: [path(input)],
      output,
      'vocab-size': 400,
      'min-frequency': 2,
      split: 'gpt2',
      ...more,
    });
    return readFileSync(output, 'utf8');
  };
  const expected = await learn('plain.txt');
  assert.is(await learn('plain.txt.gz'), expected);
  assert.is(await learn('texts.jsonl.gz', { 'text-field': 'body' }), expected);
  await refuses(() => learn('texts.jsonl.gz', { 'text-field': 'body', strict: true }), /gz:1: the line is no JSON/);
});

test('long texts teach and become in threads what they would here', async () => {
  const texts = Array.from({ length: 50 }, (_, n) => `some ${n} words, \n and  ${'more of them \n'.repeat(n * 300)} `);
  assert.ok(texts.join('\n').length > 2 ** 22 && texts.some(text => text.length > 2 ** 17));
  writeFileSync(path('long.jsonl'), texts.map(text => `${JSON.stringify({ text })}\n`).join(''));
  const { tokenizer, training } = await corpusOf([path('long.jsonl')], { validationShare: 0 });
  const here = learnHere([texts.join('\n')], { vocabSize: 300 });
  assert.is(tokenizer.json, here.json);
  const expected = texts.flatMap((text, n) => [...(n > 0 ? [here.endOfText!] : []), ...here.encode(text)]);
  assert.equal(tokensOf(training), Int32Array.from(expected));
});

test('what is no text, and a field that nothing has, are refused by name', async () => {
  await refuses(() => read(path('t.bin')), /t\.bin holds tokens/);
  mkdirSync(path('tokens'));
  writeFileSync(path('tokens/train.bin'), 'x');
  await refuses(async () => filesOf(path('tokens')), /given one by one, such as .*tokens\/train\.bin/);
  await refuses(
    () => corpusOf([path('a.txt')], { textField: 'body' }),
    /--text-field body is for JSON lines and tables/,
  );
});

/** Surveys texts that stand on the lines of a file. */
function surveyOf(texts: readonly string[]) {
  const surveyor = new Surveyor();
  for (const [n, text] of texts.entries())
    surveyor.add('f.jsonl', { bytes: new Uint8Array(Buffer.from(text)), begins: true, number: n + 1 });
  return surveyor.result();
}

test('a survey counts, measures and finds what is there twice', () => {
  const { documents, characters, lengths, duplicates, firstDuplicate, isExact } = surveyOf(['aa', 'b', 'cccc', 'aa']);
  assert.equal([documents, characters, duplicates, isExact], [4, 9, 1, true]);
  assert.equal(lengths, [1, 1, 2, 2, 4]);
  assert.equal(firstDuplicate, ['f.jsonl:4', 'f.jsonl:1']);
});

test('of more documents than can be remembered a share is, and says about how often all of them come again', () => {
  const seen = new Seen(100);
  // Scattered, as hashes are.
  const hashOf = (n: number) => Number((BigInt(n + 1) * 0x9e3779b97f4a7c15n) & (2n ** 53n - 1n));
  for (let time = 0; time < 3; time++) for (let n = 0; n < 5000; n++) seen.add(hashOf(n), n);
  assert.ok(seen.share >= 64 && seen.share <= 128, `${seen.share}`);
  assert.ok(Math.abs(seen.repeats / 10_000 - 1) < 0.3, `${seen.repeats}`);
  const spots = Array.from({ length: 5000 }, (_, n) => seen.add(hashOf(n), -1)).filter(spot => spot !== null);
  assert.ok(spots.length > 30 && spots.length <= 100);
});

test('a preview is of all files, text piece by piece and lines one by one', async () => {
  const text = 'one text, für alle\n'.repeat(120_000);
  writeFileSync(path('large.txt'), text);
  writeFileSync(path('some.jsonl'), '{"text":"one text"}\n{"text":"another"}\n{"text":"one text"}\n');
  const { tokenizer } = await corpusOf([path('a.txt')]);
  const told: string[] = [];
  const { survey, tokens, shown } = await previewOf([path('large.txt'), path('some.jsonl')], {
    reading: { textField: 'text', onSkipped: null, asLines: false },
    tokenizer,
    most: 2,
    onFile: file => void told.push(file),
    onProgress() {},
  });
  assert.equal(told, [path('large.txt'), path('some.jsonl')]);
  assert.equal([survey.documents, survey.characters], [4, text.length + 23]);
  assert.equal(
    survey.firstDuplicate,
    [3, 1].map(line => `${path('some.jsonl')}:${line}`),
  );
  const parts = [text, 'one text', 'another', 'one text'];
  assert.is(
    tokens,
    parts.reduce((sum, part) => sum + tokenizer.encode(part).length, 0),
  );
  assert.equal(shown, [
    { place: path('large.txt'), text: text.slice(0, 400) },
    { place: `${path('some.jsonl')}:1`, text: 'one text' },
  ]);
});

test('what is skipped is shown at first, and then counted', () => {
  const lines: string[] = [];
  const skipped = new Skipped(line => lines.push(line));
  for (let n = 1; n <= 8; n++) skipped.tell(`f:${n}`, 'no text');
  skipped.report();
  assert.is(lines.length, 7);
  assert.is(lines[5], '... and 3 more were skipped');
  assert.match(lines[6]!, /^8 in all were skipped; --strict/);
});

test('tokens are seen, with and without colors', () => {
  assert.is(showTokens(['a', '\n', ' b'], false), 'a|⏎| b');
  const [first, second] = showTokens(['a', 'b'], true).split('\u001b[0m');
  assert.ok(first!.endsWith('ma') && second!.endsWith('mb'));
  assert.is.not(first!.slice(0, -1), second!.slice(0, -1), 'neighbours differ');
});

test.run();
