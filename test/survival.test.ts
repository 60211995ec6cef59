// A run that is killed at any moment, or loses its disk, goes on to the same end as one that nobody disturbed, to the last
// bit of all that it leaves behind.
import { type ChildProcess, execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../runtime/data/random.ts';
import { type Ending, ship } from './fixtures/shipped.ts';

const test = suite('survival');
const { folder, run, start, remove } = ship();
const MOMENTS = 20;
/** The moment at which no disk has room, instead of a kill. */
const FULL_DISK = 5;
const STEPS = 1000;
const disk = join(folder, 'disk');

const model = `attention a { num_heads: 2 }
ffn f { hidden_dim: 16  activation: relu  gate: false }
block b { attention: a  ffn: f }
model small { vocab_size: 280  hidden_size: 8  num_layers: 1  max_seq_len: 16  block: b }
`;
const cadence = '--save-every 4 --eval-every 10 --sample-every 50 --log-every 1';
const training = `train -m small.mal -d text.txt -t t.json -b 2 --seq-len 8 --steps ${STEPS} ${cadence} --no-self-check`;

test.before(async () => {
  writeFileSync(join(folder, 'small.mal'), model);
  const lines = Array.from({ length: 80 }, (_, n) => `the cat sat on ${n} mats, and ${7 * n} dogs ran home.\n`);
  writeFileSync(join(folder, 'text.txt'), lines.join(''));
  mkdirSync(disk);
  assert.is((await run('train-tokenizer -i text.txt -o t.json -v 280'.split(' '))).status, 0);
});
test.after(remove);

/** Every file of a run by its name, without what tells of time: seconds, memory, the length of their digits, event files. */
function traceOf(path: string): Record<string, string> {
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' }).filter(name => !/^events\./.test(name));
  const files = names.filter(name => name.includes('.') || ['latest', 'best'].includes(name)).sort();
  return Object.fromEntries(files.map(name => [name, timeless(name, readFileSync(join(path, name)))]));
}

function timeless(name: string, content: Buffer): string {
  if (name === 'metrics.jsonl') {
    const withoutTime = (key: string, value: unknown) => (['seconds', 'memory_bytes'].includes(key) ? 0 : value);
    const lines = content.toString().trimEnd().split('\n');
    return lines.map(line => JSON.stringify(JSON.parse(line, withoutTime))).join('\n');
  }
  return name.endsWith('state.json') ? content.toString().replace(/"metrics": \d+/, '') : content.toString('latin1');
}

/** Runs a command and calls `disturb` once it has printed so many lines, if it does. */
async function disturbed(words: string, lines: number, disturb: (child: ChildProcess) => void): Promise<Ending> {
  const child = start(words.split(' '));
  const output = { stdout: '', stderr: '' };
  let reached = false;
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', chunk => {
      output[name] += chunk;
      if (reached || output.stdout.split('\n').length <= lines) return;
      reached = true;
      disturb(child);
    });
  }
  return new Promise(resolve => child.on('close', (status, signal) => resolve({ status, signal, ...output })));
}

/** What `malc train` is to be asked for, as the folder stands: also a run without a checkpoint goes on, from its start. */
function nextWords(output: string): string {
  if (existsSync(join(folder, output, 'latest'))) return `train --resume -o ${output}`;
  const hasBegun = existsSync(join(folder, output, 'metrics.jsonl'));
  return `${training} -o ${output}${hasBegun ? ' --resume' : ''}`;
}

/** A disk of its own under `disk`, where one may be mounted. */
function mountDisk(): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Leaves no room, while `child` runs and makes some by removing its old checkpoints. */
async function fillDisk(child: ChildProcess): Promise<void> {
  const rest = Buffer.alloc(1 << 16);
  while (child.exitCode === null) {
    try {
      appendFileSync(join(disk, 'filler'), rest);
    } catch {
      await wait(1);
    }
  }
}

test(`killed at ${MOMENTS} moments, at one of them by a full disk, it ends in the same bits`, async () => {
  const whole = await run(`${training} -o whole/run`.split(' '));
  assert.is(whole.status, 0, whole.stderr);

  const isMounted = mountDisk();
  const random = new Random(20, 0);
  let kills = 0;
  try {
    for (let moment = 0; moment < MOMENTS; moment++) {
      // The table before the first step has forty lines; half the moments lie in it, or in the reading before.
      const lines = random.below(80);
      const delay = random.below(30);
      const words = nextWords('disk/run');
      if (moment === FULL_DISK) {
        const fill = (child: ChildProcess) =>
          isMounted
            ? fillDisk(child)
            : execFileSync('prlimit', [`--pid=${child.pid}`, '--fsize=4096'], { stdio: 'ignore' });
        const end = await disturbed(words, 45, fill);
        rmSync(join(disk, 'filler'), { force: true });
        // A test that waits long for its turn may find that the run has ended.
        if (end.status === 0) continue;
        assert.match(end.stderr, /^error: cannot write disk\/run\/.*: (the disk is full|a file may not be so large)/);
        assert.is(end.status, 1);
        console.log(isMounted ? 'the disk was filled' : 'no disk can be mounted here: files were limited instead');
        continue;
      }
      const end = await disturbed(words, lines, child => setTimeout(() => child.kill('SIGKILL'), delay));
      if (end.signal === 'SIGKILL') kills++;
      else assert.is(end.status, 0, end.stderr);
    }
    const last = await run(nextWords('disk/run').split(' '));
    assert.is(last.status, 0, last.stderr);
    console.log(`killed ${kills} times`);

    const [expected, found] = [traceOf(join(folder, 'whole/run')), traceOf(join(disk, 'run'))];
    assert.equal(Object.keys(found), Object.keys(expected));
    for (const name of Object.keys(expected)) assert.ok(found[name] === expected[name], `${name} differs`);
    const steps = found['metrics.jsonl']!.split('\n').map(line => JSON.parse(line).step);
    assert.equal(
      steps,
      Array.from({ length: STEPS }, (_, step) => step + 1),
    );
  } finally {
    if (isMounted) execFileSync('umount', [disk]);
  }
});

test.run();
