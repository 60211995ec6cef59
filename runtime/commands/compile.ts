// `malc compile`: a model as source files, a memory plan and a native library in one folder.
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { type Optimizer, optimizers } from '../../compiler/emission/optimizer.ts';
import { type ProductType, productTypes } from '../../compiler/targets/cpu/kernel-source.ts';
import { type Target, targets } from '../../compiler/targets/names.ts';
import { anyOrderOption, autotuneOption, checkAnyOrder, requireTunable, tellTuning } from '../autotune-option.ts';
import type { Command } from './command.ts';
import { readRecompute, recomputeOption } from './recompute-option.ts';

interface Stage {
  readonly name: string;
  readonly milliseconds: number;
  readonly print: () => string;
}

/** What `malc train` takes where nothing is said. */
const usualBatch = 8;
const usualTime = 256;

export const compile: Command = {
  name: 'compile',
  describe: 'Write a model as C or CUDA source, memory plan and native library',
  positionals: [{ name: 'file', describe: 'A .mal file, or the name of a well-known model', required: true }],
  options: {
    name: { type: 'string', describe: 'Which model, where the file has several' },
    output: { type: 'string', alias: 'o', describe: 'The folder to write', whenAbsent: 'build/MODEL' },
    target: { type: 'string', describe: 'What to compile for: cpu, cuda', default: 'cpu' },
    arch: {
      type: 'string',
      describe: 'The GPU architectures that --target cuda compiles for, as in sm_80,sm_90a',
      whenAbsent: 'sm_80,sm_90a',
    },
    dtype: { type: 'string', default: 'f32', choices: productTypes, describe: 'The number type of matrix products' },
    optimizer: { type: 'string', default: 'adamw', choices: optimizers, describe: 'How training moves the weights' },
    autotune: {
      ...autotuneOption,
      describe: `${autotuneOption.describe}: for ${usualBatch} texts of up to ${usualTime} tokens`,
    },
    recompute: { ...recomputeOption, default: 'none' },
    'any-order': { ...anyOrderOption, advanced: true },
    standalone: {
      type: 'boolean',
      describe: 'Add a command line in C that trains it without Node, from files of tokens',
      default: false,
    },
    fuse: {
      type: 'boolean',
      describe: 'Fuse operations; --no-fuse makes a kernel of each',
      default: true,
      advanced: true,
    },
    dump: { type: 'string', describe: 'Print what this stage of the compiler made, or `all` of them', advanced: true },
    time: { type: 'boolean', describe: 'Print the time of each stage', default: false, advanced: true },
  },
  examples: [
    ['malc compile tiny.mal -o build/tiny', 'write model.c, plan.json and model.so'],
    ['malc compile tiny.mal --standalone', 'train.c besides, and the command that builds it'],
    ['malc compile tiny.mal --dump graph', 'print the graph of tensors as well'],
  ],
  async run(args) {
    const target = args.target as string;
    if (!(targets as readonly string[]).includes(target)) throw unknownTarget(target);
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const compiler = await import('../../compiler/index.ts');
    const { buildFiles } = await import('../build.ts');

    const { model, warnings } = readModel(args.file as string, args.name as string | undefined);
    for (const warning of warnings) console.error(`${warning}\n`);
    const onCuda = target === 'cuda';
    if (args.standalone && args.dtype === 'int8')
      throw new UserError('--standalone trains, and weights of 8 bits (int8) are for inference alone; leave one out');
    const architectures = args.arch as string | undefined;
    if (architectures !== undefined && !onCuda)
      throw new UserError('--arch names GPUs, and is for --target cuda; leave it out with --target cpu');
    checkAnyOrder(args, target as Target);
    const anyOrder = args['any-order'] === true;
    const tuned = args.autotune ? await tuneHere(model, args.dtype as ProductType, target as Target, anyOrder) : {};
    const stages: Stage[] = [];
    const { files, plan } = compiler.compile(model, {
      target: target as Target,
      fuse: args.fuse as boolean,
      dtype: args.dtype as ProductType,
      recompute: readRecompute(args.recompute as string),
      optimizer: args.optimizer as Optimizer,
      ...tuned,
      onStage: (name, milliseconds, print) => stages.push({ name, milliseconds, print }),
    });
    if (args.dump !== undefined) printStages(args.dump as string, stages);
    const started = performance.now();
    const library = await buildFiles(target as Target, files, { architectures });
    if (library.warnings !== '') console.error(`${library.warnings}\n`);
    if (args.time) {
      const called = onCuda ? 'nvcc' : 'cc';
      const name = library.cached ? `${called} (built before)` : called;
      printTimes([...stages, { name, milliseconds: performance.now() - started }]);
    }
    // Everything exists before anything is written: a failed compilation leaves the folder as it was.
    const folder = (args.output as string | undefined) ?? join('build', model.name);
    const trainer = args.standalone
      ? await standalone(model, args.optimizer as Optimizer, target as Target, architectures)
      : null;
    const written = {
      ...files,
      ...trainer?.files,
      'plan.json': `${JSON.stringify(plan, null, 2)}\n`,
      [basename(library.libraryPath)]: readFileSync(library.libraryPath),
    };
    await writeAll(folder, written);
    console.error(`${folder}: ${Object.keys(written).join(', ')}`);
    if (trainer) console.error(`\nTo build the trainer, in ${folder}:\n  ${trainer.command.join('\n  ')}`);
  },
};

/** How this machine computes the model's products best; what the cost model says where it has no GPU to ask. */
async function tuneHere(model: Model, dtype: ProductType, target: Target, anyOrder: boolean) {
  requireTunable(dtype, target);
  const { findCudaDevice, whyNoDevice } = await import('../cuda-device.ts');
  const device = target === 'cuda' ? findCudaDevice() : null;
  if (target === 'cuda' && device === null) {
    console.error(`--autotune measures nothing, for ${whyNoDevice().problem}: the cost model chooses`);
    return {};
  }
  const { tune } = await import('../tuning.ts');
  const time = Math.min(usualTime, model.max_seq_len);
  const threads = availableParallelism();
  const request = { model, dtype, batch: usualBatch, time, threads, anyOrder, onStart: tellTuning };
  return (await tune(request, device)).options;
}

/** The stand-alone trainer's file, and the lines of the command that builds it. */
async function standalone(model: Model, optimizer: Optimizer, target: Target, architectures: string | undefined) {
  const { standaloneFile, standaloneSource, shellLines } = await import('../../compiler/standalone.ts');
  const { usualUpdate } = await import('../train/optimizers.ts');
  const command = await commandOf(target, architectures);
  const source = standaloneSource(model, { target, command, update: usualUpdate(optimizer, model.hidden_size) });
  return { files: { [standaloneFile(target)]: source }, command: shellLines(command) };
}

async function commandOf(target: Target, architectures: string | undefined): Promise<string[]> {
  if (target === 'cpu') {
    const { findCompiler, programCommand } = await import('../../compiler/targets/cpu/toolchain.ts');
    return programCommand(await findCompiler(), 'train.c');
  }
  const { findCudaCompiler, programCommand } = await import('../../compiler/targets/cuda/toolchain.ts');
  return programCommand(await findCudaCompiler(architectures));
}

/** The targets of the design that do not exist yet are refused by name. */
function unknownTarget(target: string): UserError {
  const reason = target === 'metal' ? 'the target metal is planned and not there yet' : `there is no target ${target}`;
  return new UserError(`${reason}; use --target ${targets.join(' or ')}`);
}

/** Prints one stage, or all of them under their names. */
function printStages(wanted: string, stages: readonly Stage[]): void {
  if (wanted === 'all') {
    for (const { name, print } of stages) console.log(`== ${name}\n${print().trimEnd()}\n`);
    return;
  }
  const chosen = stages.filter(({ name }) => name === wanted);
  if (chosen.length === 0) {
    const names = [...new Set(stages.map(({ name }) => name))];
    throw new UserError(`--dump: there is no stage ${wanted}; the stages are ${names.join(', ')}, and all`);
  }
  for (const { print } of chosen) console.log(print().trimEnd());
}

/** To stderr, as everything but the dump, so that `--dump` can be piped. */
function printTimes(stages: readonly Pick<Stage, 'name' | 'milliseconds'>[]): void {
  const total = stages.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const rows = [...stages, { name: 'total', milliseconds: total }];
  const width = Math.max(...rows.map(({ name }) => name.length));
  for (const { name, milliseconds } of rows) {
    console.error(`${name.padEnd(width)}  ${milliseconds.toFixed(1).padStart(9)} ms`);
  }
}

async function writeAll(folder: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
  const { makeFolder, writeFileAtomic } = await import('../atomic-file.ts');
  makeFolder(folder);
  for (const [name, content] of Object.entries(files)) writeFileAtomic(join(folder, name), content);
}
