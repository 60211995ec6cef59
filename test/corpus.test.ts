// A corpus of any size: what is divided, packed and encoded piece by piece is what the whole would be; it is made once, kept
// by content, and made again where that was not finished.
import { spawnSync } from 'node:child_process';
import fs, { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { divide } from '../runtime/data/divide.ts';
import type { DocumentPart } from '../runtime/data/documents/documents.ts';
import { utf16Length } from '../runtime/data/measure.ts';
import { Packer } from '../runtime/data/packing.ts';
import type { DataProgress } from '../runtime/data/progress.ts';
import { readTokenizer, writeTokenizer } from '../runtime/tokenizer/json.ts';
import type { TextPiece } from '../runtime/tokenizer/text-piece.ts';
import { trainTokenizer } from '../runtime/tokenizer/train.ts';
import { readCorpus } from '../runtime/train/corpus.ts';

fc.configureGlobal({ includeErrorInReport: true, seed: 8, numRuns: 200 });

const folder = mkdtempSync(join(tmpdir(), 'malc-corpus-'));
const path = (name: string) => join(folder, name);
process.env.MALC_CACHE = path('cache');
const data = path('cache/data');

async function refuses(work: () => Promise<unknown>, ...says: RegExp[]): Promise<void> {
  const error = await work().then(
    () => null,
    fault => fault,
  );
  assert.instance(error, UserError, String(error));
  for (const each of says) assert.match(error.message, each);
}

const dividing = suite('dividing');

/** Documents in parts of `length` characters each. */
async function* partsOf(texts: readonly string[], length: number): AsyncGenerator<DocumentPart> {
  for (const text of texts) {
    const characters = [...text];
    for (let start = 0; start < characters.length; start += length) {
      const part = characters.slice(start, start + length).join('');
      yield { bytes: new Uint8Array(Buffer.from(part)), begins: start === 0 };
    }
  }
}

async function divided(texts: readonly string[], share: number, length: number): Promise<[string[], string[]]> {
  const sides: [string[], string[]] = [[], []];
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  for await (const part of divide(partsOf(texts, length), { documents: texts.length, characters }, share)) {
    const side = sides[part.isHeldOut ? 1 : 0];
    const text = Buffer.from(part.bytes).toString();
    if (part.begins) side.push(text);
    else side[side.length - 1] += text;
  }
  return sides;
}

/** Where a whole text is cut: at the end of the line nearest to the share. */
function cutOf(text: string, share: number): number {
  const target = Math.round(text.length * (1 - share));
  const ends = [text.indexOf('\n', target) + 1, target === 0 ? 0 : text.lastIndexOf('\n', target - 1) + 1];
  const inside = ends.filter(end => end > 0 && end < text.length);
  const inPair = /[\udc00-\udfff]/.test(text[target] ?? '');
  return inside.sort((a, b) => Math.abs(a - target) - Math.abs(b - target))[0] ?? target + (inPair ? 1 : 0);
}

dividing('a text is cut at the end of the line nearest to the share, in whatever parts it comes', async () => {
  const text = fc.array(fc.constantFrom('a', 'word', ' ', '\n', '\n\n', 'ü', '😀', '你'), {
    minLength: 1,
    maxLength: 40,
  });
  const share = fc.constantFrom(0.01, 0.1, 0.25, 0.5, 0.9);
  await fc.assert(
    fc.asyncProperty(text, share, fc.integer({ min: 1, max: 50 }), async (words, share, length) => {
      const whole = words.join('');
      const cut = cutOf(whole, share);
      const expected = [whole.slice(0, cut), whole.slice(cut)].map(side => (side === '' ? [] : [side]));
      assert.equal(await divided([whole], share, length), expected);
    }),
  );
  assert.equal(await divided(['one line only'], 0.25, 4), [['one line o'], ['nly']]);
  assert.equal(await divided(['😀😀'], 0.25, 9), [['😀😀'], []]);
  assert.equal(await divided(['two\nlines'], 0, 2), [['two\nlines'], []]);
});

dividing('of documents the last are held out: those whose middle lies in the share, one at least', async () => {
  const texts = ['aaaa', 'bb', 'cccc', 'd', 'e'];
  assert.equal(await divided(texts, 0.25, 99), [texts.slice(0, 3), texts.slice(3)]);
  assert.equal(await divided(['a', 'b', 'c'.repeat(99)], 0.1, 99), [['a', 'b'], ['c'.repeat(99)]]);
  assert.equal(await divided(texts, 0, 99), [texts, []]);
  for (const share of [1, Number.NaN]) await refuses(() => divided(texts, share, 9), /the validation share is (1|NaN)/);
});

dividing('lengths are those that JavaScript counts', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 20 }), text => {
      assert.is(utf16Length(Buffer.from(text)), text.length);
    }),
  );
});

const packing = suite('packing');

function packed(parts: readonly DocumentPart[], endOfText: number | null, cutsSafely: boolean): TextPiece[] {
  const packer = new Packer({ endOfText, cutsSafely });
  return [...parts.flatMap(part => [...packer.add(part)]), ...packer.end()];
}

/** Pieces as one text, with `|` where a text ends. */
const shown = (pieces: readonly TextPiece[]) =>
  pieces
    .map(({ text, breaks }) => {
      const ends = [0, ...breaks, text.length];
      return ends
        .slice(1)
        .map((end, index) => Buffer.from(text.subarray(ends[index], end)).toString())
        .join('|');
    })
    .join('');
const partOf = (text: string, begins = true): DocumentPart => ({ bytes: new Uint8Array(Buffer.from(text)), begins });

packing('documents stay apart, by a mark or by a line', () => {
  const parts = [partOf('one'), partOf(' and', false), partOf('two'), partOf('three')];
  assert.is(shown(packed(parts, 7, true)), 'one and|two|three');
  assert.is(shown(packed(parts, null, true)), 'one and\ntwo\nthree');
  assert.equal(packed([], 7, true), []);
});

packing('large texts are cut where that is harmless, small ones between each other', () => {
  const words = 'some words of a text, 1 2 3\n'.repeat(120_000);
  const small = Array.from({ length: 60_000 }, (_, n) => `the document ${n} of many documents`);
  const parts = [...small, words, ...small].map(text => partOf(text));
  const pieces = packed(parts, 7, true);
  assert.is(shown(pieces), [...small, words, ...small].join('|'));
  assert.ok(pieces.every(({ text }) => text.length < 2 ** 22 + 100));
  const inside = pieces.filter(({ text, breaks }, index) => breaks[0] !== 0 && index > 0 && text.length > 0);
  assert.ok(inside.length > 0 && inside.every(({ text }) => text[0] === 0x20 || text[0] === 0x0a));
});

packing('a text that no place is safe in is cut all the same, at lines, or else between characters', () => {
  const lines = '你好，世界。\n'.repeat(400_000);
  for (const cutsSafely of [true, false]) {
    const pieces = packed([partOf(lines)], 7, cutsSafely);
    assert.ok(pieces.length > 1 && pieces.every(({ text }) => text.length <= 2 ** 22));
    assert.ok(pieces.every(({ text }) => text.at(-1) === 0x0a));
    assert.is(shown(pieces), lines);
  }
  const line = '你'.repeat(2_000_000);
  assert.is(shown(packed([partOf(line)], 7, true)), line);
});

const making = suite('making');

const tokenizer = trainTokenizer(['the cat sat on the mat\n'.repeat(9)], { vocabSize: 280 });
async function corpusOf(paths: readonly string[], more: object = {}) {
  const phases = new Set<string>();
  const onProgress = ({ phase }: DataProgress) => void phases.add(phase);
  const usual = { validationShare: 0.25, tokenizer, vocabularySize: 280, textField: null, onSkipped: null, onProgress };
  const corpus = await readCorpus(paths, { ...usual, ...more });
  const { training, validation } = corpus;
  const [first, last] = [training, validation].map(stream => {
    const ids = new Int32Array(stream.length);
    stream.read(0, ids.length, ids, 0);
    return corpus.tokenizer.decode(ids);
  });
  return { ...corpus, first, last, phases: [...phases] };
}
/** Writes a file as one that has not changed for long. */
function settle(name: string, text: string | Uint8Array): string {
  writeFileSync(path(name), text);
  utimesSync(path(name), new Date(0), new Date(name.length * 1000));
  return path(name);
}

making(
  'what was made once is taken from the cache, by content: a file that did not change is not even read',
  async () => {
    const text = 'the cat sat\n'.repeat(40);
    const first = await corpusOf([settle('one.txt', text)]);
    assert.equal(first.phases, ['read', 'tokenize']);
    assert.is(first.first + first.last, text);
    const again = await corpusOf([path('one.txt')]);
    assert.equal(again.phases, []);
    assert.equal([again.hash, again.first, again.lines], [first.hash, first.first, first.lines]);
    assert.equal((await corpusOf([settle('other.txt', text)])).phases, ['read'], 'the same text elsewhere');
    assert.equal((await corpusOf([path('one.txt')], { validationShare: 0.5 })).phases, ['tokenize']);
    const changed = await corpusOf([settle('one.txt', text.replace('cat', 'mat'))]);
    assert.equal(changed.phases, ['read', 'tokenize']);
    assert.is.not(changed.hash, first.hash);
  },
);

making('a tokenizer is learned once from the same text', async () => {
  const file = settle('taught.txt', 'the cat sat on the mat, and the mat sat\n'.repeat(30));
  const learned = { tokenizer: null, vocabularySize: 270 };
  const first = await corpusOf([file], learned);
  assert.equal(first.phases, ['read', 'count', 'merge', 'tokenize']);
  const again = await corpusOf([file], learned);
  assert.equal([again.phases, again.tokenizer.json], [[], first.tokenizer.json]);
  for (const other of [{ vocabularySize: 265 }, { validationShare: 0.5 }])
    assert.equal((await corpusOf([file], { ...learned, ...other })).phases, ['count', 'merge', 'tokenize']);
});

making('what holds no text is told each time', async () => {
  const file = settle('some.jsonl', '{"text":"the cat"}\n{}\n{"text":"sat"}\n');
  for (let time = 0; time < 2; time++) {
    const told: string[] = [];
    await corpusOf([file], { onSkipped: (place: string) => void told.push(place) });
    assert.equal(told, [`${file}:2`]);
  }
});

making('what a killed process left is removed, and made again', async () => {
  const left = join(data, `0123.${2 ** 22 + 1}@${hostname().replace(/[^\w.-]/g, '_')}.tmp`);
  mkdirSync(left);
  writeFileSync(join(left, 'train.bin'), 'half');
  const old = join(data, 'unused');
  mkdirSync(old);
  utimesSync(old, new Date(0), new Date(0));
  await corpusOf([settle('more.txt', 'the mat\n'.repeat(30))]);
  const names = readdirSync(data);
  assert.equal(
    names.filter(name => name.endsWith('.tmp') || name === 'unused'),
    [],
  );
});

making('a full disk is said by name, and leaves nothing', async () => {
  const before = readdirSync(data);
  const { writeSync } = fs;
  fs.writeSync = () => {
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  syncBuiltinESMExports();
  try {
    writeFileSync(path('full.txt'), 'the cat on the mat\n'.repeat(30));
    await refuses(() => corpusOf([path('full.txt')]), /cannot write .*the disk is full/, /MALC_CACHE/);
  } finally {
    fs.writeSync = writeSync;
    syncBuiltinESMExports();
  }
  assert.equal(readdirSync(data), before);
});

making('a file that changes while it is read is refused', async () => {
  const file = settle('moving.txt', 'the cat\n'.repeat(30));
  const onProgress = () => fs.appendFileSync(file, 'the mat\n');
  await refuses(() => corpusOf([file], { onProgress }), /moving\.txt changed while it was read/);
});

making('standard input is read once, and divided like a file', async () => {
  const text = 'the cat sat on the mat\n'.repeat(50);
  writeTokenizer(path('tokenizer.json'), tokenizer);
  const module = (name: string) => JSON.stringify(new URL(`../runtime/${name}`, import.meta.url).href);
  const script = `
    import { readCorpus } from ${module('train/corpus.ts')};
    import { readTokenizer } from ${module('tokenizer/json.ts')};
    const tokenizer = readTokenizer(${JSON.stringify(path('tokenizer.json'))});
    const options = { validationShare: 0.25, tokenizer, vocabularySize: 0, textField: null, onSkipped: null };
    const { hash, training, validation, paths } = await readCorpus(['-'], options);
    console.log(JSON.stringify([hash, training.length, validation.length, paths]));`;
  const options = { input: text, encoding: 'utf8' } as const;
  const { stdout } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], options);
  writeFileSync(path('same.txt'), text);
  const { hash, training, validation } = await corpusOf([path('same.txt')], {
    tokenizer: readTokenizer(path('tokenizer.json')),
  });
  assert.equal(JSON.parse(stdout), [hash, training.length, validation.length, ['-']]);
  assert.equal(
    readdirSync(data).filter(name => name.startsWith('standard-input')),
    [],
  );
  assert.is(readFileSync(path('same.txt'), 'utf8'), text);
});

making.after(() => rmSync(folder, { recursive: true }));
for (const each of [dividing, packing, making]) each.run();
