// `npm run gpu`: everything that only a machine with a GPU can tell, in one command and a few minutes (README.md).
//
//   node dist/gpu.js [--plan first] [--minutes 8] [--parts NAME,..] [--out DIR] [--dry]
//   node dist/gpu.js --predict          what its tables hold measurements against; needs no GPU
//
// Each part is a process of its own with a time limit, and fails alone. Results are written after every part, so that a run
// which is cut off leaves what it had. Exits with 0, with 1 where something is not as it should be, with 2 where it is called
// wrongly, and with 3 where there is no GPU.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packagePath, readPackageFile } from '../../compiler/package-files.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { sourceCommit } from '../../runtime/bench/history.ts';
import { findCudaDevice, whyNoDevice } from '../../runtime/cuda-device.ts';
import { meanOf, watchDevice } from './clock.ts';
import type { Item, Part, PartResult } from './part.ts';
import { allParts, planNames, plans, type Stage } from './parts.ts';
import { predictionPage } from './predict.ts';
import { endParts, runPart } from './process.ts';
import { type Run, writeRun } from './report.ts';
import { takeTurns } from './turn.ts';

const options = {
  out: { type: 'string' },
  plan: { type: 'string', default: 'first' },
  parts: { type: 'string' },
  minutes: { type: 'string', default: '8' },
  dry: { type: 'boolean', default: false },
  predict: { type: 'boolean', default: false },
  // How this program calls itself.
  part: { type: 'string' },
  seconds: { type: 'string', default: '0' },
  turn: { type: 'string' },
  tune: { type: 'boolean', default: false },
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

/** The stages of a plan, or those of all plans with the parts of these names alone. */
function chooseStages(plan: string, names: string | undefined): readonly Stage[] {
  const known = planNames.find(name => name === plan);
  if (known === undefined)
    stop(`there is no plan '${plan}': there are ${planNames.slice(0, -1).join(', ')} and ${planNames.at(-1)}`, 2);
  if (names === undefined) return plans[known];
  const chosen = new Set(names.split(',').map(partCalled));
  const stages = planNames.flatMap(name => plans[name]).map(stage => stage.filter(part => chosen.delete(part)));
  return stages.filter(stage => stage.length > 0);
}

function partCalled(name: string): Part {
  const part = allParts.find(each => each.name === name);
  return part ?? stop(`there is no part '${name}': there are ${allParts.map(each => each.name).join(', ')}`, 2);
}

const values = readOptions();
const turn = { dtype: values.dtype as TrainingType, dry: values.dry, tunes: values.tune };
if (values.turn !== undefined) await takeTurns(values.turn, turn);
else if (values.part !== undefined) await measurePart(partCalled(values.part));
else if (values.predict) console.log(predictionPage());
else await runAll(chooseStages(values.plan, values.parts));

/** In the part's own process. */
async function measurePart(part: Part): Promise<void> {
  const report = (item: Item) => void process.send?.(item);
  await part.measure({ dry: values.dry, seconds: Number(values.seconds), report });
  process.disconnect?.();
}

async function runAll(chosen: readonly Stage[]): Promise<void> {
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) stop(`--minutes expects a number above 0, not '${values.minutes}'`, 2);
  const device = values.dry ? null : findCudaDevice();
  if (!device && !values.dry) {
    const { problem, remedy } = whyNoDevice();
    stop(`no GPU: ${problem}\n${remedy}\nWith --dry everything runs in small without one, to try the run itself.`, 3);
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      endParts();
      process.exit(130);
    });

  const end = performance.now() + minutes * 60_000;
  const results = new Map<Part, PartResult>();
  const about: Omit<Run, 'parts'> = {
    date: new Date().toISOString(),
    malc: JSON.parse(readPackageFile('package.json')).version,
    commit: sourceCommit(),
    gpu: device?.name ?? 'dry',
    plan: values.parts === undefined ? values.plan : 'parts',
    minutes,
  };
  // A dry run's figures are none: they do not belong among results.
  const out = values.out ?? (device ? packagePath('bench/results') : join(tmpdir(), 'malc-gpu-dry'));
  const save = () => writeRun(out, { ...about, parts: [...results.values()] }, allParts);

  const run = async (part: Part): Promise<void> => {
    const seconds = Math.min(part.seconds, (end - performance.now()) / 1000);
    const empty = { name: part.name, seconds: 0, items: [], output: null, clock: null };
    if (seconds < LEAST_SECONDS) {
      results.set(part, { ...empty, status: 'not run' });
      return;
    }
    const words = ['--part', part.name, '--seconds', seconds.toFixed(1), ...(values.dry ? ['--dry'] : [])];
    const stopWatching = device ? watchDevice() : () => [];
    const result = await runPart(part.name, words, seconds, items => {
      results.set(part, { ...empty, status: 'running', items });
      save();
    });
    results.set(part, { ...result, clock: meanOf(stopWatching()) });
    const failures = result.items.filter(({ failed }) => failed).length;
    const verdict = failures > 0 ? `${failures} of ${result.items.length} failed` : `${result.items.length} results`;
    const time = `${result.seconds.toFixed(0).padStart(4)} s`;
    console.log(`${result.status.padEnd(8)} ${part.name.padEnd(14)} ${time}  ${verdict}`);
    save();
  };
  for (const stage of chosen) await Promise.all(stage.map(run));
  const path = save();
  console.log(`\nresults: ${path}.md and .json`);
  const good = [...results.values()].every(
    ({ status, items }) => status === 'done' && items.every(({ failed }) => !failed),
  );
  process.exit(good ? 0 : 1); // whoever could not be ended is not waited for
}
