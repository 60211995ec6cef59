// `npm run gpu`: everything that only a machine with a GPU can tell, in one command and a few minutes (README.md).
//
//   node dist/gpu.js [--minutes 8] [--parts NAME,..] [--out DIR] [--dry]
//
// Each part is a process of its own with a time limit, and fails alone. Results are written after every part, so that a run
// which is cut off leaves what it had. Exits with 0, with 1 where something is not as it should be, with 2 where it is called
// wrongly, and with 3 where there is no GPU.
import { parseArgs } from 'node:util';
import { packagePath, readPackageFile } from '../../compiler/package-files.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { sourceCommit } from '../../runtime/bench/history.ts';
import { watchClock } from './clock.ts';
import { findGpu } from './machine.ts';
import type { Item, Part, PartResult } from './part.ts';
import { parts as allParts } from './parts.ts';
import { endParts, runPart } from './process.ts';
import { type Run, writeRun } from './report.ts';
import { takeTurns } from './turn.ts';

const options = {
  out: { type: 'string', default: packagePath('bench/results') },
  parts: { type: 'string' },
  minutes: { type: 'string', default: '8' },
  dry: { type: 'boolean', default: false },
  // How this program calls itself.
  part: { type: 'string' },
  seconds: { type: 'string', default: '0' },
  turn: { type: 'string' },
  dtype: { type: 'string', default: 'bf16' },
} as const;

/** Of the last part, which would not come to anything in less. */
const LEAST_SECONDS = 10;

function readOptions() {
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    return stop((error as Error).message, 2);
  }
}

function stop(message: string, code: number): never {
  console.error(message);
  process.exit(code);
}

function chooseParts(names: string | undefined): readonly Part[] {
  if (names === undefined) return allParts;
  return names.split(',').map(name => {
    const part = allParts.find(each => each.name === name);
    return part ?? stop(`there is no part '${name}': there are ${allParts.map(each => each.name).join(', ')}`, 2);
  });
}

const values = readOptions();
if (values.turn !== undefined) await takeTurns(values.turn, values.dtype as TrainingType, values.dry);
else if (values.part !== undefined) await measurePart(chooseParts(values.part)[0]!);
else await runAll(chooseParts(values.parts));

/** In the part's own process. */
async function measurePart(part: Part): Promise<void> {
  const report = (item: Item) => void process.send?.(item);
  await part.measure({ dry: values.dry, seconds: Number(values.seconds), report });
  process.disconnect?.();
}

async function runAll(chosen: readonly Part[]): Promise<void> {
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) stop(`--minutes expects a number above 0, not '${values.minutes}'`, 2);
  const gpu = values.dry ? null : await findGpu();
  if (!gpu && !values.dry)
    stop('no GPU: nvidia-smi finds none. With --dry everything runs in small on the CPU, to try the run itself.', 3);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      endParts();
      process.exit(130);
    });

  const end = performance.now() + minutes * 60_000;
  const results: PartResult[] = [];
  const about: Omit<Run, 'parts'> = {
    date: new Date().toISOString(),
    malc: JSON.parse(readPackageFile('package.json')).version,
    commit: sourceCommit(),
    gpu: gpu?.name ?? 'dry',
    minutes,
  };
  const save = (now: PartResult | null) =>
    writeRun(values.out, { ...about, parts: now ? [...results, now] : results }, allParts);

  for (const part of chosen) {
    const seconds = Math.min(part.seconds, (end - performance.now()) / 1000);
    const empty = { name: part.name, seconds: 0, items: [], output: null, clock: null };
    if (seconds < LEAST_SECONDS) {
      results.push({ ...empty, status: 'not run' });
      continue;
    }
    const words = ['--part', part.name, '--seconds', seconds.toFixed(1), ...(values.dry ? ['--dry'] : [])];
    const stopClock = gpu ? watchClock() : () => null;
    const result = await runPart(part.name, words, seconds, items => {
      save({ ...empty, status: 'running', items });
    });
    results.push({ ...result, clock: stopClock() });
    const failures = result.items.filter(({ failed }) => failed).length;
    const verdict = failures > 0 ? `${failures} of ${result.items.length} failed` : `${result.items.length} results`;
    console.log(
      `${result.status.padEnd(8)} ${part.name.padEnd(14)} ${result.seconds.toFixed(0).padStart(4)} s  ${verdict}`,
    );
    save(null);
  }
  const path = save(null);
  console.log(`\nresults: ${path}.md and .json`);
  const good = results.every(({ status, items }) => status === 'done' && items.every(({ failed }) => !failed));
  process.exitCode = good ? 0 : 1;
}
