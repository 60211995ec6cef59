// A part in a process of its own, at the head of a group: whatever it started goes with it.
import { fork } from 'node:child_process';
import type { Item, PartResult } from './part.ts';
import { lastLines } from './programs.ts';

/** Kept of what a part prints. */
const OUTPUT = 100_000;
/** Milliseconds that a part has to end in once it was ended: a driver may hold on to whom its GPU hangs. */
const ENDING = 10_000;
/** Of those who were told to stop: the groups of parts that run. */
const running = new Set<number>();

/**
 * Runs this program again with other words, and ends it at its limit.
 * @param onItem told of each item as it comes
 */
export function runPart(
  name: string,
  words: readonly string[],
  seconds: number,
  onItem: (items: readonly Item[]) => void,
): Promise<Omit<PartResult, 'clock'>> {
  const began = performance.now();
  const items: Item[] = [];
  let output = '';
  const child = fork(process.argv[1]!, [...words], { detached: true, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const group = child.pid!;
  running.add(group);
  const keep = (text: Buffer) => {
    output = (output + text).slice(-OUTPUT);
  };
  child.stdout!.on('data', keep);
  child.stderr!.on('data', keep);
  child.on('message', item => {
    items.push(item as Item);
    onItem(items);
  });
  let isCut = false;
  return new Promise(resolve => {
    let timer = setTimeout(() => {
      isCut = true;
      endGroup(group);
      timer = setTimeout(() => done('it could not be ended'), ENDING);
    }, seconds * 1000);
    const done = (fault: string | null) => {
      clearTimeout(timer);
      endGroup(group);
      running.delete(group);
      const failed = fault === null ? null : lastLines(`${output}\n${fault}`, 25);
      const status = isCut ? 'cut off' : fault === null ? 'done' : 'failed';
      resolve({ name, status, seconds: (performance.now() - began) / 1000, items, output: failed });
    };
    child.on('error', error => done(error.message));
    // Not `close`: what the part started may hold its pipes open.
    child.on('exit', (code, signal) =>
      setTimeout(() => done(code === 0 ? null : (signal ?? `exit status ${code}`)), 100),
    );
  });
}

/** Ends all parts, when this program must go. */
export function endParts(): void {
  for (const group of running) endGroup(group);
}

function endGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL');
  } catch {
    // It has already ended.
  }
}
