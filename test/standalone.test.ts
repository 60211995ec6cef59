// `malc compile --standalone`: the trainer in C, built by the command that malc prints, held against the same steps from
// Node bit for bit; what it refuses; and the same source as a program for CUDA, on the emulator and by nvcc.
import { execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { SafetensorsFile } from '../runtime/hub/safetensors.ts';
import { NativeModel } from '../runtime/native.ts';
import { learningRateAt } from '../runtime/train/schedule.ts';
import { ship } from './fixtures/shipped.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('standalone');
const { folder, run, remove } = ship();
test.after(remove);
const call = promisify(execFile);

writeFileSync(
  join(folder, 'small.mal'),
  `attention a { num_heads: 2 position_encoding: rope { theta: 10000 } }
ffn f { hidden_dim: 24 activation: swiglu }
block b { attention: a ffn: f norm: rmsnorm }
model small { vocab_size: 64 hidden_size: 16 num_layers: 2 max_seq_len: 32 block: b }
`,
);
const ids = Uint16Array.from({ length: 3000 }, (_, n) => (n * 7 + Math.floor(n / 5)) % 64);
writeFileSync(join(folder, 'train.bin'), ids);
writeFileSync(join(folder, 'cut.bin'), new Uint8Array(ids.buffer).subarray(0, 999));

const [steps, batch, time, accumulation, seed] = [12, 3, 16, 2, 5];
const sizes = ['--steps', steps, '--batch', batch, '--time', time, '--accumulation', accumulation, '--seed', seed];
const training = ['--tokens', 'train.bin', ...sizes.map(String), '--lr', '0.01', '--warmup', '3'];

/** Runs a trainer that was built in a folder. */
async function train(place: string, words: readonly string[]) {
  const options = { cwd: folder, env: { ...process.env, OMP_NUM_THREADS: '2' } };
  return call(join(folder, place, 'train'), [...words], options).then(
    ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
    ({ code, stdout, stderr }) => ({ status: code as number, stdout, stderr }),
  );
}

/** Compiles, and returns the printed command that builds the trainer. */
async function compile(words: readonly string[], environment: Record<string, string> = {}): Promise<string> {
  const { status, stderr } = await run(['compile', 'small.mal', '--standalone', ...words], environment);
  assert.is(status, 0, stderr);
  return stderr.slice(stderr.indexOf('\n  ') + 3).replaceAll('\n  ', '\n');
}

/** Runs a command that must have nothing to say. */
async function quietly(command: string, place: string): Promise<void> {
  const said = await call('sh', ['-c', command], { cwd: join(folder, place) });
  assert.equal([said.stdout, said.stderr], ['', '']);
}

/** The n-th number of SplitMix64, as the trainer's heading has it. */
function randomAt(from: number, n: number): bigint {
  const mask = 0xffffffffffffffffn;
  let bits = (BigInt(from) + BigInt(n + 1) * 0x9e3779b97f4a7c15n) & mask;
  bits = ((bits ^ (bits >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
  bits = ((bits ^ (bits >> 27n)) * 0x94d049bb133111ebn) & mask;
  return bits ^ (bits >> 31n);
}

/** The same training, from Node: each step's loss, and the model. */
async function trainFromNode(library: string): Promise<{ losses: number[]; model: NativeModel }> {
  const model = NativeModel.open(library, { maxBatch: batch, maxTime: time, maxContext: 0, training: true, seed });
  await model.initialize(seed);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const places = Array.from({ length: batch * accumulation }, (_, n) =>
      Number(randomAt(seed, step * batch * accumulation + n) % BigInt(ids.length - time)),
    );
    const from = (shift: number) =>
      Int32Array.from(places.flatMap(place => [...ids.subarray(place + shift, place + shift + time)]));
    const { loss } = await model.step(from(0), from(1), {
      ...{ microBatches: accumulation, batch, time },
      update: {
        learningRate: learningRateAt(
          { kind: 'cosine', peak: 0.01, floor: 0.1, warmupSteps: 3, decaySteps: 0, steps },
          step,
        ),
        ...{ beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1, update: step + 1 },
      },
    });
    losses.push(loss);
  }
  return { losses, model };
}

const lossesIn = (output: string) => [...output.matchAll(/^ +\d+\/\d+ +([\d.]+) /gm)].map(([, loss]) => Number(loss));

/** Weights that a trainer saved, held against a model's by `same`. */
function holdWeights(path: string, model: NativeModel, same: (a: Float32Array, b: Float32Array, name: string) => void) {
  const file = SafetensorsFile.open(join(folder, path));
  assert.equal(
    [...file.tensors.keys()],
    model.parameters.map(({ name }) => name),
  );
  for (const { name, shape, data } of model.parameters) {
    assert.equal(file.tensors.get(name)!.shape, shape);
    same(file.read(name), Float32Array.from(data), name);
  }
  file.close();
}

test('it builds with the C compiler alone, and trains as Node does, to the bit', async () => {
  await quietly(await compile(['-o', 'cpu']), 'cpu');
  const { status, stdout, stderr } = await train('cpu', [...training, '--validation', 'train.bin', '--save', 'cpu.st']);
  assert.is(status, 0, stderr);
  assert.match(stdout, /^ {2}step +loss +val +norm +lr +tok\/s +mem +left$/m);
  const { losses, model } = await trainFromNode(join(folder, 'cpu/model.so'));
  const shown = lossesIn(stdout);
  assert.equal(
    shown,
    losses.map(loss => Number(loss.toFixed(4))),
  );
  assert.ok(shown.at(-1)! < shown[0]! - 0.3, `the loss falls: ${shown}`);
  holdWeights('cpu.st', model, (actual, expected, name) => assert.equal(actual, expected, name));
  model.close();
});

test('weights that are loaded are those that were saved', async () => {
  const words = ['--tokens', 'train.bin', '--time', '16', '--steps', '1', '--lr', '1e-40'];
  const { status, stderr } = await train('cpu', [...words, '--load', 'cpu.st', '--save', 'again.st']);
  assert.is(status, 0, stderr);
  const [saved, again] = ['cpu.st', 'again.st'].map(name => SafetensorsFile.open(join(folder, name)));
  for (const name of saved!.tensors.keys()) assert.equal(again!.read(name), saved!.read(name), name);
  for (const file of [saved!, again!]) file.close();
});

test('every fault of the input is told', async () => {
  const whole = readFileSync(join(folder, 'cpu.st'));
  writeFileSync(join(folder, 'torn.st'), whole.subarray(0, whole.length - 5));
  const text = whole.toString('latin1');
  const changed = (from: string, to: string) => Buffer.from(text.replace(from, to), 'latin1');
  writeFileSync(join(folder, 'renamed.st'), changed('model.norm.weight', 'model.nrom.weight'));
  writeFileSync(join(folder, 'reshaped.st'), changed('"shape":[64,16]', '"shape":[16,64]'));
  writeFileSync(
    join(folder, 'large.bin'),
    Uint16Array.from(ids, id => id + 1),
  );
  const usual = ['--tokens', 'train.bin', '--steps', '1'];
  const faults: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /^error: --tokens is needed/],
    [['--token', 'x'], /there is no option --token; --help/],
    [['--tokens'], /--tokens expects a value/],
    [['--tokens', 'none.bin'], /cannot read none\.bin: No such file/],
    [['--tokens', 'cut.bin'], /cut\.bin has 999 bytes, and uint16 tokens take 2 each/],
    [['--tokens', 'large.bin'], /a token is outside the vocabulary/],
    [[...usual, '--time', '33'], /--time needs a whole number from 1 to 32, not 33/],
    [[...usual, '--lr', 'fast'], /--lr needs a number above 0, not fast/],
    [[...usual, '--warmup', '2'], /--warmup is 2 steps; there are 1/],
    [[...usual, '--save', 'no/where.st'], /cannot write no\/where\.st: No such file/],
    [[...usual, '--load', 'train.bin'], /train\.bin is no safetensors file/],
    [[...usual, '--load', 'torn.st'], /torn\.st is cut short: \S+ is not all there/],
    [[...usual, '--load', 'renamed.st'], /renamed\.st lacks the tensor model\.norm\.weight/],
    [
      [...usual, '--load', 'reshaped.st'],
      /embed_tokens\.weight has another shape than in the model: "shape":\[64,16\]/,
    ],
  ];
  for (const [words, says] of faults) {
    const { status, stderr } = await train('cpu', words);
    assert.is(status, 1, words.join(' '));
    assert.match(stderr, says);
  }
});

test('Ctrl-C finishes the step, saves and leaves', async () => {
  const words = ['--tokens', 'train.bin', '--steps', '1000000', '--save', 'stopped.st'];
  const child = spawn(join(folder, 'cpu/train'), words, { cwd: folder, env: { ...process.env, OMP_NUM_THREADS: '1' } });
  const told = new Promise<string>(resolve => {
    let output = '';
    // Its first step is shown when it listens; a second signal would end it before it has saved.
    child.stdout.once('data', () => child.kill('SIGINT'));
    child.stdout.on('data', chunk => {
      output += chunk;
    });
    child.on('close', code => resolve(`${code} ${output}`));
  });
  assert.match(await told, /^130 [\s\S]*stopped after step \d+, saved\n$/);
  SafetensorsFile.open(join(folder, 'stopped.st')).close();
});

test('weights of 8 bits do not train', async () => {
  const { status, stderr } = await run(['compile', 'small.mal', '--standalone', '--dtype', 'int8']);
  assert.is(status, 1);
  assert.match(stderr, /--standalone trains, and weights of 8 bits/);
  const other = await run(['compile', 'small.mal', '--optimizer', 'muon', '--dtype', 'int8']);
  assert.match(other.stderr, /the optimizer muon is for training, and weights of 8 bits/);
});

/** Writes whatever it is asked for, empty: the library is not what is tested here, and takes nvcc long. */
const paperCompiler = join(folder, 'nvcc');
writeFileSync(
  paperCompiler,
  `#!/bin/sh
[ "$1" = --version ] && echo 'Cuda compilation tools, release 13.0, V13.0.88' && exit
while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done
`,
  { mode: 0o755 },
);
const forCuda = await compile(['-o', 'cuda', '--target', 'cuda'], { NVCC: paperCompiler });

test('for CUDA it is a translation unit more, and nvcc builds all that are there', () => {
  assert.ok(existsSync(join(folder, 'cuda/train.cu')));
  assert.match(forCuda.replaceAll(/\\\n +/g, ''), / \*\.cu -o train\n$/);
  assert.not.match(forCuda, /-shared| -c |fPIC/);
});

const nvcc = await findCudaCompiler().catch(() => null);
if (nvcc)
  test('it builds with nvcc alone, and says where there is no GPU', async () => {
    await quietly(forCuda.replace(paperCompiler, nvcc.command), 'cuda');
    const { status, stderr } = await train('cuda', [...training, '--save', 'gpu.st']);
    if (status !== 0) assert.match(stderr, /^error: no GPU can be used: /);
  });
else console.log('no nvcc: the trainer is built for CUDA on the emulator alone');

if (await emulatorAvailable())
  test('on the emulator it trains as on the CPU, rounding aside', async () => {
    const place = join(folder, 'cuda');
    const units = readdirSync(place).filter(name => name.endsWith('.cu'));
    const sources = units.map(name => join(place, name));
    await buildEmulated({ sources, include: [place], output: join(place, 'train'), checked: false });
    const { status, stdout, stderr } = await train('cuda', [...training, '--save', 'emulated.st']);
    assert.is(status, 0, stderr);
    const { losses, model } = await trainFromNode(join(folder, 'cpu/model.so'));
    for (const [n, loss] of lossesIn(stdout).entries()) assert.ok(Math.abs(loss - losses[n]!) < 2e-4, `step ${n}`);
    holdWeights('emulated.st', model, (actual, expected, name) => {
      const most = Math.max(...actual.map((value, n) => Math.abs(value - expected[n]!)));
      assert.ok(most < 1e-3, `${name}: ${most}`);
    });
    model.close();
  });

test.run();
