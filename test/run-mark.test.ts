// The mark of a training in its folder: it keeps others out while its process lives, and means nothing afterwards.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { markTraining, requireIdle } from '../runtime/train/run-mark.ts';

const test = suite('run mark');
const root = mkdtempSync(join(tmpdir(), 'malc-mark-'));
const children = new Set<ChildProcess>();
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true });
});

const newFolder = () => mkdtempSync(join(root, 'run-'));
const module = JSON.stringify(join(import.meta.dirname, '../runtime/train/run-mark.ts'));

/** A process that has marked the folder and sleeps. */
async function otherTraining(folder: string): Promise<ChildProcess> {
  const program = `import { markTraining } from ${module}; markTraining(${JSON.stringify(folder)});
console.log('marked'); setTimeout(() => {}, 60_000);`;
  const options = { stdio: ['ignore', 'pipe', 'inherit'] as ['ignore', 'pipe', 'inherit'] };
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], options);
  children.add(child);
  await once(child.stdout, 'data');
  return child;
}

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.instance(error, UserError);
    return (error as Error).message;
  }
  throw new Error('nothing was refused');
}

test('a folder is marked until the training ends, and its own mark bothers nobody', () => {
  const folder = newFolder();
  const remove = markTraining(folder);
  assert.is(readdirSync(folder).length, 1);
  requireIdle(folder);
  remove();
  assert.equal(readdirSync(folder), []);
});

test('another process that trains there is named; once it was killed, its mark goes', async () => {
  const folder = newFolder();
  const child = await otherTraining(folder);
  const message = refusal(() => markTraining(folder));
  assert.match(message, new RegExp(`in use by another training, process ${child.pid}\\. .*kill -INT ${child.pid}$`));
  assert.is(
    refusal(() => requireIdle(folder)),
    message,
  );
  assert.is(readdirSync(folder).length, 1);
  child.kill('SIGKILL');
  await once(child, 'exit');
  markTraining(folder)();
  assert.equal(readdirSync(folder), []);
});

test('a killed process that nobody has waited for yet is gone too', async () => {
  if (process.platform !== 'linux') {
    console.log('no /proc: not tried');
    return;
  }
  const folder = newFolder();
  const child = await otherTraining(folder);
  child.kill('SIGKILL');
  // Node waits for its children between two turns of the event loop, of which this is none.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  markTraining(folder)();
  assert.equal(readdirSync(folder), []);
  await once(child, 'exit');
});

test('the number of a dead process may have passed to another', () => {
  if (process.platform !== 'linux') {
    console.log('no start times: not tried');
    return;
  }
  const folder = newFolder();
  const remove = markTraining(folder);
  const [own] = readdirSync(folder);
  remove();
  writeFileSync(join(folder, own!.replace(/-\d+@/, '-1@')), '');
  markTraining(folder)();
  assert.equal(readdirSync(folder), []);
});

test('of another machine nothing is known: the message says which file to remove', () => {
  const folder = newFolder();
  writeFileSync(join(folder, '.training-12-34@elsewhere'), '');
  const message = refusal(() => markTraining(folder));
  assert.match(message, /in use by a training on the machine elsewhere \(process 12\)/);
  assert.match(message, /If it runs no more: rm .*\.training-12-34@elsewhere$/);
  assert.equal(readdirSync(folder), ['.training-12-34@elsewhere']);
});

test.run();
