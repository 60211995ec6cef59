// The sampler: each filter against its definition, frequencies against probabilities; and generation's limits.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { type Beginning, type GenerateOptions, generate, generateAll } from '../runtime/generate/generate.ts';
import { type SamplerOptions, sampleToken } from '../runtime/generate/sampler.ts';
import { openBigram } from './fixtures/bigram.ts';

fc.configureGlobal({ includeErrorInReport: true });

const test = suite('sampler');

/** Logits of these probabilities. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);

/** How often each token is drawn in `draws` positions, as a share. */
function shares(logits: Float32Array, options: Omit<SamplerOptions, 'seed'>, draws = 4000): number[] {
  const counts = new Array<number>(logits.length).fill(0);
  for (let position = 0; position < draws; position++)
    counts[sampleToken(logits, { seed: 3, ...options }, position, [])]! += 1;
  return counts.map(count => count / draws);
}

function near(actual: readonly number[], expected: readonly number[]): void {
  actual.forEach((value, index) => {
    assert.ok(Math.abs(value - expected[index]!) < 0.03, `${actual} against ${expected}`);
  });
}

test('tokens come as often as their probability says', () => {
  near(shares(logitsOf(0.1, 0.6, 0.3), { temperature: 1 }), [0.1, 0.6, 0.3]);
  near(shares(logitsOf(0.2, 0.8), { temperature: 0.5 }), [1 / 17, 16 / 17]);
});

test('each filter keeps what its definition keeps', () => {
  const logits = logitsOf(0.05, 0.4, 0.15, 0.3, 0.1);
  near(shares(logits, { temperature: 1, topK: 2 }), [0, 4 / 7, 0, 3 / 7, 0]);
  near(shares(logits, { temperature: 1, topP: 0.65 }), [0, 4 / 7, 0, 3 / 7, 0]);
  near(shares(logits, { temperature: 1, topP: 0.75 }), [0, 0.4 / 0.85, 0.15 / 0.85, 0.3 / 0.85, 0]);
  near(shares(logits, { temperature: 1, minP: 0.3 }), [0, 0.4 / 0.85, 0.15 / 0.85, 0.3 / 0.85, 0]);
  near(shares(logits, { temperature: 1, topK: 1 }), [0, 1, 0, 0, 0]);
  near(shares(logits, { temperature: 1, topP: 1 }), [0.05, 0.4, 0.15, 0.3, 0.1]);
});

test('temperature 0 is greedy, the first of equals', () => {
  assert.is(sampleToken(Float32Array.of(1, 5, 5, -2), { temperature: 0, seed: 1 }, 0, []), 1);
});

test('the repetition penalty lowers what was seen, whatever its sign', () => {
  const options = { temperature: 0, seed: 1, repetitionPenalty: 2 };
  assert.is(sampleToken(Float32Array.of(3, 2), options, 0, [0]), 1);
  assert.is(sampleToken(Float32Array.of(-1, -1.5), options, 0, [0, 0]), 1);
  assert.is(sampleToken(Float32Array.of(3, 1), options, 0, [0]), 0);
});

test('every draw is a token that the filters allow, and is the same for the same seed', () => {
  const options = fc.record({
    temperature: fc.double({ min: 0.05, max: 3, noNaN: true }),
    topK: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
    topP: fc.option(fc.double({ min: 0.01, max: 1, noNaN: true }), { nil: undefined }),
    minP: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined }),
    seed: fc.nat(),
  });
  const logits = fc.float32Array({ minLength: 1, maxLength: 8, min: -50, max: 50, noNaN: true });
  fc.assert(
    fc.property(logits, options, fc.nat(), (values, sampler, position) => {
      const token = sampleToken(values, sampler, position, []);
      assert.ok(Number.isInteger(token) && token >= 0 && token < values.length);
      assert.is(sampleToken(values, sampler, position, []), token);
      const above = values.filter(value => value > values[token]!).length;
      if (sampler.topK !== undefined) assert.ok(above < sampler.topK);
    }),
    { seed: 1, numRuns: 300 },
  );
});

test('NaN among the logits is refused', () => {
  assert.throws(
    () => sampleToken(Float32Array.of(1, Number.NaN), { temperature: 1, seed: 1 }, 0, []),
    /weights are damaged/,
  );
});

const options: GenerateOptions = {
  sampler: { temperature: 1, seed: 11 },
  maxTokens: 20,
  endOfText: null,
  contextLength: 64,
};

test('the same seed gives the same text, another seed another, whatever pieces the prompt goes in by', async () => {
  const model = await openBigram({ training: false });
  const narrow = await openBigram({ training: false, maxTime: 2 });
  const prompt = Int32Array.of(1, 2, 3, 4, 5);
  const streamed: number[] = [];
  const first = await generate(model, prompt, { ...options, onToken: token => streamed.push(token) });
  assert.is(first.tokens.length, 20);
  assert.equal(streamed, first.tokens);
  assert.equal(await generate(narrow, prompt, options), first);
  const other = await generate(model, prompt, { ...options, sampler: { temperature: 1, seed: 12 } });
  assert.not.equal(other.tokens, first.tokens);
  model.close();
  narrow.close();
});

test('a text ends at its end, at the tokens asked for, and at the context’s last position', async () => {
  const model = await openBigram({ training: false });
  const prompt = Int32Array.of(1, 2);
  const { tokens } = await generate(model, prompt, options);
  const third = tokens[2]!;
  const ended = await generate(model, prompt, { ...options, endOfText: third });
  assert.equal(ended, { tokens: tokens.slice(0, tokens.indexOf(third)), reason: 'end' });
  assert.equal(await generate(model, prompt, { ...options, maxTokens: 3 }), {
    tokens: tokens.slice(0, 3),
    reason: 'length',
  });
  assert.equal(await generate(model, prompt, { ...options, maxTokens: 0 }), { tokens: [], reason: 'length' });
  const full = await generate(model, prompt, { ...options, contextLength: 8 });
  assert.equal(full, { tokens: tokens.slice(0, 6), reason: 'context' });
  for (const [wrong, expected] of [
    [new Int32Array(0), /the prompt is empty/],
    [new Int32Array(64), /has 64 tokens; the model's context of 64 leaves room for at most 63/],
  ] as const) {
    const fault = await generate(model, wrong, options).catch(error => error);
    assert.instance(fault, UserError);
    assert.match(fault.message, expected);
  }
  model.close();
});

/** Prompts of one to five tokens, each with a seed of its own. */
const beginnings: readonly Beginning[] = Array.from({ length: 7 }, (_, n) => ({
  prompt: Int32Array.from({ length: 1 + (n % 5) }, (_, t) => n + t),
  name: `prompt ${n + 1}`,
  sampler: { temperature: 1, seed: n },
}));
const limits = { maxTokens: 20, endOfText: 9, contextLength: 16 };

test('texts written at once are those written alone, in the order of their prompts, however many have a place', async () => {
  const wide = await openBigram({ training: false });
  const alone = [];
  for (const { prompt, sampler } of beginnings) alone.push(await generate(wide, prompt, { ...limits, sampler }));
  assert.ok(new Set(alone.map(({ reason }) => reason)).size > 1);
  for (const sizes of [{}, { maxBatch: 1 }, { maxBatch: 2, maxTime: 2 }, { maxBatch: 9 }]) {
    const model = await openBigram({ training: false, ...sizes });
    const told = new Map<number, unknown>();
    const texts = await generateAll(model, beginnings, { ...limits, onText: (n, text) => told.set(n, text) });
    assert.equal(texts, alone);
    assert.equal(
      [...told].sort(([a], [b]) => a - b),
      [...alone.entries()],
    );
    model.close();
  }
  assert.equal(await generateAll(wide, [], limits), []);
  const none = await generateAll(wide, beginnings, { ...limits, maxTokens: 0 });
  assert.ok(none.length === 7 && none.every(({ tokens, reason }) => tokens.length === 0 && reason === 'length'));
  const stopped = await generateAll(wide, beginnings, { ...limits, stop: AbortSignal.abort() });
  assert.ok(stopped.every(({ reason }) => reason === 'stopped'));
  wide.close();
});

test('a prompt at fault is named, and nothing is written; so is the text that goes wrong', async () => {
  const model = await openBigram({ training: false });
  const faultOf = (texts: readonly Beginning[]) =>
    generateAll(model, texts, { ...limits, onText: () => assert.unreachable() }).catch(error => error);
  const withPrompt = (prompt: Int32Array) => [...beginnings.slice(0, 2), { ...beginnings[2]!, prompt }];
  for (const [prompt, says] of [
    [new Int32Array(0), /^prompt 3 is empty; give at least one character$/],
    [new Int32Array(16), /^prompt 3 has 16 tokens; the model's context of 16 leaves room for at most 15\. Shorten/],
  ] as const) {
    const fault = await faultOf(withPrompt(prompt));
    assert.instance(fault, UserError);
    assert.match(fault.message, says);
  }
  // Token 30 is followed by no number.
  model.writableParameters()[0]!.data.fill(Number.NaN, 30 * 32, 31 * 32);
  const fault = await faultOf(withPrompt(Int32Array.of(30)));
  assert.instance(fault, UserError);
  assert.match(fault.message, /^prompt 3: the model answers with NaN/);
  model.close();
});

test.run();
