// Random numbers, reading text, token files, batches, and files that are whole or absent.
import { spawnSync } from 'node:child_process';
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { AtomicFile, writeFileAtomic } from '../runtime/atomic-file.ts';
import { Batches, ValidationBatches } from '../runtime/data/batches.ts';
import { enciphered, permutation, philox, Random } from '../runtime/data/random.ts';
import { invalidUtf8Offset, readText } from '../runtime/data/text.ts';
import { readTextPieces } from '../runtime/data/text-pieces.ts';
import { joined, partOf, TokenFile, type TokenStream, writeTokens } from '../runtime/data/tokens.ts';
import { streamOf } from './fixtures/stream-of.ts';

fc.configureGlobal({ includeErrorInReport: true, seed: 21, numRuns: 200 });

const folder = mkdtempSync(join(tmpdir(), 'malc-data-'));
const path = (name: string) => join(folder, name);

/** Checks that the user's error says all of these. */
function refuses(work: () => unknown, ...parts: (string | RegExp)[]): void {
  try {
    work();
  } catch (error) {
    assert.instance(error, UserError, (error as Error).stack);
    for (const part of parts) assert.match((error as Error).message, part);
    return;
  }
  throw new Error('nothing was refused');
}

async function refusesLater(work: Promise<unknown>, ...parts: (string | RegExp)[]): Promise<void> {
  const fault = await work.then(
    () => null,
    error => error,
  );
  refuses(
    () => {
      if (fault !== null) throw fault;
    },
    ...parts,
  );
}

/** Does something while nothing more can be written. */
function onFullDisk(work: () => void): void {
  const { writeSync } = fs;
  fs.writeSync = () => {
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  syncBuiltinESMExports();
  try {
    work();
  } finally {
    fs.writeSync = writeSync;
    syncBuiltinESMExports();
  }
}

const random = suite('random numbers');

random("philox gives the known answers of its authors' library", () => {
  // Random123, kat_vectors: philox4x32 10.
  const cases = [
    ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
    ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
    ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
  ] as const;
  const numbers = (hex: string) => hex.split(' ').map(word => Number.parseInt(word, 16));
  for (const [counter, key, expected] of cases) {
    const out = new Uint32Array(4);
    philox(numbers(counter), numbers(key), out);
    assert.equal([...out], numbers(expected));
  }
});

random('a stream is a function of seed and stream', () => {
  const draw = (seed: number, stream: number) => {
    const source = new Random(seed, stream);
    return Array.from({ length: 9 }, () => source.uint32()).join(' ');
  };
  assert.is(draw(1, 0), draw(1, 0));
  const all = [draw(1, 0), draw(1, 1), draw(2, 0), draw(1 + 2 ** 32, 0), draw(1, 2 ** 32)];
  assert.is(new Set(all).size, all.length);
  assert.is(draw(0, 0).split(' ')[0], String(0x6627e8d5));
});

random('below is in range and even', () => {
  const source = new Random(3);
  const counts = new Array<number>(7).fill(0);
  for (let i = 0; i < 70_000; i++) counts[source.below(7)]!++;
  for (const count of counts) assert.ok(Math.abs(count - 10_000) < 400, `${counts}`);
  for (const n of [1, 2 ** 31 + 1, 2 ** 32 - 1]) for (let i = 0; i < 100; i++) assert.ok(source.below(n) < n);
});

random('uniform is in [0, 1) with mean one half', () => {
  const source = new Random(4);
  let sum = 0;
  for (let i = 0; i < 10_000; i++) {
    const value = source.uniform();
    assert.ok(value >= 0 && value < 1);
    sum += value;
  }
  assert.ok(Math.abs(sum / 10_000 - 0.5) < 0.02);
});

random('a permutation holds every number once, and depends on seed and stream', () => {
  const order = permutation(1000, 5, 0);
  assert.equal(
    [...order].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  assert.equal(permutation(1000, 5, 0), order);
  assert.not.equal(permutation(1000, 5, 1), order);
  assert.not.equal(permutation(1000, 6, 0), order);
});

random('an order that is not kept holds every number once, and depends on seed and stream', () => {
  for (const n of [1, 2, 3, 63, 64, 65, 1000]) {
    const order = enciphered(n, 5, 0);
    const numbers = Array.from({ length: n }, (_, place) => order(place));
    assert.equal(
      numbers.toSorted((a, b) => a - b),
      numbers.map((_, i) => i),
    );
  }
  const beginOf = (seed: number, stream: number) =>
    Array.from({ length: 9 }, (_, i) => enciphered(1e9, seed, stream)(i));
  assert.equal(beginOf(5, 0), beginOf(5, 0));
  const all = [beginOf(5, 0), beginOf(5, 1), beginOf(6, 0), beginOf(5 + 2 ** 32, 0)].map(String);
  assert.is(new Set(all).size, all.length);
  const middle = Array.from({ length: 4000 }, (_, i) => enciphered(1e9, 7, 0)(i) / 1e9);
  assert.ok(Math.abs(middle.reduce((a, b) => a + b) / 4000 - 0.5) < 0.02);
});

random('a seed that is no whole number is refused', () => {
  for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) refuses(() => new Random(seed), `the seed is ${seed}`);
});

const texts = suite('reading text');

texts('a file, without its byte order mark', () => {
  writeFileSync(path('bom.txt'), '\ufeffgrüße\n');
  assert.is(readText(path('bom.txt')), 'grüße\n');
});

texts('standard input', () => {
  const module = new URL('../runtime/data/text.ts', import.meta.url);
  const script = `import { readText } from '${module}'; process.stdout.write(readText('-').toUpperCase());`;
  const run = (input: string) =>
    spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { input, encoding: 'utf8' });
  assert.is(run('über\n'.repeat(50_000)).stdout, 'ÜBER\n'.repeat(50_000));
  assert.match(run('').stderr, 'standard input is empty');
});

texts('missing, empty, a folder, only a byte order mark', () => {
  refuses(() => readText(path('none.txt')), 'there is no file', 'none.txt', 'check the path');
  writeFileSync(path('empty.txt'), '');
  refuses(() => readText(path('empty.txt')), 'empty.txt is empty');
  writeFileSync(path('mark.txt'), '\ufeff');
  refuses(() => readText(path('mark.txt')), 'mark.txt is empty');
  refuses(() => readText(folder), 'is a folder');
});

texts('what is not UTF-8 is told by its byte', () => {
  writeFileSync(path('latin.txt'), Buffer.from('one\ncaf\xe9 two', 'latin1'));
  refuses(() => readText(path('latin.txt')), 'at byte 7 (line 2), which is 0xe9', 'iconv -f ISO-8859-1');
  writeFileSync(path('wide.txt'), Buffer.from('\ufeffwide', 'utf16le'));
  refuses(() => readText(path('wide.txt')), 'at byte 0 (line 1), which is 0xff', 'iconv -f UTF-16');
});

/** The pieces of a file that is cut after its last line, or nowhere where a piece has no line's end. */
async function piecesOf(name: string): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of readTextPieces(path(name), text => text.lastIndexOf(0x0a) + 1)) pieces.push(piece);
  return pieces;
}

texts('in pieces, it is the same text, cut where it may be', async () => {
  const long = 'a line of some words, größer als eine Silbe\n'.repeat(60_000);
  writeFileSync(path('long.txt'), `\ufeff${long}no end`);
  const pieces = await piecesOf('long.txt');
  assert.is(pieces.length, 3);
  assert.ok(pieces.slice(0, -1).every(piece => piece.at(-1) === 0x0a));
  assert.is(Buffer.concat(pieces).toString(), `${long}no end`);

  writeFileSync(path('line.txt'), 'ä'.repeat(1_500_000));
  assert.equal(
    (await piecesOf('line.txt')).map(piece => piece.length),
    [3_000_000],
  );
});

texts('in pieces, what is wrong is told as for the whole', async () => {
  writeFileSync(path('late.txt'), Buffer.from(`${'one two\n'.repeat(200_000)}caf\xe9`, 'latin1'));
  await refusesLater(piecesOf('late.txt'), 'at byte 1600003 (line 200001), which is 0xe9');
  await refusesLater(piecesOf('none.txt'), 'there is no file', 'check the path');
  await refusesLater(piecesOf('.'), 'is a folder');
  for (const text of ['', '\ufeff']) {
    writeFileSync(path('empty.txt'), text);
    await refusesLater(piecesOf('empty.txt'), 'empty.txt is empty');
  }
});

texts('the offset is where decoding would fail, for any bytes', () => {
  const strict = new TextDecoder('utf-8', { fatal: true });
  const decodes = (bytes: Uint8Array) => {
    try {
      strict.decode(bytes);
      return true;
    } catch {
      return false;
    }
  };
  const byte = fc.constantFrom(
    ...[0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef],
    ...[0xf0, 0xf4, 0xf5, 0xff],
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 0 }), fc.array(byte, { maxLength: 6 }), (_, list) => {
      const bytes = Uint8Array.from(list);
      const offset = invalidUtf8Offset(bytes);
      assert.is(offset === -1, decodes(bytes));
      if (offset === -1) return;
      assert.ok(decodes(bytes.subarray(0, offset)));
      for (let end = offset + 1; end <= bytes.length; end++) assert.not(decodes(bytes.subarray(0, end)));
    }),
    { numRuns: 3000 },
  );
});

const tokens = suite('tokens');

const source = { tokenizer: 'T', text: 'X' };
const write = (name: string, ids: readonly number[], vocabularySize: number) =>
  writeTokens(path(name), streamOf(ids), { ...source, vocabularySize });

function idsOf(stream: TokenStream): number[] {
  const ids = new Int32Array(stream.length);
  stream.read(0, ids.length, ids, 0);
  return [...ids];
}

tokens(
  'a file is little-endian, of the smallest type that holds the vocabulary, and comes back with its side-car',
  () => {
    write('a.bin', [1, 2, 65535], 2 ** 16);
    assert.equal([...readFileSync(path('a.bin'))], [1, 0, 2, 0, 255, 255]);
    const file = new TokenFile(path('a.bin'));
    assert.equal(idsOf(file), [1, 2, 65535]);
    assert.equal(file.sideCar, { dtype: 'uint16', count: 3, tokenizer: 'T', text: 'X' });
    write('b.bin', [1, 70000], 2 ** 16 + 1);
    assert.equal([...readFileSync(path('b.bin'))], [1, 0, 0, 0, 112, 17, 1, 0]);
    assert.equal(idsOf(new TokenFile(path('b.bin'))), [1, 70000]);
    // More than one block.
    const many = Array.from({ length: 600_000 }, (_, i) => i % 60_000);
    write('many.bin', many, 60_000);
    assert.equal(idsOf(new TokenFile(path('many.bin'))), many);
  },
);

tokens('any part of a stream, or of several after one another, is read by itself', () => {
  write('c.bin', [10, 11, 12, 13, 14], 100);
  const file = new TokenFile(path('c.bin'));
  const all = joined([partOf(file, 1, 4), streamOf([]), streamOf([20]), partOf(file, 0, 2)]);
  assert.equal(idsOf(all), [11, 12, 13, 20, 10, 11]);
  const target = Int32Array.of(0, 0, 0, 0, 0);
  all.read(2, 3, target, 1);
  assert.equal(target, Int32Array.of(0, 13, 20, 10, 0));
  rmSync(path('c.bin'));
  assert.equal(idsOf(file), [10, 11, 12, 13, 14], 'what is open stays');
});

tokens("nanoGPT's files, which have no side-car, are read as uint16", () => {
  writeFileSync(path('nano.bin'), Buffer.from([5, 0, 0, 1]));
  const file = new TokenFile(path('nano.bin'));
  assert.equal([idsOf(file), file.sideCar], [[5, 256], null]);
});

tokens('torn files are refused', () => {
  writeFileSync(path('odd.bin'), Buffer.from([5, 0, 0]));
  refuses(() => new TokenFile(path('odd.bin')), 'has 3 bytes', 'cut short');
  write('torn.bin', [1, 2, 3], 300);
  writeFileSync(path('torn.bin'), Buffer.from([1, 0, 2, 0]));
  refuses(() => new TokenFile(path('torn.bin')), 'has 4 bytes, but 3 tokens of uint16 take 6');
  writeFileSync(path('torn.json'), '{');
  refuses(() => new TokenFile(path('torn.bin')), 'torn.json does not say');
  refuses(() => new TokenFile(path('none.bin')), 'there is no token file');
});

const batches = suite('batches');

/** A stream in which a token is its own place. */
const places = (length: number) => streamOf(Array.from({ length }, (_, i) => i));

batches('an epoch has each window once, at one offset; another epoch has another order', () => {
  const [batch, time] = [3, 8];
  const source = new Batches(places(1000), { batch, time, seed: 7 });
  assert.is(source.samplesPerEpoch, 124);
  const epoch = (number: number) =>
    Array.from({ length: 124 }, (_, i) => source.sampleAt(number * source.samplesPerEpoch + i));
  const offsets = new Set<number>();
  for (let number = 0; number < 20; number++) {
    const sorted = epoch(number).sort((a, b) => a - b);
    offsets.add(sorted[0]!);
    assert.ok(sorted[0]! >= 0 && sorted[0]! < time);
    assert.ok(sorted.at(-1)! + time < 1000);
    sorted.forEach((start, i) => {
      assert.is(start, sorted[0]! + i * time);
    });
  }
  assert.is.not(offsets.size, 1);
  assert.not.equal(epoch(0), epoch(1));
});

batches('labels are the tokens that follow; any batch can be drawn alone, in any order', () => {
  const [batch, time] = [4, 16];
  const options = { batch, time, seed: 8 };
  const one = new Batches(places(700), options);
  const draw = (source: Batches, index: number) => {
    const rows = new Int32Array(batch * time);
    const labels = new Int32Array(batch * time);
    source.fill(index, rows, labels);
    assert.equal(
      labels,
      rows.map(token => token + 1),
    );
    return rows;
  };
  const inOrder = Array.from({ length: 60 }, (_, step) => draw(one, step * batch));
  for (const step of [59, 0, 30, 29])
    assert.equal(draw(new Batches(places(700), options), step * batch), inOrder[step]);
  assert.not.equal(draw(new Batches(places(700), { ...options, seed: 9 }), 0), inOrder[0]);
});

batches('every length from one window on has at least one sample inside the stream', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(200), fc.nat(50), (time, extra, index) => {
      const length = time + 1 + extra;
      const source = new Batches(places(length), { batch: 1, time, seed: 1 });
      const start = source.sampleAt(index);
      assert.ok(start >= 0 && start + time < length);
      assert.ok(source.samplesPerEpoch * time > length - 1 - 2 * time);
    }),
  );
});

batches('a text too short for one window is refused with both numbers', () => {
  refuses(() => new Batches(places(16), { batch: 1, time: 16, seed: 0 }), 'has 16 tokens', 'needs 17', '--seq-len');
});

batches('validation scores every token but the first once, in order', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 90 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 4 }),
      (length, time, batch) => {
        const source = new ValidationBatches(places(length), { batch, time });
        const scored: number[] = [];
        for (let index = 0; index < source.count; index++) {
          const rows = new Int32Array(batch * time);
          const labels = new Int32Array(batch * time);
          source.fill(index, rows, labels);
          labels.forEach((label, i) => {
            if (label === -1) assert.is(rows[i], 0);
            else {
              assert.is(rows[i], label - 1);
              scored.push(label);
            }
          });
        }
        assert.equal(
          scored,
          Array.from({ length: length - 1 }, (_, i) => i + 1),
        );
      },
    ),
  );
  refuses(() => new ValidationBatches(places(1), { batch: 1, time: 4 }), 'has 1 token(s)');
});

const atomic = suite('files that are whole or absent');

atomic('text, bytes and a writer; nothing is left beside them', () => {
  const place = path('atomic');
  mkdirSync(place);
  writeFileAtomic(join(place, 'a'), 'grün');
  writeFileAtomic(join(place, 'a'), 'grün again');
  assert.is(readFileSync(join(place, 'a'), 'utf8'), 'grün again');
  writeFileAtomic(join(place, 'b'), Uint8Array.of(1, 2));
  assert.equal([...readFileSync(join(place, 'b'))], [1, 2]);
  const file = new AtomicFile(join(place, 'c'));
  for (const part of ['writ', 'ten']) file.write(Buffer.from(part));
  assert.not(existsSync(join(place, 'c')));
  file.finish();
  assert.is(readFileSync(join(place, 'c'), 'utf8'), 'written');
  assert.equal(readdirSync(place), ['a', 'b', 'c']);
});

atomic('a failure leaves the old file and no temporary one', () => {
  const place = path('failing');
  mkdirSync(place);
  writeFileAtomic(join(place, 'a'), 'old');
  const file = new AtomicFile(join(place, 'a'));
  file.write(Buffer.from('half'));
  file.discard();
  onFullDisk(() => refuses(() => writeFileAtomic(join(place, 'a'), 'new'), 'the disk is full', 'free some space'));
  assert.equal(readdirSync(place), ['a']);
  assert.is(readFileSync(join(place, 'a'), 'utf8'), 'old');
});

atomic('a missing folder, a folder, a link, a file as a folder', () => {
  refuses(() => writeFileAtomic(path('no/where/a'), ''), 'does not exist', 'mkdir -p');
  refuses(() => writeFileAtomic(folder, ''), 'not a plain file');
  symlinkSync('/dev/null', path('link'));
  refuses(() => writeFileAtomic(path('link'), ''), 'not a plain file');
  writeFileSync(path('plain'), '');
  refuses(() => writeFileAtomic(path('plain/a'), ''), 'is a file, not a folder');
});

atomic.after(() => rmSync(folder, { recursive: true }));
atomic.after(() => assert.not(existsSync(folder)));

for (const each of [random, texts, tokens, batches, atomic]) each.run();
