// `--target`: what is chosen, refused and told, with a driver of paper, and whole runs on the emulator: trained, resumed to
// the same bits, sampled, verified.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { ship } from './fixtures/shipped.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('targets');
const { folder, run, remove } = ship();
test.after(remove);

const model = `attention a { num_heads: 2 position_encoding: rope { theta: 10000 } }
ffn f { hidden_dim: 24 activation: swiglu }
block b { attention: a ffn: f norm: rmsnorm }
model small { vocab_size: 270 hidden_size: 16 num_layers: 1 max_seq_len: 32 block: b }
`;
writeFileSync(join(folder, 'small.mal'), model);
writeFileSync(join(folder, 'text.txt'), 'the cat sat on the mat, and the dog sat on the cat. '.repeat(60));
const training = ['train', '-m', 'small.mal', '-d', 'text.txt', '-b', '2', '--seq-len', '16', '--steps', '4'];

/** The environment in which the driver has a device of this generation. */
function driverOf(generation: number): Record<string, string> {
  const place = join(folder, `driver-${generation}`);
  mkdirSync(place, { recursive: true });
  const words = ['-shared', '-fPIC', `-DMAJOR=${generation}`, '-o', join(place, 'libcuda.so.1')];
  execFileSync(process.env.CC ?? 'cc', [...words, packagePath('test/fixtures/libcuda.c')]);
  return { LD_LIBRARY_PATH: place };
}

/** No device answers, whatever the machine has. */
const none = { CUDA_VISIBLE_DEVICES: '' };

test('--target cuda without a GPU says what is missing and how to get it', async () => {
  for (const command of [training, ['verify', packagePath('test/fixtures/reference/gemma2')]]) {
    const { status, stderr } = await run([...command, '--target', 'cuda'], none);
    assert.is(status, 3);
    assert.match(
      stderr,
      /^error: --target cuda needs a GPU, and (there is no driver of NVIDIA's|NVIDIA's driver sees no)/,
    );
    assert.match(stderr, /To mend it: /);
  }
});

test('auto without a GPU is the CPU, and says no more', async () => {
  const { status, stdout, stderr } = await run([...training, '-o', 'runs/auto'], none);
  assert.is(status, 0, stderr);
  assert.match(stdout, /^ {2}target +cpu +auto$/m);
  const state = JSON.parse(readFileSync(join(folder, 'runs/auto/step-4/state.json'), 'utf8'));
  assert.is(state.target, 'cpu');
});

if (process.platform === 'linux') {
  test('doctor tells of the driver and its device', async () => {
    const { stdout } = await run(['doctor', '--json'], { ...driverOf(9), NVCC: '/none/nvcc' });
    const { findings } = JSON.parse(stdout) as { findings: { name: string; state: string; found: string }[] };
    const finding = (name: string) => findings.find(each => each.name === name)!;
    assert.is(finding('GPU driver').found, 'runs CUDA up to 12.4');
    const described = 'Paper GPU 7, 80.0GiB, compute capability 9.5, 132 multiprocessors';
    assert.equal([finding('GPU 0').state, finding('GPU 0').found], ['ok', described]);
    assert.equal([finding('nvcc').state, finding('nvcc').found], ['limited', 'none']);
  });

  test('a device of an older generation is named, and not used', async () => {
    const { status, stderr } = await run([...training, '--target', 'cuda'], driverOf(7));
    assert.is(status, 3);
    assert.match(stderr, "Paper GPU 7 is of compute capability 7.5, and malc's programs need 8.0");
  });

  test('auto with a GPU but without nvcc, or with options of the CPU, is the CPU and says why', async () => {
    const machine = { ...driverOf(9), NVCC: '/none/nvcc' };
    const without = await run([...training, '-o', 'runs/without'], machine);
    assert.match(without.stdout, /^ {2}target +cpu: Paper GPU 7 answers and nvcc is missing, see malc doctor +auto$/m);
    const threads = await run([...training, '-o', 'runs/threads', '--threads', '1'], machine);
    assert.match(threads.stdout, /^ {2}target +cpu: --threads counts threads of the CPU +auto$/m);
  });
}

test('what a target lacks is refused by name', async () => {
  const refusal = async (...words: string[]) => {
    const { status, stderr } = await run(words);
    assert.is(status, 2, stderr);
    return stderr;
  };
  assert.match(await refusal(...training, '--target', 'cuda', '--threads', '2'), '--threads counts threads of the CPU');
  assert.match(
    await refusal(...training, '--target', 'cuda-simt', '--autotune'),
    '--autotune measures, and times of the emulator',
  );
  const generating = ['generate', '-c', 'runs/auto', '-p', 'a', '--target', 'cuda'];
  assert.match(await refusal(...generating, '--dtype', 'int8'), '--dtype int8 is for the CPU; leave it out');
});

if (await emulatorAvailable()) {
  const simt = ['--target', 'cuda-simt'];

  test('a run on the emulator resumes to the same bits, and generates', async () => {
    const whole = await run([...training, '-o', 'runs/whole', '--save-every', '2', ...simt]);
    assert.is(whole.status, 0, whole.stderr);
    assert.match(whole.stdout, /^ {2}target +cuda-simt$/m);
    assert.match(whole.stdout, /^ {2}dtype +bf16 +auto$/m);
    const sources = readdirSync(join(folder, 'runs/whole/build'));
    assert.ok(sources.includes('model.cu') && sources.every(name => /\.(cu|h)$/.test(name)), sources.join());
    // The same run, as if it had been killed in its third step.
    execFileSync('cp', ['-r', join(folder, 'runs/whole'), join(folder, 'runs/resumed')]);
    execFileSync('rm', ['-r', join(folder, 'runs/resumed/step-4')]);
    execFileSync('cp', ['-r', join(folder, 'runs/resumed'), join(folder, 'runs/elsewhere')]);
    const resumed = await run(['train', '--resume', '-o', 'runs/resumed']);
    assert.is(resumed.status, 0, resumed.stderr);
    assert.match(resumed.stdout, /^ {2}target +cuda-simt +auto$/m);
    assert.match(resumed.stdout, /resumed after step 2$/m);
    for (const file of ['model.safetensors', 'optimizer.safetensors']) {
      const [expected, actual] = ['whole', 'resumed'].map(name =>
        readFileSync(join(folder, 'runs', name, 'step-4', file)),
      );
      assert.ok(actual!.equals(expected!), file);
    }
    const elsewhere = await run(['train', '--resume', '-o', 'runs/elsewhere', '--target', 'cpu']);
    assert.is(elsewhere.status, 0, elsewhere.stderr);
    assert.match(elsewhere.stdout, 'resumed after step 2; it was trained on cuda-simt so far');

    const generating = ['generate', '-c', 'runs/whole', '-p', 'the cat', '-m', '6', '--temperature', '0'];
    const [emulated, own] = [await run([...generating, ...simt]), await run([...generating, '--target', 'cpu'])];
    assert.is(emulated.status, 0, emulated.stderr);
    assert.match(emulated.stdout, /^the cat/);
    assert.is(emulated.stdout, own.stdout);
  });

  test('verify compares the emulated program with what PyTorch computed', async () => {
    const { status, stdout, stderr } = await run([
      'verify',
      packagePath('test/fixtures/reference/gemma2'),
      ...simt,
      '--json',
    ]);
    assert.is(status, 0, stderr);
    const report = JSON.parse(stdout);
    assert.equal([report.target, report.pass], ['cuda-simt', true]);
  });

  test('without g++ the emulator says what to install', async () => {
    const { status, stderr } = await run([...training, '-o', 'runs/none', ...simt], { CXX: '/none/g++' });
    assert.is(status, 3);
    assert.match(stderr, /cuda-simt emulates CUDA with GCC's C\+\+ compiler.*\/none\/g\+\+ was not found\. Install it/);
  });
} else console.log('no g++ that the emulator can use: nothing is trained with it');

test.run();
