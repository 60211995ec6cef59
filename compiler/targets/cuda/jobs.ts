// What the blocks of a launch do where it has several kinds of them: each block finds its own.
import type { Writer } from '../../emission/writer.ts';

/** What a number of blocks do: the text for block `block` of them. */
export interface Job {
  /** C++ text. */
  readonly count: string;
  print(body: Writer): void;
}

/** Blocks of all of them. */
export const countOf = (jobs: readonly Job[]): string => jobs.map(({ count }) => count).join(' + ');

/** Each block finds the job that it is one of. */
export function printJobs(body: Writer, jobs: readonly Job[]): void {
  for (const { count, print } of jobs.slice(0, -1)) {
    body.block(`if (block < ${count})`, () => {
      print(body);
      body.line('return;');
    });
    body.line(`block -= ${count};`);
  }
  jobs.at(-1)!.print(body);
}
