// One training at a time in a run folder. Whoever trains there leaves an empty file whose name says who it is, and then
// looks for the marks of others: of two that begin at the same instant, at least one sees the other. A mark that a killed
// process left behind means nothing and is removed, so that nobody has to clean up after a crash.
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { explainWriting } from '../atomic-file.ts';
import { startOf, thisHost } from '../processes.ts';

/**
 * Marks this process as the one that trains in `folder`. Returns what removes the mark.
 *
 * @throws UserError as `requireIdle` does, or where the folder may not be written to.
 */
export function markTraining(folder: string): () => void {
  const path = join(folder, markOf(process.pid));
  try {
    writeFileSync(path, '');
  } catch (error) {
    throw explainWriting(error, path);
  }
  const remove = () => rmSync(path, { force: true });
  try {
    requireIdle(folder);
  } catch (error) {
    remove();
    throw error;
  }
  for (const { name } of marksIn(folder)) {
    if (name !== markOf(process.pid)) rmSync(join(folder, name), { force: true });
  }
  return remove;
}

/**
 * Nothing is touched.
 *
 * @throws UserError where another process trains in the folder, or may do so on another machine.
 */
export function requireIdle(folder: string): void {
  for (const mark of marksIn(folder)) {
    if (mark.name === markOf(process.pid)) continue;
    if (mark.host !== thisHost()) {
      throw new UserError(
        `${folder} is in use by a training on the machine ${mark.host} (process ${mark.pid}). ` +
          `Wait for its end, or choose another --output. If it runs no more: rm ${join(folder, mark.name)}`,
      );
    }
    if (startOf(mark.pid) === mark.start) {
      throw new UserError(
        `${folder} is in use by another training, process ${mark.pid}. ` +
          `Wait for its end, choose another --output, or let it save and stop: kill -INT ${mark.pid}`,
      );
    }
  }
}

/** Whether a process trains in `folder`, as far as this machine can tell. */
export const isTraining = (folder: string): boolean =>
  marksIn(folder).some(({ pid, start, host }) => host !== thisHost() || startOf(pid) === start);

interface Mark {
  readonly name: string;
  readonly pid: number;
  /** As `startOf` gives it: the system may give the number of a process that is gone to another. */
  readonly start: string | null;
  readonly host: string;
}

function marksIn(folder: string): Mark[] {
  return readdirSync(folder).flatMap(name => {
    const match = /^\.training-(\d+)-(\d+)@(.*)$/.exec(name);
    return match === null ? [] : [{ name, pid: Number(match[1]), start: match[2]!, host: match[3]! }];
  });
}

function markOf(pid: number): string {
  return `.training-${pid}-${startOf(pid)}@${thisHost()}`;
}
