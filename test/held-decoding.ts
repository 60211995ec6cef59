// Holds decoding of several texts at once: each is what it is alone, whatever number of tokens the others bring to a call,
// and wherever they begin, end and begin anew.
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { type Beginning, generate, generateAll } from '../runtime/generate/generate.ts';
import type { NativeModel } from '../runtime/native.ts';
import { relativeError } from './oracle.ts';
import { randomNumbers } from './random-numbers.ts';

/** The logits that follow each position of a text: [time][vocabulary]. */
interface Text {
  readonly tokens: Int32Array;
  readonly roles: Int32Array;
  readonly logits: Float32Array;
}

/**
 * Calls of random counts, none among them, in which a text that ends, and now and then one that does not, gives its place
 * to another; each call's logits are those of the whole text.
 *
 * @param native opened for two sequences or more, with a cache
 */
export async function holdMixedDecoding(native: NativeModel, model: Model, seed: number): Promise<void> {
  const { maxBatch, maxTime } = native.options;
  const random = randomNumbers(seed);
  const draw = (below: number) => Math.floor(random() * below);
  const texts: Text[] = [];
  for (let n = 0; n < 4; n++) {
    const time = 1 + draw(maxTime);
    const tokens = Int32Array.from({ length: time }, () => draw(model.vocab_size));
    const roles = Int32Array.from({ length: time }, () => draw(model.embeddings.role_embeddings ?? 1));
    texts.push({ tokens, roles, logits: await native.forward(tokens, { batch: 1, time, roles }) });
  }
  const slots = Array.from({ length: maxBatch }, () => ({ text: texts[draw(4)]!, start: 0 }));
  for (let call = 0; call < 12; call++) {
    for (const slot of slots)
      if (slot.start === slot.text.tokens.length || draw(6) === 0)
        Object.assign(slot, { text: texts[draw(4)]!, start: 0 });
    const batch = 1 + draw(maxBatch);
    const own = slots.slice(0, batch);
    const counts = Int32Array.from(own, ({ text, start }) => draw(Math.min(5, text.tokens.length - start + 1)));
    if (counts.every(count => count === 0)) counts[0] = 1;
    const time = Math.max(...counts);
    /** Whatever stands beyond a count is not looked at: no token either. */
    const padded = (of: (text: Text) => Int32Array) =>
      Int32Array.from({ length: batch * time }, (_, i) => {
        const { text, start } = own[Math.floor(i / time)]!;
        return i % time < counts[Math.floor(i / time)]! ? of(text)[start + (i % time)]! : -7;
      });
    const starts = Int32Array.from(own, ({ start }) => start);
    const size = { batch, time, starts, counts, roles: padded(text => text.roles) };
    const decoded = await native.decode(
      padded(text => text.tokens),
      size,
    );
    own.forEach((slot, b) => {
      const logits = decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size);
      if (counts[b] === 0) {
        assert.ok(logits.every(logit => logit === 0));
        return;
      }
      slot.start += counts[b]!;
      const expected = slot.text.logits.subarray((slot.start - 1) * model.vocab_size, slot.start * model.vocab_size);
      const error = relativeError(logits, expected);
      assert.ok(error < 1e-5, `call ${call}, sequence ${b} of counts ${counts}: ${error} ${JSON.stringify(model)}`);
    });
  }
}

/** Texts that are written at once, more than have a place, are those that are written one by one. */
export async function holdTexts(native: NativeModel, model: Model, seed: number): Promise<void> {
  const random = randomNumbers(seed);
  const draw = (below: number) => Math.floor(random() * below);
  if (native.options.maxContext < 2) return; // no room for a token after a prompt
  const limits = { maxTokens: 6, endOfText: draw(model.vocab_size), contextLength: native.options.maxContext };
  const texts = Array.from({ length: 5 }, (_, n): Beginning => {
    const prompt = Int32Array.from({ length: 1 + draw(limits.contextLength - 1) }, () => draw(model.vocab_size));
    return { prompt, name: `prompt ${n}`, sampler: { temperature: n % 2, seed: n } };
  });
  const order: number[] = [];
  const together = await generateAll(native, texts, { ...limits, onText: number => order.push(number) });
  assert.equal([...order].sort(), [0, 1, 2, 3, 4]);
  for (const [n, { prompt, sampler }] of texts.entries())
    assert.equal(together[n], await generate(native, prompt, { ...limits, sampler }), `text ${n}`);
}
