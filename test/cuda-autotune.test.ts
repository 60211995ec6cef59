// `--autotune` on a GPU: what is measured, chosen and kept, with a tuner whose times are written down here; the real one on the
// emulator, whose times mean nothing; and programs that follow choices.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { type ChoiceOf, isInAnyOrder, type Tunable } from '../compiler/targets/cuda/tunable.ts';
import { emitTuner, isOfStep } from '../compiler/targets/cuda/tuner.ts';
import { autotuneCuda, type Finding, failuresOf, type TuningPlace } from '../runtime/autotune-cuda.ts';
import { checkAnyOrder } from '../runtime/autotune-option.ts';
import type { Builder } from '../runtime/cache.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import { NativeModel } from '../runtime/native.ts';
import { tuningTable } from '../runtime/show/bench-tables.ts';
import { buildEmulatedModel, programFolder } from './cuda/build.ts';
import { buildStandIn } from './cuda/stand-in.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('autotune on cuda');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-autotune-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
process.env.MALC_SIMT_CAPABILITY = '9.0';

const text = `attention a { num_heads: 2 }
ffn f { hidden_dim: 48 activation: gelu gate: false }
block b { attention: a ffn: f }
model small { vocab_size: 40 hidden_size: 32 num_layers: 1 max_seq_len: 32 block: b }
`;
const model = modelOf(text);

const experts = modelOf(`model experts {
  vocab_size: 24
  hidden_size: 64
  num_layers: 1
  max_seq_len: 32
  block {
    attention { num_heads: 2 num_kv_heads: 1 }
    ffn { hidden_dim: 64 activation: swiglu moe { experts: 3 top_k: 2 } }
  }
}
`);

function modelOf(source: string): Model {
  const { model } = check(parse(source, 'small.mal').syntax);
  assert.ok(model);
  return model!;
}

/** What of a model there are several ways for, with what is chosen. */
function tunablesOf(of: Model, choiceOf: ChoiceOf = () => null, masksDocuments = false): Tunable[] {
  const tunables = new Map<string, Tunable>();
  compile(of, {
    target: 'cuda',
    dtype: 'bf16',
    masksDocuments,
    choiceOf(tunable) {
      tunables.set(tunable.key, tunable);
      return choiceOf(tunable);
    },
  });
  return [...tunables.values()];
}

const circumstances = { tokens: 128, multiprocessors: 4 };

test('what a training step computes is measured, and nothing of decoding', () => {
  const tunables = tunablesOf(model).filter(isOfStep);
  const there = tunables.map(({ name }) => name);
  assert.ok(there.includes('block_forward: query, key, value'), there.join('\n'));
  const head = tunables.filter(({ name }) => name.startsWith('head_'));
  assert.ok(head.length > 0 && head.every(({ part }) => part === 4096));
});

test("attention's gradient is measured in each order that it may have, experts' products in several schedules", () => {
  const tunables = tunablesOf(experts).filter(({ name }) => !name.startsWith('block_decode'));
  const [attention] = tunables.filter(({ kind }) => kind === 'attention-gradient');
  const ordersOf = (anyOrder: boolean) => attention!.candidates(circumstances, anyOrder);
  const inOrder = [{ queryGradient: 'in-turn' }, { queryGradient: 'second-pass' }];
  assert.equal(ordersOf(false), inOrder);
  assert.equal(ordersOf(true), [...inOrder, { queryGradient: 'as-they-come' }]);
  for (const kind of ['grouped', 'grouped-gradient'] as const) {
    const own = tunables.filter(each => each.kind === kind);
    assert.ok(
      own.length > 1 && own.every(each => each.experts === 3 && each.candidates(circumstances, false).length > 2),
    );
  }
});

test('what is measured gets what it can make sense of: slots that choose experts, the bounds of documents', () => {
  const buffersOf = (of: Model, wanted: string, masksDocuments = false) => {
    const tunables = tunablesOf(of, undefined, masksDocuments).filter(({ name }) => name.includes(wanted));
    const choices = [{ schedule: null, library: false }];
    return emitTuner(tunables.map(tunable => ({ tunable, choices })))['tune.cu']!;
  };
  assert.match(buffersOf(experts, 'experts_down_proj'), /\{batch \* time \* 8, malc_filling::integers, 3\}/);
  const masked = buffersOf(model, 'query_gradient', true);
  assert.match(masked, /\{batch \* time \* 8, malc_filling::bounds, \(unsigned\)time\}/);
  // Sums over rows are finished by a header of their own.
  const biased = modelOf(text.replace('{ hidden_dim: 48', '{ bias: true hidden_dim: 48'));
  const [totals] = tunablesOf(biased).filter(({ name }) => name.includes('up_proj_bias_gradient'));
  assert.ok('totals.h' in emitTuner([{ tunable: totals!, choices: [{ schedule: null, library: false }] }]));
});

test('sums in any order are only where they are asked for, and on a GPU', () => {
  const choiceOf: ChoiceOf = ({ kind }) =>
    kind === 'attention-gradient' ? { schedule: { queryGradient: 'as-they-come' }, library: false } : null;
  const options = { target: 'cuda', dtype: 'bf16', choiceOf } as const;
  assert.throws(() => compile(experts, options), /its order is to be the same/);
  const { files } = compile(experts, { ...options, anyOrder: true });
  assert.match(files['attention.cu']!, 'part of\n * that of queries as it comes');
  assert.throws(() => compile(experts, { anyOrder: true }), /sums in any order are for the target cuda/);
  const refused = (args: object, target: 'cpu' | 'cuda') => () => checkAnyOrder({ 'any-order': true, ...args }, target);
  assert.throws(refused({ autotune: true }, 'cpu'), /--any-order is for a GPU/);
  assert.throws(refused({}, 'cuda'), /add --autotune/);
  refused({ autotune: true }, 'cuda')();
});

test('a choice of what the cost model says is no change, another is', () => {
  const files = (choiceOf?: ChoiceOf) =>
    compile(model, { target: 'cuda', dtype: 'bf16', ...(choiceOf && { choiceOf }) }).files;
  const usual = files();
  assert.equal(
    files(() => ({ schedule: null, library: false })),
    usual,
  );
  const other = files(product => ({
    schedule: product.candidates({ tokens: 64, multiprocessors: 132 }, false).at(-1) ?? null,
    library: true,
  }));
  const changed = Object.keys(other).filter(name => other[name] !== usual[name]);
  assert.equal(changed.filter(name => name.endsWith('.cu')).sort(), ['attention.cu', 'model.cu', 'products.cu']);
  assert.ok('cublas.h' in other && !('cublas.h' in usual));
  // It is opened before graphs are captured.
  assert.match(other['model.cu']!, 'malc_find_cublas();');
  assert.not.match(usual['model.cu']!, 'cublas');
});

test('each product says how it is divided, and what was measured is a table', () => {
  const { kernels } = compile(model, {
    target: 'cuda',
    dtype: 'bf16',
    choiceOf: () => ({ schedule: null, library: true }),
  });
  const scheduled = kernels.filter(({ schedule }) => schedule !== null);
  const ofProducts = scheduled.filter(({ kind }) => kind === 'matmul');
  assert.ok(ofProducts.length > 5);
  for (const { schedule } of ofProducts) assert.match(schedule!, /^128 x \d+, .*; cuBLASLt where it is$/);
  const others = scheduled.filter(({ kind }) => kind !== 'matmul').map(({ kind, schedule }) => [kind, schedule]);
  assert.equal(others, [['attention-gradient', 'five products at once, dQ added up in turn']]);
  const own = { schedule: null, library: false };
  const library = { schedule: null, library: true };
  const ways = [
    { choice: own, seconds: 3e-5, failed: null },
    { choice: library, seconds: 2e-5, failed: null },
    {
      choice: { schedule: { queryGradient: 'second-pass' }, library: false },
      seconds: null,
      failed: 'too many',
    } as const,
  ];
  const table = tuningTable([{ launch: 'head: y', size: [1, 64], ways, own: 0, choice: library }]);
  assert.match(table, /head: y +1 x 64 +30\.0 +30\.0 +20\.0 +1\.50 x +cuBLASLt$/m);
  assert.match(table, /failed, and left out: head: y, seven products, dQ by a pass of its own: too many$/);
});

/**
 * A tuner whose first ways take `times`, and others cannot be. A way fails that takes no number, with this text.
 * @param lost whether the device does not go on after a failure
 */
function paperPlace(times: readonly (number | string)[], lost = false): { place: TuningPlace; builds: () => number } {
  let builds = 0;
  const list = times.map(each => (typeof each === 'string' ? '__builtin_nan("")' : each));
  const text = JSON.stringify(times.find(each => typeof each === 'string') ?? '');
  const source = `static const double times[] = {${list.join(', ')}};
    const char *malc_tune(int number, long long batch, long long time, int rounds, double seconds, double *took) {
      const char *stopped = 0;
      for (unsigned n = 0; n < sizeof times / sizeof *times; n++) {
        if (times[n] != times[n] && took[n] == took[n] && ${Number(lost)}) stopped = ${text};
        took[n] = times[n];
      }
      return stopped;
    }
    const char *malc_tune_failure(int way) { return ${text}; }`;
  const builder: Builder = {
    command: 'paper',
    leadingArguments: [],
    version: JSON.stringify(times),
    flags: [],
    async build(where, output) {
      builds++;
      writeFileSync(join(where, 'paper.c'), source);
      execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', join(where, 'paper.c'), '-o', output]);
      return '';
    },
  };
  return {
    place: { builder, gpu: 'Paper GPU, driver 13.0', multiprocessors: 132, isHopper: true },
    builds: () => builds,
  };
}

const request = { model, dtype: 'bf16', batch: 4, time: 32 } as const;

/** Runs with a cache of its own, and this said of cuBLASLt. */
async function inCache<T>(cublas: string, run: (cache: string) => Promise<T>): Promise<T> {
  const before = { ...process.env };
  const cache = mkdtempSync(join(folder, 'cache-'));
  Object.assign(process.env, { MALC_CACHE: cache, MALC_CUBLAS: cublas });
  try {
    return await run(cache);
  } finally {
    process.env.MALC_CACHE = before.MALC_CACHE;
    delete process.env.MALC_CUBLAS;
  }
}

test('the first choice stands unless another is clearly faster', () =>
  inCache('0', async () => {
    const near = await autotuneCuda(request, paperPlace([1e-3, 0.98e-3]).place);
    assert.ok(near.findings.length > 5);
    for (const { own, ways, choice } of near.findings) assert.equal([own, choice], [0, ways[0]!.choice]);
    const clear = await autotuneCuda(request, paperPlace([1e-3, 0.9e-3]).place);
    for (const { own, ways, choice } of clear.findings) assert.equal([own, choice], [1, ways[1]!.choice]);
    const tunables = tunablesOf(model, clear.choiceOf).filter(isOfStep);
    assert.ok(tunables.some(tunable => clear.choiceOf(tunable)?.schedule));
  }));

test('what was measured is kept for this GPU, program and size', () =>
  inCache('0', async cache => {
    const { place, builds } = paperPlace([1e-3, 0.5e-3]);
    const started: number[] = [];
    const told = { ...request, onStart: (products: number) => void started.push(products) };
    const first = await autotuneCuda(told, place);
    const second = await autotuneCuda(told, place);
    assert.equal([builds(), started], [1, [first.findings.length]]);
    assert.equal(second.findings, first.findings);
    const kept = () => readdirSync(join(cache, 'schedules')).length;
    assert.is(kept(), first.findings.length);
    await autotuneCuda(told, { ...place, gpu: 'Paper GPU, driver 13.1' });
    assert.is(kept(), 2 * first.findings.length);
    await autotuneCuda({ ...told, batch: 8 }, place);
    assert.is(kept(), 3 * first.findings.length);
  }));

test('a way that fails is told of and left out', () =>
  inCache('0', async () => {
    const told: Finding[] = [];
    const onFinding = (finding: Finding) => void told.push(finding);
    const { findings } = await autotuneCuda({ ...request, onFinding }, paperPlace(['too large', 1e-3, 2e-3]).place);
    assert.equal(told, findings, 'each is told of as it is measured');
    for (const finding of findings) {
      assert.equal([finding.own, finding.ways[0]!.seconds, finding.ways[0]!.failed], [1, null, 'too large']);
      const [failure, ...none] = failuresOf(finding);
      assert.equal(none, []);
      assert.match(failure!, /^\w+: .*, (128 x \d+, .* stages, .*|five products at once, .*): too large$/);
    }
  }));

test('a GPU that does not go on is told of with the launch and the way, which is left out the next time', () =>
  inCache('0', async () => {
    const { place } = paperPlace([1e-3, 'illegal address'], true);
    const messages: string[] = [];
    const tuned = async (): Promise<readonly Finding[]> => {
      try {
        return (await autotuneCuda(request, place)).findings;
      } catch (error) {
        messages.push((error as Error).message);
        return await tuned();
      }
    };
    const findings = await tuned();
    assert.is(messages.length, findings.length, 'each launch has such a way');
    assert.match(
      messages[0]!,
      /^tuning \w+: .*, 128 x \d+, .* on Paper GPU, driver 13\.0: illegal address; the GPU did not/,
    );
    for (const { own, ways } of findings) assert.equal([own, ways[1]!.failed], [0, 'illegal address']);
  }));

test('--any-order measures one way more of attention, or is refused', () =>
  inCache('0', async () => {
    const { place } = paperPlace([1e-3, 1e-3, 0.5e-3]);
    const orders = async (anyOrder: boolean) => {
      const { findings } = await autotuneCuda({ ...request, anyOrder }, place);
      return findings.filter(({ choice }) => isInAnyOrder(choice)).length;
    };
    assert.equal([await orders(false), await orders(true)], [0, 1]);
    for (const [of, where, reason] of [
      [
        model,
        { ...place, isHopper: false },
        /^--any-order is for GPUs of compute capability 9\.0, and this is Paper GPU; /,
      ],
      [
        modelOf(text.replace('{ num_heads: 2 }', '{ num_heads: 2 dropout: 0.1 }')),
        place,
        /^--any-order: no attention of this/,
      ],
    ] as const) {
      try {
        await autotuneCuda({ ...request, model: of, anyOrder: true }, where);
        assert.unreachable();
      } catch (error) {
        assert.match((error as Error).message, reason);
      }
    }
  }));

test('a library that is named and not there is refused', () =>
  inCache('/none/libcublasLt.so', async () => {
    try {
      await autotuneCuda(request, paperPlace([1]).place);
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /^MALC_CUBLAS names \/none\/libcublasLt\.so, which is no cuBLASLt: /);
    }
  }));

if (await emulatorAvailable()) {
  const standIn = await buildStandIn(folder);

  test('cuBLASLt is a candidate where it is, and is taken where it is clearly faster', () =>
    inCache(standIn, async () => {
      // With one schedule only, the library's time is the second.
      const place = { ...paperPlace([1e-3, 0.9e-3]).place, isHopper: false };
      const { findings } = await autotuneCuda(request, place);
      for (const { ways, choice } of findings) {
        assert.equal(
          ways.map(way => way.choice.library),
          [false, true],
        );
        assert.equal(choice, { schedule: null, library: true });
      }
      const none = await autotuneCuda(request, { ...paperPlace([1e-3, -1]).place, isHopper: false });
      for (const { ways, choice } of none.findings) assert.equal([ways[1]!.seconds, choice.library], [null, false]);
    }));

  test('the tuner runs every way of products, of those of experts, and of attention', async () => {
    const wanted = ['block_forward: expert_outputs', 'experts_down_proj', 'query_gradient', 'k_proj_weight_gradient'];
    const own = { schedule: null, library: false };
    const trials = tunablesOf(experts)
      .filter(({ name }) => wanted.some(part => name.includes(part)))
      .map(tunable => ({
        tunable,
        choices: [
          ...tunable
            .candidates(circumstances, true)
            .slice(0, tunable.kind === 'attention-gradient' ? 3 : 2)
            .map(schedule => ({ schedule, library: false })),
          ...(tunable.hasLibrary ? [{ ...own, library: true }] : []),
        ],
      }));
    assert.equal(
      trials.map(({ tunable: { kind }, choices }) => [kind, choices.length]),
      [
        ['grouped', 2],
        ['grouped-gradient', 2],
        ['attention-gradient', 3],
        ['matmul', 3],
      ],
    );
    const sources = programFolder();
    const files = emitTuner(trials);
    const broken = files['tune.cu']!.replace('return launch_kernel_2_2(', 'return cudaErrorInvalidConfiguration; $&');
    assert.is.not(broken, files['tune.cu']);
    for (const [name, source] of Object.entries({ ...files, 'tune.cu': broken }))
      writeFileSync(join(sources, name), source);
    const units = Object.keys(files).filter(name => name.endsWith('.cu'));
    for (const [library, cublas] of [
      ['found', standIn],
      ['off', '0'],
    ] as const) {
      const output = join(sources, `${library}.so`);
      if (library === 'found')
        await buildEmulated({
          sources: units.map(name => join(sources, name)),
          include: [sources],
          output,
          library: true,
          checked: false,
        });
      else execFileSync('cp', [join(sources, 'found.so'), output]);
      process.env.MALC_CUBLAS = cublas;
      const { malc_tune, malc_tune_failure } = loadLibrary(output, {
        malc_tune:
          'const char *malc_tune(int32_t number, int64_t batch, int64_t time, int32_t rounds, double seconds, double *took)',
        malc_tune_failure: 'const char *malc_tune_failure(int32_t way)',
      });
      for (const [number, { tunable, choices }] of trials.entries()) {
        // NaN: what is to be left out.
        const took = Float64Array.from(choices, (_, way) => (way === 1 ? Number.NaN : 0));
        assert.is(malc_tune(number, 2, 24, 1, 0, took), null, tunable.name);
        for (const [way, choice] of choices.entries()) {
          const said = `${tunable.name}, way ${way}: ${took[way]} ${malc_tune_failure(way)}`;
          if (way === 1) assert.ok(Number.isNaN(took[way]), said);
          else if (number === 2 && way === 2) assert.match(said, /NaN invalid configuration argument$/);
          else if (choice.library && cublas === '0') assert.is(took[way], -1, said);
          else assert.ok(took[way]! > 0, said);
        }
      }
      delete process.env.MALC_CUBLAS;
    }
  });

  test('a program that was tuned computes the same, by the library and without it', async () => {
    const choiceOf: ChoiceOf = product => {
      const last = product.candidates({ tokens: 40, multiprocessors: 4 }, false).at(-1);
      return { schedule: last ?? null, library: true };
    };
    const tuned = await buildEmulatedModel(model, { dtype: 'bf16', choiceOf });
    const without = join(folder, 'without.so');
    execFileSync('cp', [tuned, without]);
    const expected = await inCache('0', () => stepOf(without));
    const { stand_in_products: products } = loadLibrary(standIn, { stand_in_products: 'int stand_in_products()' });
    const actual = await inCache(standIn, () => stepOf(tuned));
    assert.ok(products() > 20, `${products()} products by the library`);
    assert.ok(Math.abs(actual.loss - expected.loss) < 1e-3 * expected.loss, `${actual.loss}, not ${expected.loss}`);
    assert.ok(
      Math.abs(actual.gradientNorm - expected.gradientNorm) < 1e-2 * expected.gradientNorm,
      `${actual.gradientNorm}, not ${expected.gradientNorm}`,
    );
  });
} else console.log('no g++ that the emulator can use: no tuner runs');

/** The loss and the gradients' norm of a step of two micro-batches. */
async function stepOf(libraryPath: string) {
  const [batch, time] = [2, 20];
  const native = NativeModel.open(libraryPath, {
    maxBatch: batch,
    maxTime: time,
    maxContext: 0,
    training: true,
    seed: 1,
  });
  try {
    await native.initialize(1);
    const tokens = Int32Array.from({ length: 2 * batch * time }, (_, n) => (n * 7) % native.vocabularySize);
    return await native.step(tokens, tokens, { microBatches: 2, batch, time, update: null });
  } finally {
    native.close();
  }
}

test.run();
