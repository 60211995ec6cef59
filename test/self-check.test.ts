// The checks before a run: a sound model passes them all, and each fault is found and said by name.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import type { NativeModel } from '../runtime/native.ts';
import type { Tokenizer } from '../runtime/tokenizer/tokenizer.ts';
import { type SelfCheck, selfCheck } from '../runtime/train/self-check.ts';
import { openBigram } from './fixtures/bigram.ts';
import { settings } from './fixtures/bigram-run.ts';

const test = suite('self-check');
const folder = mkdtempSync(join(tmpdir(), 'malc-self-check-'));
test.after(() => rmSync(folder, { recursive: true }));

const size = settings['batch-size'] * settings['seq-len'];
const tokens = Int32Array.from({ length: size }, (_, place) => (2 * place + 1) % 32);
const labels = tokens.map(token => (2 * token + 1) % 32);
const characters = {
  encode: (text: string) => Int32Array.from(text, letter => letter.charCodeAt(0)),
  decode: (ids: Int32Array) => String.fromCharCode(...ids),
};

/** Runs the checks on the bigram model, of which `changes` replaces methods. */
async function check(changes: Partial<Record<keyof NativeModel, unknown>> = {}, given: Partial<SelfCheck> = {}) {
  const model = await openBigram();
  const changed = new Proxy(model, {
    get(target, name) {
      const value = name in changes ? changes[name as keyof NativeModel] : Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  try {
    return await selfCheck({
      model: changed,
      hiddenSize: 32,
      settings,
      tokens,
      labels,
      tokenizer: characters as unknown as Tokenizer,
      lines: ['one line', 'and another'],
      folder,
      begin: () => model.initialize(settings.seed),
      isFresh: true,
      origin: { target: 'cpu', data: [], dataHash: '', tokenizerHash: '' },
      ...given,
    });
  } finally {
    model.close();
  }
}

test('a sound model passes, and leaves nothing behind', async () => {
  const findings = await check();
  assert.is(findings.length, 6);
  assert.not(
    findings.some(({ warns }) => warns),
    JSON.stringify(findings),
  );
  assert.equal(readdirSync(folder), []);
});

const faults: readonly (readonly [what: string, says: RegExp, Parameters<typeof check>])[] = [
  [
    'a tokenizer that loses text',
    /the tokenizer does not give the text back: "one line" comes back as "one/,
    [{}, { tokenizer: { ...characters, encode: (text: string) => characters.encode(text.slice(0, 4)) } as never }],
  ],
  [
    'a first loss that is no number',
    /the first loss is NaN/,
    [{ evaluate: async () => ({ loss: Number.NaN, gradientNorm: 0, auxiliary: 0, scored: 1 }) }],
  ],
  [
    'a model that looks ahead',
    /later tokens change the predictions before them/,
    [
      {
        async forward(this: NativeModel, text: Int32Array) {
          const ahead = text.map((token, place) => (token + (text[place + 1] ?? 0)) % 32);
          return await Object.getPrototypeOf(this).forward.call(this, ahead, { batch: 1, time: ahead.length });
        },
      },
    ],
  ],
  [
    'decoding that differs',
    /decoded token by token gives other predictions/,
    [{ decode: async () => new Float32Array(32).fill(1) }],
  ],
  [
    'a model that does not learn',
    /the loss of one batch falls from 3\.500 to no less than 3\.500 in 100 steps/,
    [{ step: async () => ({ loss: 3.5, gradientNorm: 1, auxiliary: 0, scored: size }) }],
  ],
];
for (const [what, says, given] of faults)
  test(`${what} is found`, async () => {
    const error = await check(...given).catch(fault => fault);
    assert.instance(error, UserError);
    assert.match(error.message, says);
    assert.match(error.message, /--no-self-check begins all the same/);
    assert.equal(readdirSync(folder), []);
  });

test('weights that come back changed are found', async () => {
  let calls = 0;
  const error = await check({
    async forward(this: NativeModel, text: Int32Array) {
      calls += 1;
      const logits = await Object.getPrototypeOf(this).forward.call(this, text, { batch: 1, time: text.length });
      // The last of all is that of the weights that were read.
      return calls === 5 ? logits.map((value: number) => value + 1e-6) : logits;
    },
  }).catch(fault => fault);
  assert.match(error.message, /was saved in .* and read again predicts otherwise/);
});

test.run();
