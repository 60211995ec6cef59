// Other programs that the parts run: malc itself, nvcc, Python. None outlives its part, whose whole process group is ended.
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';

export interface Ended {
  /** Null where it was not found, was ended, or ran past its limit. */
  readonly code: number | null;
  readonly output: string;
  /** What it printed to standard output alone. */
  readonly printed: string;
  readonly seconds: number;
}

export interface Call {
  /** Limit in seconds; none where absent. */
  readonly seconds?: number;
  readonly environment?: Readonly<Record<string, string>>;
  readonly folder?: string;
}

/** Runs a program to its end; never throws. */
export function call(command: string, words: readonly string[], options: Call = {}): Promise<Ended> {
  const began = performance.now();
  const settings = {
    maxBuffer: 2 ** 28,
    env: { ...process.env, ...options.environment },
    timeout: Math.ceil((options.seconds ?? 0) * 1000),
    killSignal: 'SIGKILL',
    ...(options.folder !== undefined && { cwd: options.folder }),
  } as const;
  return new Promise(resolve => {
    const child = execFile(command, words, settings, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      const why =
        error && code === null ? `\n${error.killed ? 'ran past its limit' : error.message.split('\n')[0]}` : '';
      resolve({
        code,
        output: `${stdout}${stderr}${why}`.trim(),
        printed: stdout.trim(),
        seconds: (performance.now() - began) / 1000,
      });
    });
    child.stdin?.on('error', () => {}).end(); // nobody waits for what is not typed
  });
}

/** This program, as it was started: from its sources by tsx, or bundled as dist/gpu.js. */
const started = process.argv[1]!;
export const isBundled = !started.endsWith('.ts');

/** The words after `node` that start one of malc's programs, given by its source. */
export function programWords(source: 'cli.ts' | 'bench/gpu/run.ts'): string[] {
  if (!isBundled) return [...process.execArgv, join(dirname(started), '../..', source)];
  return [join(dirname(started), source === 'cli.ts' ? 'malc.js' : 'gpu.js')];
}

/** Runs `malc WORDS..`. */
export const callMalc = (words: readonly string[], options: Call = {}): Promise<Ended> =>
  call(process.execPath, [...programWords('cli.ts'), ...words], options);

/** What malc's programs run on: the GPU, or in a dry run the CPU, for the emulator would take too long. */
export const targetOf = (dry: boolean): 'cuda' | 'cpu' => (dry ? 'cpu' : 'cuda');

/** Does work on all items, so many at once, in their order. */
export async function inParallel<T>(
  items: readonly T[],
  jobs: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

/** The last lines, for a report. */
export const lastLines = (text: string, count = 12): string => text.trim().split('\n').slice(-count).join('\n');
