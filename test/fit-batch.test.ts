// `--batch-size auto`: the largest batch whose memory is free, and what is refused.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MachineError, UserError } from '../compiler/diagnostic.ts';
import { type BatchRequest, fitBatch } from '../runtime/train/fit-batch.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('fit batch');

const request = (changes: Partial<BatchRequest>): BatchRequest => ({
  bytesOf: batch => 1000 + 100 * batch,
  free: 10_000,
  owner: 'this machine',
  time: 16,
  most: 1000,
  ...changes,
});

test('the largest that fits beside what is left to others', () => {
  // 9000 bytes of 10000.
  assert.is(fitBatch(request({})), 80);
  assert.is(fitBatch(request({ most: 12 })), 12);
  // What the program refuses does not fit.
  assert.is(fitBatch(request({ bytesOf: batch => (batch > 5 ? null : batch) })), 5);
});

test('whole micro-batches have the tokens of an update', () => {
  assert.is(fitBatch(request({ tokensPerStep: 16 * 96 })), 48);
  assert.is(fitBatch(request({ tokensPerStep: 16 * 97 })), 1);
  assert.throws(
    () => fitBatch(request({ tokensPerStep: 100 })),
    (error: Error) => error instanceof UserError && /no whole number of sequences of --seq-len 16/.test(error.message),
  );
});

test('a single sequence that does not fit is the machine’s want', () => {
  assert.throws(
    () => fitBatch(request({ free: 1200 })),
    (error: Error) => error instanceof MachineError && /needs 1.1KiB; this machine has 1.2KiB free/.test(error.message),
  );
});

test('it fits, and the next that could be does not', () => {
  fc.assert(
    fc.property(
      fc.record({
        fixed: fc.nat(5000),
        each: fc.integer({ min: 1, max: 400 }),
        sequences: fc.integer({ min: 1, max: 200 }),
      }),
      ({ fixed, each, sequences }) => {
        const bytesOf = (batch: number) => fixed + each * batch;
        fc.pre(bytesOf(1) <= 9000);
        const batch = fitBatch(request({ bytesOf, tokensPerStep: 16 * sequences }));
        assert.ok(bytesOf(batch) <= 9000 && sequences % batch === 0);
        for (let more = batch + 1; more <= sequences; more++)
          assert.ok(bytesOf(more) > 9000 || sequences % more !== 0, `${more} would do, not ${batch}`);
      },
    ),
    { seed: 3 },
  );
});

test.run();
