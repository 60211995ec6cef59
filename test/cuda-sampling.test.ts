// The choice of tokens on a device, run by the emulator: the tokens that the host's sampler chooses, over all its settings,
// with ties, tokens of no probability, and vocabularies of fewer and more tokens than a block has threads.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import { type SamplerOptions, sampleToken } from '../runtime/generate/sampler.ts';
import { NOT_A_NUMBER, nativeSampler } from '../runtime/interface.ts';
import { randomNumbers } from './random-numbers.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda sampling');

const folder = mkdtempSync(join(tmpdir(), 'malc-choices-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

interface Row {
  readonly logits: Float32Array;
  readonly sampler: SamplerOptions;
  readonly text: Int32Array;
}

const prototype =
  'int choose(const float *logits, int rows, int count, const malc_sampler *samplers, const int32_t *texts, const int32_t *lengths, int context, int32_t *chosen)';

/** Every setting alone and together; what is absent keeps all tokens. */
const settings: readonly Omit<SamplerOptions, 'seed'>[] = [
  { temperature: 0 },
  { temperature: 0, repetitionPenalty: 1.8 },
  { temperature: 1 },
  { temperature: 0.7 },
  { temperature: 4 },
  { temperature: 1, topK: 1 },
  { temperature: 1.5, topK: 7 },
  { temperature: 2, topK: 5000 },
  { temperature: 1.5, topP: 0.9 },
  { temperature: 1.5, topP: 0.05 },
  { temperature: 1, topP: 1 },
  { temperature: 1.5, minP: 0.1 },
  { temperature: 1, minP: 1 },
  { temperature: 2, topK: 40, topP: 0.8, minP: 0.02 },
  { temperature: 2, topP: 0.5, minP: 0.05 },
  { temperature: 2, topK: 9, repetitionPenalty: 1.3 },
  { temperature: 1, topK: 20, topP: 0.7, minP: 0.01, repetitionPenalty: 0.8 },
  { temperature: 3, topP: 0.6, repetitionPenalty: 1.1 },
];

/** Logits as they come, as coarse ones with many ties, and as ones of which most have no probability. */
const kinds: readonly ((random: () => number) => number)[] = [
  random => 12 * (random() - 0.5),
  random => Math.round(4 * (random() - 0.5)) / 2,
  random => (random() < 0.9 ? Number.NEGATIVE_INFINITY : 3 * random()),
];

if (await emulatorAvailable()) {
  const output = join(folder, 'choices.so');
  const sources = [packagePath('test/cuda/choices.cu')];
  const include = [packagePath('templates/cpu')];
  await buildEmulated({ sources, include, output, library: true });
  const library = loadLibrary(output, { choose: prototype });

  const choose = (rows: readonly Row[]): Int32Array => {
    const count = rows[0]!.logits.length;
    const context = Math.max(...rows.map(({ text }) => text.length));
    const logits = new Float32Array(rows.length * count);
    const texts = new Int32Array(rows.length * context);
    for (const [n, row] of rows.entries()) {
      logits.set(row.logits, n * count);
      texts.set(row.text, n * context);
    }
    const lengths = Int32Array.from(rows, ({ text }) => text.length);
    const samplers = rows.map(({ sampler }) => nativeSampler(sampler));
    const chosen = new Int32Array(rows.length);
    assert.is(library.choose(logits, rows.length, count, samplers, texts, lengths, context, chosen), 0);
    return chosen;
  };

  for (const [number, count] of [5, 2500].entries())
    test(`of ${count} tokens the same are chosen as by the host`, () => {
      const random = randomNumbers(count);
      const rows = settings.map((setting, n): Row => {
        const kind = kinds[(n + number) % kinds.length]!;
        const logits = Float32Array.from({ length: count }, () => kind(random));
        logits[Math.floor(random() * count)] = 1.5; // some token has a probability
        const text = Int32Array.from({ length: 1 + Math.floor(random() * 30) }, () => Math.floor(random() * count));
        return { logits, sampler: { ...setting, seed: n % 2 === 0 ? n : 2 ** 40 + n }, text };
      });
      const chosen = choose(rows);
      const distinct = new Set(chosen);
      for (const [n, { logits, sampler, text }] of rows.entries())
        assert.is(chosen[n], sampleToken(logits, sampler, text.length, text), `row ${n}: ${JSON.stringify(sampler)}`);
      assert.ok(distinct.size > Math.min(3, count / 2), 'not all the same');
    });

  test('zeros of both signs are equal, and a logit that is no number is told of', () => {
    const text = Int32Array.of(0);
    const zeros = Float32Array.of(-1, -0, 0, -0);
    const faulty = Float32Array.of(1, 2, Number.NaN, 3);
    const greedy = { temperature: 0, seed: 1 };
    const chosen = choose([
      { logits: zeros, sampler: greedy, text },
      { logits: faulty, sampler: greedy, text },
      { logits: zeros, sampler: { temperature: 1, topK: 1, seed: 1 }, text },
    ]);
    assert.equal([...chosen], [1, NOT_A_NUMBER, 1]);
  });
} else console.log('no g++ that the emulator can use: tokens are not chosen on a device');

test.run();
