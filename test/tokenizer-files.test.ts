// Tokenizers of every kind against what the Hugging Face library made of them: test/fixtures/tokenizers.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodePieces } from '../runtime/tokenizer/encode.ts';
import { parseTokenizer } from '../runtime/tokenizer/json.ts';
import { type SplitName, safeCut, splitNames, splits } from '../runtime/tokenizer/split.ts';
import { encodePiece } from '../runtime/tokenizer/text-piece.ts';
import { Threads } from '../runtime/tokenizer/threads.ts';
import type { Tokenizer } from '../runtime/tokenizer/tokenizer.ts';
import { trainTokenizer, trainTokenizerInThreads } from '../runtime/tokenizer/train.ts';

fc.configureGlobal({ includeErrorInReport: true, seed: 30, numRuns: 300 });

const fixture = (name: string) =>
  readFileSync(new URL(`fixtures/tokenizers/${name}.jsonl`, import.meta.url), 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line));

type Case = [text: string, ids: number[], withMarks: number[], decoded: string];
const kinds: { name: string; json: object; cases: Case[] }[] = fixture('files');

const files = suite('tokenizer.json of every kind');

for (const { name, json, cases } of kinds) {
  const tokenizer = () => parseTokenizer(JSON.stringify(json), name);

  files(`${name}: ids, marks and texts are those of the Hugging Face library`, () => {
    const read = tokenizer();
    for (const [text, ids, withMarks, decoded] of cases) {
      assert.equal([...read.encode(text)], ids, JSON.stringify(text));
      assert.equal([...read.encode(text, { marks: true })], withMarks, JSON.stringify(text));
      assert.is(read.decode(ids), decoded);
    }
  });

  files(`${name}: token by token, the text is the same`, () => {
    const read = tokenizer();
    for (const [, ids, , decoded] of cases) {
      const stream = read.streamDecoder();
      assert.is(ids.map(id => stream.push(id)).join('') + stream.end(), decoded);
    }
  });
}

const learning = suite('merges');

for (const [index, { merges, ...options }] of fixture('training').entries())
  learning(`are those of the Hugging Face library, in its order: text ${index}`, () => {
    const trained = JSON.parse(trainTokenizer([options.text], options).json);
    assert.equal(trained.model.merges, merges);
  });

const splitting = suite('scanners of words');

/** The patterns as JavaScript has them, with Unicode's white space and both cases of contractions spelled out. */
const patterns: Record<SplitName, RegExp> = (() => {
  const space = '\\p{White_Space}';
  const other = `[^${space}\\p{L}\\p{N}]`;
  const contraction = "'[sS\\u017F]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
  const blanks = `${space}+(?!\\P{White_Space})|${space}+`;
  const cl100k = (numbers: string) =>
    new RegExp(
      `${contraction}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${numbers}| ?${other}+[\\r\\n]*|${space}*[\\r\\n]+|${blanks}`,
      'gu',
    );
  return {
    gpt2: new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?${other}+|${blanks}`, 'gu'),
    cl100k: cl100k('\\p{N}{1,3}'),
    llama3: cl100k('\\p{N}{1,3}'),
    qwen2: cl100k('\\p{N}'),
  };
})();

const letters = [
  ..."'''strevmldSTREVMLDſ",
  ...'  \n\r\t\u0085\u00a0\u3000\u200b',
  ...'aé日😀ªٱ',
  ...'12½٣',
  ...'.,-!€₪\u0301',
];
const texts = fc.string({ unit: fc.constantFrom(...letters), maxLength: 40 });

function words(text: Uint8Array, split: SplitName): string[] {
  const found: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = splits[split].wordEnd(text, start, text.length);
    found.push(Buffer.from(text.subarray(start, end)).toString());
    start = end;
  }
  return found;
}

splitting('cut as the patterns do', () => {
  for (const split of splitNames)
    fc.assert(
      fc.property(texts, text => assert.equal(words(Buffer.from(text), split), text.match(patterns[split]) ?? [])),
    );
});

splitting('cut a text that was cut at a safe place as they cut the whole', () => {
  for (const split of splitNames)
    fc.assert(
      fc.property(texts, texts, (before, after) => {
        const text = Buffer.from(`${before}x ${after}`);
        for (let place = safeCut(text, 0, text.length); place > 0; place = safeCut(text, 0, place - 1))
          assert.equal(
            [...words(text.subarray(0, place), split), ...words(text.subarray(place), split)],
            words(text, split),
          );
      }),
    );
});

const threading = suite('threads');

const prose = 'the cat sat on the mat.\nThe cat, the hat!\n naïve cafés and 日本語 and 😀😀 <|endoftext|> 1234\n\n';

/** The text in pieces of about `length` bytes, cut as lines end. */
function* pieces(text: string, length: number): Generator<Uint8Array<ArrayBuffer>> {
  const lines = text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  let piece = '';
  for (const line of lines) {
    piece += line;
    if (piece.length < length) continue;
    yield new Uint8Array(Buffer.from(piece));
    piece = '';
  }
  if (piece !== '') yield new Uint8Array(Buffer.from(piece));
}

threading('learn what one thread learns', async () => {
  const text = prose.repeat(50);
  const told: string[] = [];
  const trained = await trainTokenizerInThreads(pieces(text, 500), {
    vocabSize: 320,
    onProgress: ({ phase, done }) => told.push(`${phase} ${done}`),
  });
  assert.is(trained.json, trainTokenizer([text], { vocabSize: 320 }).json);
  assert.ok(told.includes(`count ${Buffer.byteLength(text)}`));
  assert.is(told.at(-1), `merge ${trained.vocabularySize}`);
});

const joined = async (ids: AsyncIterable<Int32Array>) => {
  const all: number[] = [];
  for await (const piece of ids) all.push(...piece);
  return all;
};

threading('encode what one thread encodes, in its order', async () => {
  const tokenizer: Tokenizer = trainTokenizer([prose.repeat(9)], { vocabSize: 320, split: 'llama3' });
  const text = prose.repeat(40);
  function* cut() {
    const bytes = Buffer.from(text);
    for (let start = 0; start < bytes.length; ) {
      const place = safeCut(bytes, start, start + 700);
      const end = place === -1 || start + 700 >= bytes.length ? bytes.length : place;
      yield { text: new Uint8Array(bytes.subarray(start, end)), breaks: [] };
      start = end;
    }
  }
  for (const bytes of [text.length, 2 ** 30])
    assert.equal(await joined(encodePieces(cut(), tokenizer, bytes)), [...tokenizer.encode(text)]);
});

threading('encode texts after one another, each by itself, with the mark between them', () => {
  const tokenizer = trainTokenizer([prose.repeat(9)], { vocabSize: 320 });
  const texts = ['one two ', ' two three', 'three', 'four'];
  const ends = texts.map((_, index) => Buffer.byteLength(texts.slice(0, index + 1).join('')));
  const piece = { text: new Uint8Array(Buffer.from(texts.join(''))), breaks: ends.slice(0, -1) };
  const expected = texts.flatMap((text, index) => [
    ...(index > 0 ? [tokenizer.endOfText!] : []),
    ...tokenizer.encode(text),
  ]);
  assert.equal([...encodePiece(piece, tokenizer)], expected);
  const begun = { text: new Uint8Array(Buffer.from('one')), breaks: [0] };
  assert.equal([...encodePiece(begun, tokenizer)], [tokenizer.endOfText, ...tokenizer.encode('one')]);
});

threading('give errors back, and end when closed', async () => {
  const threads = new Threads({ tokenizer: '{}' });
  const piece = { text: new Uint8Array(Buffer.from('a')), breaks: [] };
  const failed = await threads.run('encode', piece).then(
    () => null,
    error => error,
  );
  assert.match(failed.message, /model is missing/);
  assert.is(failed.name, 'UserError');
  const waiting = threads.run('encode', piece).catch(error => error.message);
  await threads.close();
  assert.match(await waiting, /ended before its work|model is missing/);
});

for (const each of [files, learning, splitting, threading]) each.run();
