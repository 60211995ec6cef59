// Documents that lie one after another in a sequence and are kept apart: the compiled program against the float64 oracle,
// and against the same documents in sequences of their own.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { Tunable } from '../compiler/targets/cuda/tunable.ts';
import { emitTuner } from '../compiler/targets/cuda/tuner.ts';
import { openEmulated } from './cuda/build.ts';
import { edgeModel } from './edge-models.ts';
import { holdStep, open, scramble } from './held-against-oracle.ts';
import { relativeError } from './oracle.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('masked documents');

const { syntax } = parse(readFileSync(packagePath('test/fixtures/packed.mal'), 'utf8'), 'packed.mal');
const packedModel = (name: string): Model => check(syntax, { model: name }).model!;
const model = packedModel('packed');
/** The token that ends a document. */
const separator = 4;
/** Positions of a sequence: more than a block of queries has. */
const time = 90;

const native = await open(model, { fuse: true, separator }, { batch: 6, time });

test('logits, loss and gradients against the oracle, at lengths on both sides of a block', async () => {
  for (const [batch, length] of [
    [2, 7],
    [1, 40],
    [2, time],
  ] as const)
    await holdStep(native, model, batch, length, 3);
});

/** Tokens, labels [rows][time], and the sum of their losses with all gradients. */
async function stepOf(rows: readonly (readonly number[])[], labels: readonly (readonly number[])[], length: number) {
  const flat = (lists: readonly (readonly number[])[], filler: number) =>
    Int32Array.from(lists.flatMap(list => [...list, ...Array<number>(length - list.length).fill(filler)]));
  const size = { microBatches: 1, batch: rows.length, time: length, update: null };
  const result = await native.step(flat(rows, 0), flat(labels, -1), size);
  return {
    loss: result.loss * result.scored,
    auxiliary: result.auxiliary * result.scored,
    gradients: native.parameters.map(({ name, gradient }) => ({ name, sum: gradient!.map(g => g * result.scored) })),
  };
}

test('packed, documents give what each gives by itself: losses, modules’ losses, gradients', async () => {
  scramble(native, 7);
  const lengths = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(lengths, fc.integer(), async (lengths, seed) => {
      const random = randomNumbers(seed);
      const draw = () => [0, 1, 2, 3, 5, 6, 7, 8, 9, 10][Math.floor(10 * random())]!;
      const documents = lengths.map(length => [...Array.from({ length: length - 1 }, draw), separator]);
      const all = documents.flat().slice(0, time);
      // The separator predicts the first token of what follows, here and there.
      const labels = [...all.slice(1), 0];
      let start = 0;
      const apart = documents.flatMap(({ length }) => {
        const [from, to] = [start, Math.min(time, start + length)];
        start += length;
        return from < to ? [{ tokens: all.slice(from, to), labels: labels.slice(from, to) }] : [];
      });
      const together = await stepOf([all], [labels], all.length);
      const longest = Math.max(...apart.map(({ tokens }) => tokens.length));
      const single = await stepOf(
        apart.map(({ tokens }) => tokens),
        apart.map(({ labels }) => labels),
        longest,
      );
      assert.ok(Math.abs(together.loss - single.loss) < 1e-5 * single.loss, `${together.loss}, ${single.loss}`);
      assert.ok(Math.abs(together.auxiliary - single.auxiliary) <= 1e-5 * single.loss);
      for (const [n, { name, sum }] of together.gradients.entries()) {
        const expected = single.gradients[n]!.sum;
        const error = relativeError(sum, expected);
        assert.ok(error < 1e-4 || error * Math.hypot(...expected) < 1e-5, `gradient of ${name}: ${error}`);
      }
    }),
    { seed: 5, numRuns: 25 },
  );
});

if (await emulatorAvailable())
  test('the same on CUDA, with modules that look into no other document', async () => {
    const emulated = await openEmulated(model, { dtype: 'f32', separator }, { batch: 2, time: 40 });
    await holdStep(emulated, model, 2, 40, 3);
    emulated.close();
  });
else console.log('no g++ that the emulator can use: documents are not masked on CUDA');

test('what a mask sees ahead is of the same document', async () => {
  const looking = packedModel('looking');
  const ahead = await open(looking, { fuse: true, separator }, { batch: 2, time });
  await holdStep(ahead, looking, 2, time, 3, 'f32', true);
  ahead.close();
});

test('the program without it is what it was', () => {
  const files = (options: object) => compile(model, options).files;
  assert.equal(files({ masksDocuments: false }), files({}));
  assert.not.match(files({})['model.c']!, 'documents[');
  assert.match(files({ masksDocuments: true })['model.c']!, 'documents[');
});

test('it is as a person would write it', () => {
  const programs = [{}, { dtype: 'bf16' }, { target: 'cuda' }, { target: 'cuda', dtype: 'bf16' }] as const;
  for (const options of programs)
    for (const name of ['packed', 'looking'])
      for (const [file, text] of Object.entries(
        compile(packedModel(name), { ...options, masksDocuments: true }).files,
      )) {
        if (!/\.(c|cu)$/.test(file)) continue; // headers are the same whatever is compiled
        const long = text.split('\n').filter(line => line.length > 120 || /\s$/.test(line));
        assert.is(long.join('\n'), '', `${file}: no line over 120 columns, nor with a space at its end`);
        assert.not.match(text, /\n\n\n/, `${file}: no two empty lines`);
      }
});

test('what is measured of it on a GPU reads documents that are there', () => {
  const tunables = new Map<string, Tunable>();
  const choiceOf = (tunable: Tunable) => {
    tunables.set(tunable.key, tunable);
    return null;
  };
  compile(model, { target: 'cuda', dtype: 'bf16', masksDocuments: true, choiceOf });
  const attention = [...tunables.values()].filter(({ kind }) => kind === 'attention-gradient');
  const choices = [{ schedule: null, library: false }];
  const files = emitTuner(attention.map(tunable => ({ tunable, choices })));
  assert.is(files['tune.cu']!.split('malc_filling::bounds, (unsigned)time').length - 1, attention.length);
  assert.ok(attention.length > 0);
});

test('states carry on from one document to the next, which is refused by name', () => {
  assert.throws(
    () => compile(edgeModel('alike'), { masksDocuments: true }),
    (error: Error) => error instanceof UserError && /^--mask-documents .* `a_b` \(edges.mal:\d+\)/.test(error.message),
  );
});

test('a separator that cannot be is refused', async () => {
  for (const wrong of [11, -2])
    try {
      await open(model, { fuse: true, separator: wrong }, { batch: 1, time: 4 });
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, 'separator must be a token of the vocabulary');
    }
});

test.after(() => native.close());
test.run();
