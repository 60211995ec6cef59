// Recompute: the same bits in less memory, over every sort of block; what runs again, and what it is counted as.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, parametersOf } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { type CompileOptions, compile } from '../compiler/index.ts';
import { bytesKept, type Recompute, recomputedBlocks } from '../compiler/plan/recompute.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { UsageError } from '../runtime/commands/command.ts';
import { readRecompute } from '../runtime/commands/recompute-option.ts';
import { open } from './held-against-oracle.ts';
import { recomputeModel, stepSize, stepsOf } from './recompute-models.ts';

const test = suite('recompute');

const every = recomputeModel('every');

test('memory falls by a block for each that runs again, down to one', () => {
  const counts = [0, 0.01, 0.1, 0.14, 0.5, 0.85, 0.9, 0.99, 1].map(share => recomputedBlocks(share, 10));
  assert.equal(counts, [0, 1, 1, 1, 5, 9, 9, 9, 9]);
  assert.equal([recomputedBlocks('none', 10), recomputedBlocks('block', 10), recomputedBlocks('block', 1)], [0, 9, 0]);
  for (const wrong of [-0.1, 1.1, Number.NaN]) assert.throws(() => recomputedBlocks(wrong, 10), /share from 0 to 1/);

  const uniform = {
    blocks: Array.from({ length: 10 }, () => 'block'),
    alignment: 4,
    values: { block: { query: { floats: 3, growth: 'batch*time' }, decay: { floats: 2, growth: '' } } },
  };
  for (let recomputed = 0; recomputed < 10; recomputed++)
    assert.is(bytesKept({ ...uniform, recomputed }, { batch: 5, time: 7 }), 4 * (3 * 5 * 7 + 2) * (10 - recomputed));
  // What shares a place has the room of the largest.
  const mixed = {
    blocks: ['a', 'b', 'a'],
    recomputed: 1,
    alignment: 64,
    values: { a: { x: { floats: 3, growth: 'time' } }, b: { y: { floats: 17, growth: 'time' } } },
  };
  const bytes = [0, 1, 2].map(recomputed => bytesKept(mixed, { time: 1 }, recomputed));
  assert.equal(bytes, [64 + 128 + 64, 128 + 64, 128]);
});

/** No optimisation: what is compared are programs of the same kernels. */
const flags = ['-O0'];

async function run(recompute: Recompute, options: Pick<CompileOptions, 'profile' | 'frozen'> = {}, model = every) {
  const native = await open(model, { fuse: true, recompute, flags, ...options }, stepSize);
  const found = { ...(await stepsOf(native, model, 2)), bytes: native.bytes, profile: native.profile() };
  native.close();
  return found;
}

test('weights, gradients, moments, losses: the same bits with every block, with half of them, and without', async () => {
  const [none, half, block] = [await run('none'), await run(0.5, { profile: true }), await run('block')];
  for (const { results, parameters } of [half, block]) {
    assert.equal(results, none.results);
    for (const [n, { name, values }] of parameters.entries()) assert.equal(values, none.parameters[n]!.values, name);
  }

  // A profile counts what runs again as calls of its own, in every micro-batch of both steps.
  const { launches, plan } = compile(every, { recompute: 0.5, profile: true });
  const counted = new Map(half.profile.map(({ name, calls }) => [name, calls]));
  const again = launches.filter(launch => launch.function.endsWith('_again'));
  const recomputed = plan.kept.blocks.slice(0, 5);
  assert.equal(new Set(again.map(launch => launch.function)), new Set(recomputed.map(name => `${name}_again`)));
  for (const { name, count } of again) assert.is(counted.get(name), count * stepSize.microBatches * 2, name);

  // The program's memory is less by exactly what the plan says.
  const bytes = (count: number) => bytesKept(plan.kept, stepSize, count);
  assert.equal([none.bytes - half.bytes, none.bytes - block.bytes], [bytes(0) - bytes(5), bytes(0) - bytes(9)]);
});

test('frozen layers have nothing to keep: the trained ones above run again', async () => {
  const few = recomputeModel('few');
  const names = parametersOf(buildProgram(few, standardLibrary())).map(({ name }) => name);
  const frozen = names.filter(name => /embed|layers\.0\./.test(name));
  const [none, block] = [await run('none', { frozen }, few), await run('block', { frozen }, few)];
  assert.equal([block.results, block.parameters], [none.results, none.parameters]);
  const { kept } = compile(few, { recompute: 'block', frozen }).plan;
  assert.equal([kept.blocks.length, kept.recomputed], [2, 1]);
  assert.is(none.bytes - block.bytes, bytesKept(kept, stepSize, 0) - bytesKept(kept, stepSize));
});

test('kernels are those of the forward pass, without those that only the stream needs', () => {
  for (const options of [{ dtype: 'f32' }, { target: 'cuda', dtype: 'bf16' }] satisfies CompileOptions[]) {
    const [none, block] = (['none', 'block'] as const).map(recompute => compile(every, { ...options, recompute }));
    assert.equal(block!.kernels, none!.kernels);
    const changed = Object.keys(none!.files).filter(name => none!.files[name] !== block!.files[name]);
    assert.equal(changed, [options.dtype === 'f32' ? 'model.c' : 'model.cu']);
    const [before, after] = [none, block].map(({ files } = none!) => files[changed[0]!]!.split('\n'));
    const added = after!.filter((line, n) => !before!.includes(line) || (line === '' && after![n + 1] === ''));
    assert.equal(
      added.filter(line => line.length > 120 || line.trimEnd() !== line || line === ''),
      [],
    );
  }
  const llama = check(parse('model llama { num_layers: 3 }', 'llama.mal').syntax).model!;
  const { functions, kept } = compile(llama, { recompute: 'block' }).plan;
  const launchesOf = (name: string) => functions.find(each => each.name === name)!.launches;
  const [forward, again] = [launchesOf('block_forward'), launchesOf('block_again')];
  assert.equal(again, forward.slice(0, again.length));
  assert.equal(forward.slice(again.length), ['block_y']);
  assert.equal([kept.recomputed, kept.blocks.length], [2, 3]);
});

test('what is not meant is refused', () => {
  assert.equal(['none', 'block', '0.5', '1', undefined].map(readRecompute), ['none', 'block', 0.5, 1, 'none']);
  for (const wrong of ['', 'all', '-0.1', '1.5', 'NaN'])
    assert.throws(
      () => readRecompute(wrong),
      (error: Error) => error instanceof UsageError && /from 0 to 1/.test(error.message),
    );
  assert.throws(
    () => compile(every, { recompute: 'block', dtype: 'int8' }),
    (error: Error) => error instanceof UserError && /int8.* inference alone/.test(error.message),
  );
});

test.run();
