// Tests of the command line: what it prints, and with which code it leaves. It is bundled as it is shipped, with commands
// of its own (fixtures/cli/commands.ts) in place of the real ones.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { bench } from '../runtime/commands/bench.ts';
import { withConfigured } from '../runtime/commands/config-words.ts';
import { train } from '../runtime/commands/train.ts';

const repository = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = mkdtempSync(join(tmpdir(), 'malc-cli-'));
const program = join(folder, 'malc.mjs');
const environment = { ...process.env, TMPDIR: folder, XDG_CACHE_HOME: join(folder, 'cache'), LANG: 'de_DE.UTF-8' };

interface Ending {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function malc(...args: readonly string[]): Ending {
  return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', env: environment, timeout: 30_000 });
}

/** Runs a shell line in which `malc` stands for the program. */
function shell(line: string): Ending {
  const prelude = `set -o pipefail; malc() { '${process.execPath}' '${program}' "$@"; }`;
  return spawnSync('bash', ['-c', `${prelude}; ${line}`], { encoding: 'utf8', env: environment, timeout: 30_000 });
}

/** Sends SIGINT once the command has said that it sleeps. */
function interrupt(command: string): Promise<Ending> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, [program, command], { env: environment });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', chunk => {
      stdout += chunk;
      if (stdout === 'asleep\n') child.kill('SIGINT');
    });
    child.stderr.on('data', chunk => {
      stderr += chunk;
    });
    child.on('close', status => resolve({ status, stdout, stderr }));
  });
}

const cli = suite('cli');

cli.before(async () => {
  await build({
    entryPoints: [join(repository, 'cli.ts')],
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'esm',
    plugins: [
      {
        name: 'commands of the test',
        setup: ({ onResolve }) =>
          onResolve({ filter: /commands\/index\.ts$/ }, () => ({
            path: join(repository, 'test/fixtures/cli/commands.ts'),
          })),
      },
    ],
  });
});

cli.after(() => rmSync(folder, { recursive: true, force: true }));

cli('alone, it lists the commands in the order in which they are used', () => {
  const { status, stdout, stderr } = malc();
  assert.is(status, 0);
  assert.is(stderr, '');
  const listed = [...stdout.matchAll(/^ {2}malc (\w+)/gm)].map(([, name]) => name);
  assert.equal(listed.slice(0, 4), ['show', 'needs', 'user', 'usage']);
  assert.match(stdout, /^ {2}malc show FILE +prints its arguments as JSON$/m);
  assert.is(malc('--help').stdout, stdout);
});

cli('--version prints the version of the package', () => {
  const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8'));
  assert.is(malc('--version').stdout, `${version}\n`);
});

cli("a command's help shows simple options first, then advanced ones, with their defaults", () => {
  const { status, stdout } = malc('show', '--help');
  assert.is(status, 0);
  assert.match(stdout, /^malc show FILE \[OPTIONS\]\n\nprints its arguments as JSON\n/);
  assert.match(stdout, /Options[\s\S]*--learning-rate, --lr .*0\.001[\s\S]*Advanced options[\s\S]*--fuse/);
  assert.match(stdout, /-n, --count +a whole number +\[number\] \[default: a few\]/);
  assert.match(stdout, /--json +a switch that is off +\[boolean\]$/m);
  assert.match(stdout, /malc show x +prints x/);
});

cli('arguments reach the command under their long names', () => {
  const { status, stdout } = malc('show', 'a.mal', '--lr', '1e-4', '--input', 'a', 'b', '--no-fuse');
  assert.is(status, 0);
  const off = { json: false, fuse: false };
  assert.equal(JSON.parse(stdout), { file: 'a.mal', 'learning-rate': 1e-4, input: ['a', 'b'], ...off });
  const absent = { 'learning-rate': 0.001, json: false, fuse: true };
  assert.equal(JSON.parse(malc('show', 'a.mal').stdout), { file: 'a.mal', ...absent });
});

cli('a lone - is a value, for it stands for standard input', () => {
  const { stdout, stderr } = malc('show', '-', '--input', 'a', '-', '--json', '--count', '3');
  assert.is(stderr, '');
  const { file, input, json, count } = JSON.parse(stdout);
  assert.equal([file, input, json, count], ['-', ['a', '-'], true, 3]);
});

cli('options come from a file and from --set, and the command line wins', () => {
  const config = join(folder, 'run.json');
  writeFileSync(config, '{ "lr": 0.1, "count": 3, "input": ["a", "b"], "fuse": false, "size": null }\n');
  const { stdout, stderr } = malc('show', 'x', '--config', config, '--set', 'count=4', 'json=true', '--lr', '0.2');
  assert.is(stderr, '');
  const { config: _config, set: _set, ...args } = JSON.parse(stdout);
  assert.equal(args, { file: 'x', 'learning-rate': 0.2, count: 4, input: ['a', 'b'], fuse: false, json: true });
});

cli('of options that say the same, those of a file give way', () => {
  const config = join(folder, 'again.json');
  writeFileSync(config, '{ "steps": 100, "grad-accum": 2, "lr": 1 }\n');
  const said = (...words: string[]) => withConfigured(train, ['train', '--config', config, ...words]);
  assert.equal(said('-e', '2'), ['train', '--grad-accum=2', '--lr=1', '--config', config, '-e', '2']);
  assert.equal(said('--set', 'tokens-per-step=64').slice(1, 4), ['--steps=100', '--lr=1', '--tokens-per-step=64']);
});

cli('an option of the same name that is no file of options is left to its command', () => {
  const words = ['bench', 'step', '--config', 'tiny:8:256'];
  assert.equal(withConfigured(bench, words), words);
});

cli('what is no option in a file is refused with the nearest that is one', () => {
  const config = join(folder, 'wrong.json');
  const says = (text: string) => {
    writeFileSync(config, text);
    return malc('show', 'x', `--config=${config}`);
  };
  assert.match(
    says('{ "learning-rat": 1 }').stderr,
    "malc show has no option 'learning-rat'. Did you mean learning-rate?",
  );
  assert.match(says('{ "count": 0 }').stderr, '--count is 0; a whole number of at least 1 is needed');
  assert.match(says('[1]').stderr, 'holds no JSON object of options');
  assert.match(says('{').stderr, 'wrong.json cannot be read: ');
  assert.is(says('{ "set": "lr=1" }').status, 1);
});

const usageErrors: readonly (readonly [args: string, says: string])[] = [
  ['shwo x', 'there is no command shwo. Did you mean show?'],
  ['qqqqqq', 'there is no command qqqqqq\nmalc lists the commands.'],
  ['show x --learning-rat 1', 'there is no option --learning-rat. Did you mean --learning-rate?'],
  ['show x --no-fues', 'there is no option --no-fues. Did you mean --fuse?'],
  ['show x -q', 'there is no option -q'],
  ['show x y', "'y' is one argument too many\nmalc show --help lists the options."],
  ['show', 'FILE is needed'],
  ['needs', '--data is needed\nmalc needs --help lists the options.'],
  ['needs --data', '--data expects a value'],
  ['needs there', '--data is needed. Did you mean --data there?'],
  [
    'needs --data --there',
    "--data expects a value; one that begins with - is joined to it by =, as in --data='--there'",
  ],
  ['show x -n', '-n expects a value'],
  ['--json show x', 'a command is needed before --json'],
  ['show x --json=maybe', '--json is a switch and takes no value, such as maybe'],
  ['show x --no-count', 'there is no option --no-count'],
  ['show x --lr fast', "--learning-rate expects a number, not 'fast'\nmalc show --help lists the options."],
  ['show x --count=', "--count expects a number, not ''"],
  ['show x -n 0', '--count is 0; a whole number of at least 1 is needed\nmalc show --help lists the options.'],
  ['show x -n2.5', '--count is 2.5; a whole number of at least 1 is needed'],
  ['show x --count Infinity', '--count is Infinity; a whole number of at least 1 is needed'],
  ['show x --lr 1 --lr 2', '--learning-rate is given more than once'],
  ['show x --set lr', "--set expects NAME=VALUE, such as lr=1e-3, not 'lr'"],
  ['show x --set cuont=3', "--set cuont=3: malc show has no option 'cuont'. Did you mean count?"],
  ['show x --size huge', '--size expects one of small, large, not huge'],
];
for (const [args, says] of usageErrors) {
  cli(`malc ${args}: a usage error`, () => {
    const { status, stdout, stderr } = malc(...args.split(' '));
    assert.ok(stderr.startsWith(`error: ${says}`), stderr);
    assert.not.match(stderr, /Options|\bat .*:\d+/);
    assert.is(stdout, '');
    assert.is(status, 2);
  });
}

cli("the user's error leaves with 1 and its message alone", () => {
  assert.equal(pick(malc('user')), { status: 1, stdout: '', stderr: 'error: model.mal:3:5: that is wrong\n' });
});

cli('options that contradict each other leave with 2', () => {
  const stderr = 'error: --a and --b contradict each other\n';
  assert.equal(pick(malc('usage')), { status: 2, stdout: '', stderr });
});

cli('what the machine lacks leaves with 3', () => {
  assert.equal(pick(malc('machine')), { status: 3, stdout: '', stderr: 'error: there is no C compiler\n' });
});

for (const [command, message] of [
  ['internal', 'the arena is upside down'],
  ['later', 'thrown when nobody waits'],
] as const) {
  cli(`an internal error (${command}) leaves with 70 and keeps a dump`, () => {
    const { status, stderr } = malc(command);
    assert.is(status, 70);
    assert.ok(stderr.startsWith(`internal error: ${message}\n`), stderr);
    assert.not.match(stderr, /\bat .*:\d+/);
    const dump = readFileSync(/the file (\S+)/.exec(stderr)![1]!, 'utf8');
    assert.match(dump, message);
    assert.match(dump, `arguments: ["${command}"]`);
    assert.match(dump, process.version);
    assert.match(dump, /\bat .*:\d+/);
    if (command === 'internal') assert.match(dump, 'a deeper reason');
  });
}

cli('Ctrl-C leaves with 130', async () => {
  assert.equal(await interrupt('sleep'), { status: 130, stdout: 'asleep\n', stderr: '' });
});

cli('a command may save its state on Ctrl-C before it leaves with 130', async () => {
  assert.equal(await interrupt('saves'), { status: 130, stdout: 'asleep\nsaved\n', stderr: '' });
});

cli('a full disk is no fault of malc', () => {
  if (!existsSync('/dev/full')) {
    console.log('no /dev/full: not tried');
    return;
  }
  const { status, stderr } = shell('malc show x > /dev/full');
  assert.is(stderr, 'error: cannot write the output: the disk is full; free some space\n');
  assert.is(status, 1);
});

cli('a reader that leaves early is no error worth a word', () => {
  const { status, stderr, stdout } = shell('malc pours | head -n 1');
  assert.is(stderr, '');
  assert.is(stdout.length, 101);
  assert.is(status, 141);
});

function pick({ status, stdout, stderr }: Ending): Ending {
  return { status, stdout, stderr };
}

cli.run();
