// The test runner: one child process for each test file, so that a crash in native code is that file's failure alone.
//
//   node --import tsx test/run.ts [FILE...] [--jobs N] [--timeout SECONDS]
//
// A signal, a time-out, a non-zero exit or zero tests (a forgotten `.run()`) is a failure. The last line is always
// `N passed, N failed`, counted in single tests; a file that never printed its totals counts as one failure.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

interface Outcome {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly seconds: number;
  /** Why the file failed beyond its single tests, such as `killed by SIGSEGV`; null where it did not. */
  readonly fault: string | null;
  readonly output: string;
}

const repository = dirname(dirname(fileURLToPath(import.meta.url)));
const running = new Set<ChildProcess>();

/** Every `*.test.ts` under test/, relative to the repository. */
function allTestFiles(): string[] {
  const found = readdirSync(join(repository, 'test'), { recursive: true, encoding: 'utf8' });
  return found
    .filter(name => name.endsWith('.test.ts'))
    .map(name => join('test', name))
    .sort();
}

/** Runs one file in a process group of its own, so that a time-out also ends the processes which the test started. */
function runFile(file: string, threads: number, timeout: number): Promise<Outcome> {
  return new Promise(resolve => {
    const started = performance.now();
    const environment = {
      ...process.env,
      FORCE_COLOR: '0',
      // Two threads even where files share the cores, so that parallel code is run in parallel; idle ones must not spin.
      OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? String(threads),
      OMP_WAIT_POLICY: process.env.OMP_WAIT_POLICY ?? 'passive',
    };
    const child = spawn(process.execPath, ['--import', 'tsx', file], {
      cwd: repository,
      detached: true,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    let output = '';
    let timedOut = false;
    const keep = (chunk: Buffer) => {
      output += chunk.toString();
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const timer = setTimeout(() => {
      timedOut = true;
      endGroup(child);
    }, timeout * 1000);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      running.delete(child);
      const seconds = (performance.now() - started) / 1000;
      const exit = timedOut ? `still running after ${timeout} s` : exitFault(code, signal);
      resolve({ file, seconds, output, ...count(output, exit) });
    });
  });
}

function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group has already ended.
  }
}

function exitFault(code: number | null, signal: NodeJS.Signals | null): string | null {
  if (signal !== null) return `killed by ${signal}`;
  return code === 0 ? null : `exit status ${code}`;
}

/** Reads uvu's totals. A test that was neither passed nor skipped failed, whatever the exit status says: uvu drops the
 * error of a `before` hook and exits with 0. */
function count(output: string, exit: string | null): Pick<Outcome, 'passed' | 'failed' | 'skipped' | 'fault'> {
  const total = lastNumber(output, /^ {2}Total: +(\d+)/gm);
  const passed = lastNumber(output, /^ {2}Passed: +(\d+)/gm);
  const skipped = lastNumber(output, /^ {2}Skipped: +(\d+)/gm) ?? 0;
  if (total === null || passed === null) {
    return { passed: 0, failed: 1, skipped: 0, fault: exit ?? 'no tests ran to the end: is `.run()` missing?' };
  }
  if (total === 0) return { passed: 0, failed: 1, skipped, fault: exit ?? 'the suite is empty' };
  const failed = total - passed;
  // Failed tests explain a non-zero exit; an exit that nothing explains is a failure of its own.
  const unexplained = exit !== null && (failed === 0 || exit !== 'exit status 1');
  return { passed, failed: failed + (unexplained ? 1 : 0), skipped, fault: unexplained ? exit : null };
}

function lastNumber(text: string, pattern: RegExp): number | null {
  const last = [...text.matchAll(pattern)].at(-1);
  return last === undefined ? null : Number(last[1]);
}

/** From the first failed test to the totals; without one, the end of what was printed. */
function usefulPart(output: string): string {
  const lines = output.trimEnd().split('\n');
  const first = lines.findIndex(line => /^\s+FAIL\s/.test(line));
  const totals = lines.findLastIndex(line => /^ {2}Total: /.test(line));
  const chosen = first >= 0 ? lines.slice(first, totals > first ? totals : undefined) : lines.slice(-40);
  const shown = chosen.slice(0, 120);
  if (shown.length < chosen.length) shown.push(`... and ${chosen.length - shown.length} more lines`);
  return shown
    .map(line => `  ${line}`.trimEnd())
    .join('\n')
    .trimEnd();
}

function report(outcome: Outcome): void {
  const { file, passed, failed, skipped, seconds, fault } = outcome;
  const parts = [`${passed} passed`];
  if (failed > 0) parts.push(`${failed} failed`);
  if (skipped > 0) parts.push(`${skipped} skipped`);
  if (fault !== null) parts.push(fault);
  const time = `${seconds.toFixed(1)} s`;
  console.log(`${failed > 0 ? 'FAIL' : 'ok  '} ${file.padEnd(44)} ${time.padStart(7)}  ${parts.join(', ')}`);
  if (failed > 0) console.log(`\n${usefulPart(outcome.output)}\n`);
}

function positiveNumber(name: string, value: string): number {
  const number = Number(value);
  if (number > 0) return number;
  console.error(`test/run.ts: --${name} expects a number above 0, not '${value}'`);
  process.exit(2);
}

const cores = availableParallelism();
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // Tests use native threads themselves: two files at once keep a small machine busy and a large one honest.
    jobs: { type: 'string', default: String(Math.min(2, cores)) },
    timeout: { type: 'string', default: '900' },
  },
});
const jobs = positiveNumber('jobs', values.jobs);
const timeout = positiveNumber('timeout', values.timeout);
const threads = Math.max(2, Math.floor(cores / jobs));
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const child of running) endGroup(child);
    process.exit(130);
  });
}

const waiting = positionals.length > 0 ? positionals : allTestFiles();
const outcomes: Outcome[] = [];
async function worker(): Promise<void> {
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const outcome: Outcome = existsSync(join(repository, file))
      ? await runFile(file, threads, timeout)
      : { file, passed: 0, failed: 1, skipped: 0, seconds: 0, fault: 'there is no such file', output: '' };
    outcomes.push(outcome);
    report(outcome);
  }
}
await Promise.all(Array.from({ length: jobs }, worker));

const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
