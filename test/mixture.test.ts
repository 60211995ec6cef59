// Mixtures: what --data says of weights, whose turn each sample is, and that a batch follows from the seed and its place.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { Batches } from '../runtime/data/batches.ts';
import { Mixture, Turns } from '../runtime/data/mixture.ts';
import { absolute, readSpecs } from '../runtime/data/specs.ts';
import { readCorpus } from '../runtime/train/corpus.ts';
import { validationSamples } from '../runtime/train/validation-samples.ts';
import { streamOf } from './fixtures/stream-of.ts';

fc.configureGlobal({ includeErrorInReport: true, seed: 3, numRuns: 100 });

const test = suite('mixtures');
const folder = mkdtempSync(join(tmpdir(), 'malc-mixture-'));
const path = (name: string) => join(folder, name);
process.env.MALC_CACHE = path('cache');
test.after(() => rmSync(folder, { recursive: true }));

function refuses(work: () => unknown, says: RegExp): void {
  try {
    work();
  } catch (error) {
    assert.instance(error, UserError, String(error));
    assert.match((error as Error).message, says);
    return;
  }
  throw new Error('nothing was refused');
}

test('a weight stands after a colon; all have one, or none', () => {
  assert.equal(readSpecs(['a.txt', 'b']), [{ name: 'all', paths: ['a.txt', 'b'], weight: 1, isWeighted: false }]);
  const mixed = readSpecs(['x/a.txt:0.7', '-:3e-1']);
  assert.equal(
    mixed.map(({ name, paths, weight }) => [name, paths, weight]),
    [
      ['a.txt', ['x/a.txt'], 0.7],
      ['standard input', ['-'], 0.3],
    ],
  );
  assert.equal(readSpecs(mixed.flatMap(absolute)).flatMap(absolute), mixed.flatMap(absolute));
  assert.equal(readSpecs(['a/t.txt:1', 'b/t.txt:1'])[1]!.name, 'b/t.txt');
  refuses(() => readSpecs(['a:1', 'b']), /b has no weight and others have one/);
  refuses(() => readSpecs(['a:0', 'b:1']), /a:0: the weight is 0; give a number above 0/);
  refuses(() => readSpecs(['a:-2', 'b:1']), /the weight is -2/);
  refuses(() => readSpecs(['a:1']), /this is all there is/);
  refuses(() => readSpecs(['a:1', './a:2']), /a path is there twice/);
});

test('a file whose name looks like a weight is taken for what it is, or refused where it could be both', () => {
  writeFileSync(path('notes:2'), 'x');
  assert.equal(readSpecs([path('notes:2')])[0]!.paths, [path('notes:2')]);
  assert.equal(readSpecs([`${path('notes:2')}:5`, 'b:1'])[0]!.weight, 5);
  writeFileSync(path('notes'), 'x');
  refuses(
    () => readSpecs([path('notes:2'), 'b:1']),
    /there is a file of that name, and .* with the weight 2 could be meant/,
  );
});

test('at every moment each source has its share, and each of its samples its turn, in order', () => {
  const shares = fc.array(fc.double({ min: 0.01, max: 1, noNaN: true }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(shares, fc.nat(1000), fc.nat(1e9), (weights, seed, far) => {
      const all = weights.reduce((a, b) => a + b);
      const turns = new Turns(
        weights.map(weight => weight / all),
        seed,
      );
      for (const start of [0, far]) {
        const counts = turns.before(start);
        for (let index = start; index < start + 50; index++) {
          const [source, own] = turns.at(index);
          assert.is(own, counts[source]!);
          counts[source]! += 1;
          assert.equal(turns.before(index + 1), counts);
          counts.forEach((count, each) => {
            const expected = ((index + 1) * weights[each]!) / all;
            assert.ok(Math.abs(count - expected) <= weights.length + 1e-6, `${count} of ${expected}`);
          });
        }
      }
    }),
  );
});

const options = { batch: 4, time: 8, seed: 5 };
const [low, high] = [
  streamOf(Array.from({ length: 400 }, (_, i) => i)),
  streamOf(Array.from({ length: 100 }, (_, i) => 1000 + i)),
];
const draw = (source: { fill(index: number, tokens: Int32Array, labels: Int32Array): void }, index: number) => {
  const [tokens, labels] = [new Int32Array(32), new Int32Array(32)];
  source.fill(index, tokens, labels);
  return [tokens, labels];
};

test('one source is drawn as it is without a mixture', () => {
  const one = new Mixture([{ name: 'low', share: 1, training: low }], options);
  const plain = new Batches(low, options);
  assert.is(one.samplesPerEpoch, plain.samplesPerEpoch);
  for (const index of [0, 4, 90, 3]) assert.equal(draw(one, index), draw(plain, index));
});

test('any batch can be drawn alone; shares are those of the samples; each source is gone through by itself', () => {
  const sources = [
    { name: 'low', share: 0.75, training: low },
    { name: 'high', share: 0.25, training: high },
  ];
  const mixture = new Mixture(sources, options);
  assert.is(mixture.samplesPerEpoch, 49 + 11);
  const batches = Array.from({ length: 11 }, (_, step) => draw(mixture, 4 * step));
  const again = new Mixture(sources, options);
  for (const step of [10, 0, 7]) assert.equal(draw(again, 4 * step), batches[step]);
  const starts = batches.flatMap(([tokens]) => [0, 8, 16, 24].map(row => tokens![row]!));
  const ofHigh = starts.filter(start => start >= 1000);
  assert.is(ofHigh.length, 11);
  assert.is(new Set(ofHigh).size, 11, 'each window of an epoch once');
  assert.equal(mixture.passes(44), [33 / 49, 1]);
  assert.not.equal(draw(new Mixture(sources, { ...options, seed: 6 }), 0), batches[0]);
  refuses(
    () =>
      new Mixture(
        [
          { name: 'low', share: 0.5, training: low },
          { name: 'short', share: 0.5, training: streamOf([1]) },
        ],
        options,
      ),
    /^short: the training text has 1 tokens/,
  );
});

test('a corpus with weights keeps its sources apart, and its hash knows the weights', async () => {
  writeFileSync(path('one.txt'), 'one line of words\n'.repeat(40));
  writeFileSync(path('two.jsonl'), '{"text":"two"}\n{"text":"words"}\n'.repeat(60));
  const read = (weights: readonly number[]) =>
    readCorpus([`${path('one.txt')}:${weights[0]}`, `${path('two.jsonl')}:${weights[1]}`], {
      validationShare: 0.25,
      tokenizer: null,
      vocabularySize: 300,
      textField: null,
      onSkipped: null,
    });
  const corpus = await read([3, 1]);
  const named = corpus.sources.map(({ name, share, documents }) => [name, share, documents]);
  assert.equal(named, [
    ['one.txt', 0.75, 1],
    ['two.jsonl', 0.25, 120],
  ]);
  assert.is(
    corpus.training.length,
    corpus.sources.reduce((sum, { training }) => sum + training.length, 0),
  );
  assert.is((await read([6, 2])).hash, corpus.hash, 'weights are in any unit');
  assert.is.not((await read([1, 1])).hash, corpus.hash);
  const settings = { 'batch-size': 2, 'seq-len': 8 } as Parameters<typeof validationSamples>[1];
  const { parts, count, bytesPerToken } = validationSamples(corpus.sources, settings);
  assert.equal(
    parts!.flatMap(({ name, share, first }) => [name, share, first]),
    ['one.txt', 0.75, 0, 'two.jsonl', 0.25, parts![0]!.end],
  );
  assert.is(parts![1]!.end, count);
  const [one, two] = corpus.sources.map(({ validation, validationBytes }) => validationBytes! / validation.length);
  assert.is(bytesPerToken, 0.75 * one! + 0.25 * two!);
});

test.run();
