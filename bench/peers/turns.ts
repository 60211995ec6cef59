// Programs that train by turns: each in a process of its own, of which one steps while the others wait.
//
// A program prints lines: facts about itself as JSON objects, then `ready`; then it runs a step for each empty line that it
// reads, and prints its seconds.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Something that trains a model. */
export interface Runner {
  readonly name: string;
  /** What it told of itself. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Runs one step and resolves to its seconds. */
  readonly step: () => Promise<number>;
  readonly close: () => Promise<void>;
}

/** One in a process of its own. */
export interface Program extends Runner {
  /** Gives it another line than that of a step, and resolves to the line that it answers. */
  readonly ask: (line: string) => Promise<string>;
}

/**
 * Starts a program and waits until it is ready.
 *
 * @param limit seconds that it has until then
 * @param answer seconds that it has for each line later; one that hangs is ended
 * @throws Error with the end of its output where it ends before, or was ended at the limit.
 */
export async function startRunner(
  name: string,
  command: string,
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  limit = Number.POSITIVE_INFINITY,
  answer = Number.POSITIVE_INFINITY,
): Promise<Program> {
  const child = spawn(command, words, { env: { ...process.env, ...environment }, stdio: 'pipe' });
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', text => {
    complaints = (complaints + text).slice(-4000);
  });
  const ended = new Promise<string>(resolve => {
    child.on('error', error => resolve(error.message));
    child.on('close', (code, signal) => resolve(signal ?? `exit status ${code}`));
  });
  child.stdin.on('error', () => {}); // it ended: the next line that is waited for says so
  let late: string | null = null;
  /** Ends it after so many seconds, for it was then late as these words say. */
  const endAfter = (seconds: number, words: string) => {
    if (seconds === Number.POSITIVE_INFINITY) return undefined;
    return setTimeout(() => {
      late = `${words} ${seconds.toFixed(0)} s`;
      child.kill('SIGKILL');
    }, seconds * 1000);
  };
  const timer = endAfter(limit, 'was not ready after');
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) {
      clearTimeout(timer);
      throw new Error(`${name} ${late ?? `ended (${await ended})`}\n${complaints.trim()}`);
    }
    return value;
  };
  const facts: Record<string, unknown> = {};
  for (let line = await next(); line !== 'ready'; line = await next())
    if (line.startsWith('{')) Object.assign(facts, JSON.parse(line));
  clearTimeout(timer);
  const ask = (line: string) => {
    const waiting = endAfter(answer, 'gave no answer in');
    child.stdin.write(`${line}\n`);
    return next().finally(() => clearTimeout(waiting));
  };
  return {
    name,
    facts,
    ask,
    step: async () => Number(await ask('')),
    async close() {
      child.stdin.end();
      await ended;
    },
  };
}

/**
 * Seconds of each runner's steps, round by round: in each, every one steps twice, and the second step counts, for what another
 * program left in the caches is paid for in the first.
 * @param until no round begins after this time, of performance.now(); the first one does whatever it is
 */
export async function byTurns(
  runners: readonly Runner[],
  rounds: number,
  until = Number.POSITIVE_INFINITY,
): Promise<number[][]> {
  const seconds = runners.map((): number[] => []);
  for (let round = 0; round === 0 || (round < rounds && performance.now() < until); round++)
    for (const [n, { step }] of runners.entries()) {
      await step();
      seconds[n]!.push(await step());
    }
  return seconds;
}
