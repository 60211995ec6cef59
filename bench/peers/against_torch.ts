// Training steps of malc and of PyTorch by turns, in one run: the ratio that a claim of speed is.
//
//   npx tsx bench/peers/against_torch.ts --python PYTHON [--dtype f32|bf16] [--threads 2] [--rounds 7] [--modes eager,compile]
//     [--preload libtcmalloc_minimal.so] MODEL:BATCH:TIME..
//
// PyTorch runs bench/peers/torch_step.py in a process of its own for each mode; in every round each program steps once, while
// the others wait. The ratio is the median over the rounds of malc's speed over that of PyTorch's faster mode in that round.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readModel } from '../../compiler/check/read-model.ts';
import { compile } from '../../compiler/index.ts';
import type { ProductType } from '../../compiler/targets/cpu/kernel-source.ts';
import { buildLibrary, findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { summarize } from '../../runtime/bench/measurement.ts';
import { stepper, warmUp } from '../../runtime/bench/workload.ts';
import { NativeModel } from '../../runtime/native.ts';
import { byTurns, type Runner, startRunner } from './turns.ts';

interface Configuration {
  readonly text: string;
  readonly model: string;
  readonly batch: number;
  readonly time: number;
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    dtype: { type: 'string', default: 'f32' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '7' },
    modes: { type: 'string', default: 'eager,compile' },
    preload: { type: 'string', default: '' },
  },
});

/** Models of torch_step.py that are called otherwise here. */
const files: Readonly<Record<string, string>> = {
  tiny: fileURLToPath(new URL('../tiny_llama.mal', import.meta.url)),
  'llama-1b': 'llama3-1b',
};

function parseConfiguration(text: string): Configuration {
  const [model = '', batch, time] = text.split(':');
  if (!model || !(Number(batch) > 0) || !(Number(time) > 0)) throw new Error(`${text} is not MODEL:BATCH:TIME`);
  return { text, model, batch: Number(batch), time: Number(time) };
}

async function openMalc({ model: name, batch, time }: Configuration): Promise<Runner> {
  const { model } = readModel(files[name] ?? name);
  const folder = await mkdtemp(join(tmpdir(), 'malc-peers-'));
  const sources = compile(model, { dtype: options.dtype as ProductType }).files;
  for (const [file, text] of Object.entries(sources)) await writeFile(join(folder, file), text);
  const library = join(folder, 'model.so');
  await buildLibrary(folder, await findCompiler(), library);
  const native = NativeModel.open(library, {
    maxBatch: batch,
    maxTime: time,
    maxContext: 0,
    training: true,
    threads: Number(options.threads),
  });
  await native.initialize(1);
  const step = stepper(native, { batch, time });
  await warmUp(step);
  const close = async () => {
    native.close();
    await rm(folder, { recursive: true, force: true });
  };
  return { name: 'malc', facts: {}, step, close };
}

function openTorch({ text }: Configuration, mode: string): Promise<Runner> {
  const script = fileURLToPath(new URL('torch_step.py', import.meta.url));
  const flags = ['--turns', '--mode', mode, '--dtype', options.dtype, '--threads', options.threads];
  const environment: Record<string, string> = options.preload === '' ? {} : { LD_PRELOAD: options.preload };
  return startRunner(`torch ${mode}`, options.python, [script, text, ...flags], environment);
}

async function compare(configuration: Configuration): Promise<void> {
  const runners: Runner[] = [await openMalc(configuration)];
  for (const mode of options.modes.split(',').filter(Boolean)) runners.push(await openTorch(configuration, mode));
  const tokens = configuration.batch * configuration.time;
  const seconds = await byTurns(runners, Number(options.rounds));
  const columns = runners.map(({ name }, n) => {
    const { median, low, high } = summarize(seconds[n]!.map(each => tokens / each));
    return `${name} ${median.toFixed(0)} (${low.toFixed(0)} to ${high.toFixed(0)})`;
  });
  const [own = [], ...peers] = seconds;
  const ratios = own.map((each, round) => Math.min(...peers.map(peer => peer[round]!)) / each);
  const { median, low, high } = summarize(ratios);
  const ratio = `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  console.log(`| ${configuration.text} ${options.dtype} | ${columns.join(' | ')} | ${ratio} |`);
  for (const runner of runners) await runner.close();
}

for (const text of positionals) await compare(parseConfiguration(text));
