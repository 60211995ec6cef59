// Tests of the test runner: every way in which a file can fail without saying so is a failure.
import { spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

interface Run {
  readonly status: number | null;
  readonly output: string;
  readonly lastLine: string;
}

function run(files: readonly string[], ...options: string[]): Run {
  const paths = files.map(file => `test/fixtures/runner/${file}.ts`);
  const args = ['--import', 'tsx', 'test/run.ts', ...paths, ...options];
  // What a timed-out test started holds the runner's pipes: were it left alive, the runner would not come back.
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
  const output = child.stdout + child.stderr;
  return { status: child.status, output, lastLine: output.trimEnd().split('\n').at(-1)! };
}

const runner = suite('runner');

runner('counts single tests over all files and ends with the totals', () => {
  const { status, output, lastLine } = run(['passes', 'fails']);
  assert.is(status, 1);
  assert.is(lastLine, '3 passed, 1 failed');
  assert.match(output, /ok {3}test\/fixtures\/runner\/passes\.ts.* 2 passed/);
  assert.match(output, /FAIL test\/fixtures\/runner\/fails\.ts.* 1 passed, 1 failed/);
  assert.match(output, 'one is not two');
});

runner('leaves with 0 where everything passed', () => {
  const { status, lastLine } = run(['passes']);
  assert.is(status, 0);
  assert.is(lastLine, '2 passed, 0 failed');
});

const faults: readonly (readonly [file: string, says: RegExp, lastLine: string])[] = [
  ['crashes', /killed by SIGSEGV/, '0 passed, 1 failed'],
  ['never-run', /no tests ran to the end: is `\.run\(\)` missing/, '0 passed, 1 failed'],
  ['leaves-early', /Exiting early/, '0 passed, 1 failed'],
  ['broken-before', /0 passed, 1 failed/, '0 passed, 1 failed'],
  ['bad-exit', /exit status 7/, '1 passed, 1 failed'],
  ['no-such', /there is no such file/, '0 passed, 1 failed'],
];
for (const [file, says, expected] of faults) {
  runner(`${file} is a failure`, () => {
    const { status, output, lastLine } = run([file]);
    assert.is(status, 1);
    assert.match(output, says);
    assert.is(lastLine, expected);
  });
}

runner('a time-out is a failure and ends what the test had started', () => {
  const { status, output, lastLine } = run(['hangs'], '--timeout', '2');
  assert.is(status, 1);
  assert.match(output, /still running after 2 s/);
  assert.is(lastLine, '0 passed, 1 failed');
});

runner.run();
