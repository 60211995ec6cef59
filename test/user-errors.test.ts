// What a user does wrong, and what a machine does not give: one message that says how to mend it, the right exit code, and
// every file as it was.
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MachineError, UserError } from '../compiler/diagnostic.ts';
import { UsageError } from '../runtime/commands/command.ts';
import { commands } from '../runtime/commands/index.ts';
import { type Ending, ship } from './fixtures/shipped.ts';

const test = suite('user errors');
const { folder, run, start, remove } = ship();
const inFolder = (name: string) => join(folder, name);
const write = (name: string, content: string | Uint8Array) => writeFileSync(inFolder(name), content);
const split = (line: string) => line.split(' ');

// Commands are run in this process where that will do: starting one takes longer than refusing it.
process.chdir(folder);
process.env.MALC_CACHE = inFolder('.cache');
console.log = () => {};
test.after(() => {
  process.chdir('/');
  remove();
});

const model = `attention a { num_heads: 2 }
ffn f { hidden_dim: 16  activation: relu  gate: false }
block b { attention: a  ffn: f }
model small { vocab_size: 280  hidden_size: 8  num_layers: 1  max_seq_len: 16  block: b }
`;

/** Every file with its size and time, besides the cache of built programs. */
function contents(): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => !name.startsWith('.cache'))
    .map(name => {
      const { size, mtimeMs } = statSync(inFolder(name));
      return `${name} ${size} ${mtimeMs}`;
    })
    .sort();
}

type Kind = new (message: string) => Error;
type Arguments = Readonly<Record<string, unknown>>;

/** Runs a command that must fail as said, and leave everything as it was. */
async function refused(name: string, args: Arguments, kind: Kind, says: RegExp): Promise<void> {
  const command = commands.find(each => each.name === name)!;
  const defaults = Object.entries(command.options).filter(([, option]) => option.default !== undefined);
  const all = { ...Object.fromEntries(defaults.map(([key, option]) => [key, option.default])), ...args };
  const before = contents();
  const error = await command.run(all).then(
    () => null,
    fault => fault,
  );
  assert.ok(error !== null, `${name} ${JSON.stringify(args)} went well`);
  assert.instance(error, kind);
  assert.match(error.message, says);
  assert.equal(contents(), before);
}

/** A copy of the trained run, to be damaged. */
function copyOfRun(): string {
  rmSync(inFolder('copy'), { recursive: true, force: true });
  cpSync(inFolder('run'), inFolder('copy'), { recursive: true, preserveTimestamps: true });
  return inFolder('copy');
}

let trained: Ending;
test.before(async () => {
  write('small.mal', model);
  write('text.txt', 'the cat sat on the mat, and the dog ran home.\n'.repeat(40));
  write('short.txt', 'hi\n');
  write('empty.txt', '');
  write('latin.txt', Buffer.concat([Buffer.from('good\n'), Buffer.of(0xff, 0x20)]));
  write('torn.json', '{"version": "1.0", "mod');
  mkdirSync(inFolder('empty'));
  trained = await run(split(`train ${training} -o run --steps 4 --save-every 2`));
  await run(split('train-tokenizer -i text.txt -o other.json -v 270'));
  write('endless.json', readFileSync(inFolder('other.json'), 'utf8').replaceAll('<|endoftext|>', '<|mark|>'));
  write(
    'states.mal',
    'model states { hidden_size: 8  num_layers: 1  max_seq_len: 16  block { ssm { state_dim: 2 } } }\n',
  );
});

test('what a run does without being told is said', async () => {
  write('roles.mal', model.replace('block: b', 'block: b  embeddings { role_embeddings: 3 }'));
  const { stdout, stderr, status } = await run(
    split('train -m roles.mal -d text.txt -b 2 --seq-len 8 -o roles --steps 30'),
  );
  assert.is(status, 0);
  assert.match(stderr, /^warning: the text says no roles.*only row 0 trains\n$/);
  // The last step is saved at any rate.
  assert.match(stdout, /\n {2}save-every +30 +auto\n/);
  assert.match(stdout, /\n {2}sample-every +3 +auto\n/);
});

test('a dry run says what the run would take, and writes nothing', async () => {
  const { stdout, stderr, status } = await run(
    split('train -m small.mal -d text.txt -b 2 --seq-len 8 -o dry --dry-run'),
  );
  assert.is(stderr, '');
  assert.is(status, 0);
  for (const name of ['FLOPs per token', 'speed', 'time', 'peak memory', 'disk'])
    assert.match(stdout, new RegExp(`\\n {2}${name} +\\d`));
  assert.match(stdout, /\n {2}kept +[\d.]+KiB of them for backward passes/);
  assert.match(stdout, /a dry run: nothing was written\n$/);
  assert.not(existsSync(inFolder('dry')));
});

test('a run to begin with', () => {
  assert.is(trained.stderr, '');
  assert.is(trained.status, 0);
  const hidden = readdirSync(inFolder('run')).filter(name => name.startsWith('.'));
  assert.equal(hidden, []);
});

const training = '-m small.mal -d text.txt -b 2 --seq-len 8';
const train = { model: 'small.mal', data: ['text.txt'], output: 'new', 'batch-size': 2, 'seq-len': 8 };

const atOnce: readonly (readonly [command: string, args: Arguments, kind: Kind, says: RegExp])[] = [
  ['train', { model: 'small.mal', output: 'new' }, UsageError, /^--data is needed: a text file to learn from$/],
  ['train', { data: ['text.txt'], output: 'new' }, UsageError, /^--model is needed/],
  ['train', { ...train, steps: 5, epochs: 1 }, UsageError, /^--steps and --epochs both say how long/],
  ['train', { ...train, tokens: 5, epochs: 1 }, UsageError, /^--epochs and --tokens both say how long/],
  ['train', { ...train, 'grad-accum': 5, 'tokens-per-step': 99 }, UsageError, /both say how much an update takes/],
  ['train', { ...train, patience: 1, 'validation-share': 0 }, UsageError, /^--patience waits for the validation loss/],
  ['train', { ...train, prompt: 'qz'.repeat(40) }, UserError, /^--prompt has \d+ tokens; the model's context of 16/],
  ['train', { resume: true }, UsageError, /^--output is needed: the run to go on with/],
  ['train', { resume: true, output: 'run', name: 'small' }, UsageError, /^--name chooses a model of a file/],
  // Before the text is read, which may take minutes.
  [
    'train',
    { ...train, data: ['none.txt'], 'seq-len': 99 },
    UserError,
    /^--seq-len is 99; the model's max_seq_len is 16/,
  ],
  [
    'train',
    { ...train, 'grad-accum': 1e9 },
    UserError,
    /^--batch-size 2, --grad-accum 1000000000 and --seq-len 8 make/,
  ],
  [
    'train',
    { ...train, data: ['none.txt'], model: 'states.mal', 'mask-documents': true },
    UserError,
    /^--mask-documents is for attention: the state of `block` \(states\.mal:1\) goes on/,
  ],
  [
    'train',
    { ...train, data: ['none.txt'], tokenizer: 'endless.json', 'mask-documents': true },
    UserError,
    /^--mask-documents: the tokenizer has no token that ends a text/,
  ],
  ['train', { ...train, data: ['none.txt'] }, UserError, /^there is no file none\.txt/],
  ['train', { ...train, data: ['empty.txt'] }, UserError, /^empty\.txt is empty; give/],
  [
    'train',
    { ...train, data: ['short.txt'] },
    UserError,
    /^the training text has \d+ tokens, and one window .* needs 9/,
  ],
  ['train', { ...train, data: ['latin.txt'] }, UserError, /^latin\.txt is not UTF-8: .* byte 5 \(line 2\)/],
  ['train', { ...train, tokenizer: 'torn.json' }, UserError, /^torn\.json is not a whole JSON file/],
  ['train', { ...train, tokenizer: 'empty' }, UserError, /^empty is a folder; give the tokenizer\.json in it/],
  [
    'train',
    { ...train, output: 'text.txt' },
    UserError,
    /^text\.txt cannot be a folder: it, or a part of it, is a file/,
  ],
  ['train', { ...train, output: 'run' }, UserError, /^run already holds a run\. Continue it with --resume/],
  ['train', { ...train, resume: true }, UserError, /^new holds no run to go on with; leave out --resume/],
  ['train', { resume: true, output: 'empty' }, UserError, /^empty holds no run to go on with/],
  ['train', { resume: true, output: 'run', tokenizer: 'other.json' }, UserError, /--tokenizer is not the one/],
  ['compile', { file: 'small.mal', output: 'text.txt' }, UserError, /^text\.txt cannot be a folder/],
  ['quickstart', { output: 'text.txt' }, UserError, /^text\.txt cannot be a folder/],
  ['quickstart', { output: 'run' }, UserError, /^run holds something that no quickstart wrote/],
];
for (const [command, args, kind, says] of atOnce) {
  test(`${command} says: ${says.source}`, () => refused(command, args, kind, says));
}

const usage: readonly (readonly [line: string, says: RegExp])[] = [
  [`train ${training} -o new --lr 0`, /^error: --lr is 0; a number above 0 is needed\nmalc train --help/],
  ['generate -c run --threads 1e12', /^error: --threads is 1e12; a whole number from 1 to 1024 is needed/],
  ['trian --help', /^error: there is no command trian\. Did you mean train\?\nmalc lists the commands\.\n$/],
];
for (const [line, says] of usage) {
  test(`malc ${line}`, async () => {
    const before = contents();
    const { status, stderr } = await run(split(line));
    assert.match(stderr, says);
    assert.is(status, 2);
    assert.equal(contents(), before);
  });
}

const damages: readonly (readonly [what: string, damage: (run: string) => void, resume: RegExp, generate: RegExp])[] = [
  [
    'weights cut short',
    path => truncateSync(join(path, 'step-4/model.safetensors'), 2000),
    /is not a whole safetensors file.*\nRemove the folder copy\/step-4, and the run goes on/,
    /is not a whole safetensors file.*\nGive another step-N folder/,
  ],
  [
    'no weights',
    path => rmSync(join(path, 'step-4/model.safetensors')),
    /^there is no copy\/step-4\/model\.safetensors\.\nRemove the folder/,
    /^there is no copy\/step-4\/model\.safetensors\.\nGive another/,
  ],
  [
    'a state of another kind',
    path => writeFileSync(join(path, 'step-4/state.json'), '{}'),
    /state\.json is damaged: it has no 'step'\. Remove/,
    /state\.json is damaged/,
  ],
  [
    'a model of another kind',
    path => writeFileSync(join(path, 'config.json'), '{"malc": {"name": "x"}}'),
    /^copy\/config\.json: the model has no 'vocab_size'/,
    /^copy\/config\.json: the model has no 'vocab_size'/,
  ],
  [
    'no config.json',
    path => rmSync(join(path, 'config.json')),
    /^there is no copy\/config\.json, which says what the model is/,
    /^there is no copy\/config\.json/,
  ],
  [
    'another tokenizer',
    path => cpSync(inFolder('other.json'), join(path, 'tokenizer.json')),
    /--tokenizer is not the one that the run has/,
    /^copy\/tokenizer\.json is not the tokenizer that copy\/step-4 was trained with/,
  ],
];
for (const [what, damage, resume, generate] of damages) {
  test(`a run with ${what} is refused, and stays as it is`, async () => {
    damage(copyOfRun());
    await refused('train', { resume: true, output: 'copy' }, UserError, resume);
    await refused('generate', { checkpoint: 'copy', prompt: ['the'] }, UserError, generate);
  });
}

test('a run without model.mal asks for the model', async () => {
  rmSync(join(copyOfRun(), 'model.mal'));
  await refused('train', { resume: true, output: 'copy' }, UserError, /^copy\/model\.mal is missing; say with --model/);
});

test('a run that stopped before its first checkpoint says that it begins anew', async () => {
  const path = copyOfRun();
  for (const name of ['step-2', 'step-4', 'latest', 'best']) rmSync(join(path, name), { recursive: true, force: true });
  await refused(
    'train',
    { resume: true, output: 'copy' },
    UserError,
    /^the run in copy stopped before its first checkpoint/,
  );
  const again = await run(split(`train ${training} -o copy --steps 4 --save-every 2 --resume`));
  assert.is(again.status, 0, again.stderr);
  const weights = (name: string) => readFileSync(inFolder(`${name}/model.safetensors`));
  assert.equal(weights('copy'), weights('run'));
});

test('a resumed run knows which field of its lines is the text', async () => {
  write('lines.jsonl', `${JSON.stringify({ body: 'the cat sat on the mat, and the dog ran home.' })}\n`.repeat(40));
  const words = '-m small.mal -d lines.jsonl --text-field body -b 2 --seq-len 8';
  const first = await run(split(`train ${words} -o lines --steps 2 --no-self-check`));
  assert.is(first.status, 0, first.stderr);
  const { status, stderr } = await run(split('train --resume -o lines'));
  assert.equal([status, stderr], [0, '']);
});

test('a text that is gone, or another one than it was, is named when its run is resumed', async () => {
  const words = 'own.txt -b 2 --seq-len 8 -o own --steps 2 --no-self-check';
  const text = readFileSync(inFolder('text.txt'), 'utf8');
  write('own.txt', text);
  assert.is((await run(split(`train -m small.mal -d ${words}`))).status, 0);
  rmSync(inFolder('own.txt'));
  const gone =
    /own\.txt, which the run in own learns from, is gone; bring it back, or say with --data where it is now$/;
  await refused('train', { resume: true, output: 'own' }, UserError, gone);
  write('own.txt', `${text}one more line\n`);
  const other =
    /own\.txt is no longer the text that the run in own was trained on[\s\S]*malc train --checkpoint own --data/;
  await refused('train', { resume: true, output: 'own' }, UserError, other);
});

test('another tokenizer than that of the weights is warned of', async () => {
  const { stderr } = await run(split(`train ${training} --checkpoint run -t other.json -o strange --dry-run`));
  assert.match(stderr, /^warning: --tokenizer is not the one beside the weights of .*run: /);
});

test('SIGTERM is as good as Ctrl-C: the run is saved, and goes on', async () => {
  const child = start(split(`train ${training} -o ended --steps 100000 --log-every 1 --no-self-check`));
  let printed = '';
  const isOver = new Promise(resolve => child.on('close', resolve));
  child.stdout.setEncoding('utf8').on('data', chunk => {
    if (!printed.includes('\n  9/') && `${printed}${chunk}`.includes('\n  9/')) child.kill('SIGTERM');
    printed += chunk;
  });
  assert.is(await isOver, 130);
  const [, step] = /\nsaved at step (\d+); go on with: malc train --resume -o ended\n$/.exec(printed)!;
  assert.is(readFileSync(inFolder('ended/latest'), 'utf8'), `step-${step}\n`);
});

test('without a C compiler every command that needs one says so', async () => {
  const { PATH, CC } = process.env;
  Object.assign(process.env, { PATH: inFolder('empty'), CC: '' });
  try {
    const says = /^malc needs a C compiler and found none that works[\s\S]*To install one: /;
    await refused('train', train, MachineError, says);
    await refused('compile', { file: 'small.mal', output: 'new' }, MachineError, says);
    await refused('generate', { checkpoint: 'run', prompt: ['the'] }, MachineError, says);
  } finally {
    Object.assign(process.env, { PATH, CC: CC ?? '' });
  }
});

test('a cache that cannot be is named', async () => {
  process.env.MALC_CACHE = inFolder('text.txt');
  const says = /^the cache of built programs, .*text\.txt, cannot be written/;
  await refused('compile', { file: 'small.mal', output: 'new' }, MachineError, says);
  process.env.MALC_CACHE = inFolder('.cache');
});

test('a process ends well though threads of the native program still wait', async () => {
  // Active waiting: the threads run until the process ends, and would run into code that is gone.
  const { status, signal } = await run(split('generate -c run -p the -m 3'), { OMP_WAIT_POLICY: 'active' });
  assert.equal([status, signal], [0, null]);
});

test('a full disk leaves the last checkpoint, from which the run goes on', async () => {
  const disk = inFolder('disk');
  mkdirSync(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=100k', 'tmpfs', disk], { stdio: 'ignore' });
  } catch {
    console.log('no small disk can be mounted here: not tried');
    return;
  }
  try {
    const command = split(`train ${training} -o disk/run --steps 60 --save-every 5`);
    const unbegun = await run(command);
    assert.match(unbegun.stderr, /^error: cannot write disk\/run\/.*: the disk is full/);
    assert.equal(readdirSync(disk), []);

    execFileSync('mount', ['-o', 'remount,size=450k', disk]);
    const full = await run(command);
    assert.match(full.stderr, /^error: cannot write disk\/run\/.*: the disk is full/);
    assert.match(
      full.stderr,
      /\nEverything up to step \d+ is saved; go on from there with: malc train --resume -o disk\/run\n$/,
    );
    assert.is(full.status, 1);
    assert.not.ok(readdirSync(join(disk, 'run')).some(name => name.startsWith('.')));

    execFileSync('mount', ['-o', 'remount,size=8m', disk]);
    const resumed = await run(split('train --resume -o disk/run'));
    assert.is(resumed.status, 0, resumed.stderr);
    assert.ok(existsSync(join(disk, 'run/step-60')));
  } finally {
    execFileSync('umount', [disk]);
  }
});

test.run();
