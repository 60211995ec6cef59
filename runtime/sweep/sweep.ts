// Runs a sweep: plans it, holds the plan against what an earlier one left, and trains what is not yet at its end.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { checkFolderWritable, makeFolder, writeFileAtomic } from '../atomic-file.ts';
import { writeStories } from '../data/stories.ts';
import { pageOf } from '../show/page/page.ts';
import { readProgress } from '../show/page/run-record.ts';
import { markTraining, requireIdle } from '../train/run-mark.ts';
import { differences, makePlan, modelPath, type Plan, type PlannedVariant } from './plan.ts';
import { type Place, Progress } from './progress.ts';
import { dataFrom, type Sweep } from './read-sweep.ts';
import {
  holdsSweep,
  readPlan,
  readSweepRuns,
  resultsOf,
  runPath,
  runResult,
  type SweepResult,
  writeFailure,
  writePlan,
} from './results.ts';
import { planTable, resultTable, writeResults } from './table.ts';
import { inTemporaryFolder } from './temporary-folder.ts';
import type { Trainer } from './trainer.ts';

export interface SweepOptions {
  readonly sweep: Sweep;
  readonly folder: string;
  /** Data that takes the place of what the file names; null for that. */
  readonly data: readonly string[] | null;
  readonly dryRun: boolean;
  readonly trainer: Trainer;
  readonly screen: ConstructorParameters<typeof Progress>[0];
}

/** What the stories are called that a sweep writes itself, how many bytes they are, and their seed. */
const STORIES = { name: 'stories.txt', bytes: 2_000_000, seed: 1 };
const PAGE = 'page.html';

/**
 * Runs what the file asks for, as far as it is not done yet; the same call goes on where it was stopped. A variant that
 * cannot be trained, and a run that fails, are told in the results and end nothing.
 *
 * @returns whether all runs are at their end; `planned` for a dry run, which writes nothing.
 * @throws UserError where the file, its data or a model is at fault, or where runs of before no longer fit; WriteError.
 */
export async function runSweep(options: SweepOptions): Promise<'done' | 'interrupted' | 'planned'> {
  const { folder, dryRun, trainer, screen } = options;
  const progress = new Progress(screen);
  if (dryRun) {
    await inTemporaryFolder(stories => planned(options, stories, progress));
    progress.note('\na dry run: nothing was written');
    return 'planned';
  }
  const { plan, writeTokenizer } = await planned(options, folder, progress);
  makeFolder(folder);
  // Before anything is written: another sweep may have begun here while this one was planned.
  const unmark = markTraining(folder);
  try {
    writePlan(folder, plan);
    writeTokenizer();
    for (const { name, text } of plan.variants) {
      makeFolder(join(folder, name));
      writeFileAtomic(modelPath(folder, name), text);
    }
    const ending = await trainAll(folder, plan, trainer, progress);
    progress.note(`\n${resultTable(writeAll(folder, plan))}`);
    return ending;
  } finally {
    unmark();
  }
}

/**
 * Makes the plan, holds it against what is there, and shows it.
 *
 * @param storyFolder where stories are written if there are none
 */
async function planned(options: SweepOptions, storyFolder: string, progress: Progress): ReturnType<typeof makePlan> {
  const { sweep, folder, trainer } = options;
  const before = planOf(folder);
  const made = before === null ? [] : variantsWithRuns(folder, before);
  const own = join(folder, 'tokenizer.json');
  const found = await makePlan({
    ...{ sweep, folder, trainer, before, named: dataOf(options, storyFolder) },
    // Runs that are there have one, and are held against what was learned then.
    tokenizer: sweep.tokenizer ?? (made.length > 0 && existsSync(own) ? own : null),
    tell: text => progress.note(text),
  });
  if (before !== null) requireFitting(folder, before, found.plan, made);
  progress.note(planTable(found.plan));
  return found;
}

/** The results of a sweep as far as it is, also written as files with the page. @throws UserError where there is none. */
export function writeAll(folder: string, plan: Plan = readPlan(folder)): SweepResult {
  const results = resultsOf(folder, plan);
  writeResults(folder, results);
  const runs = readSweepRuns(folder, plan).map(record => ({ record, progress: readProgress(record.path, 0) }));
  if (runs.length > 0) writeFileAtomic(join(folder, PAGE), pageOf(runs, false, results));
  return results;
}

/** What is known of an earlier sweep in the folder. @throws UserError where something else is in it. */
function planOf(folder: string): Plan | null {
  checkFolderWritable(folder);
  if (!existsSync(folder) || readdirSync(folder).length === 0) return null;
  if (holdsSweep(folder)) {
    requireIdle(folder);
    return readPlan(folder);
  }
  if (readdirSync(folder).every(name => name === STORIES.name)) return null;
  throw new UserError(`${folder} holds something that is no sweep; choose another folder with --output`);
}

/** The paths of the data; stories are written where there are none. */
function dataOf({ sweep, data }: SweepOptions, folder: string): readonly string[] {
  const named = data ?? sweep.data;
  if (named === null)
    throw new UserError(
      `${sweep.path} names no data; give it with --data, or add to the file \`data: "FILE"\`, ` +
        'or `data: stories` for stories that malc writes',
    );
  if (named !== 'stories') {
    if (named.some(word => /^-(:|$)/.test(word)))
      throw new UserError('--data: standard input is read once, and a sweep reads its text for each run; give a file');
    return named.map(word => dataFrom('.', word));
  }
  const path = join(folder, STORIES.name);
  if (!existsSync(path)) {
    makeFolder(folder);
    writeFileAtomic(path, writeStories(STORIES.seed, STORIES.bytes));
  }
  return [path];
}

/** The variants of an earlier plan of which runs have begun. */
const variantsWithRuns = (folder: string, { variants, seeds }: Plan): PlannedVariant[] =>
  variants.filter(({ name }) => seeds.some(seed => existsSync(join(runPath(folder, name, seed), 'metrics.jsonl'))));

/** @throws UserError where runs that are there are not those that the file asks for now. */
function requireFitting(folder: string, before: Plan, now: Plan, made: readonly PlannedVariant[]): void {
  if (made.length === 0) return;
  const remedy = (paths: readonly string[]) =>
    `Give another --output, or remove them so that they are made anew: rm -r ${paths.join(' ')}`;
  const others = [
    ...(before.dataHash === now.dataHash ? [] : ['--data: the text is not the one that they were trained on']),
    ...(before.tokenizerHash === now.tokenizerHash ? [] : ['the tokenizer is not the one that they have']),
  ];
  if (others.length > 0)
    throw new UserError(`the runs in ${folder} no longer fit:\n  ${others.join('\n  ')}\n${remedy([folder])}`);
  const changed = made.flatMap(variant => {
    const planned = now.variants.find(({ name }) => name === variant.name);
    const differing = planned === undefined ? [] : differences(variant, planned);
    return differing.length === 0 ? [] : [{ name: variant.name, differing }];
  });
  if (changed.length === 0) return;
  const lines = changed.map(({ name, differing }) => `  ${name}: ${differing.join('\n    ')}`);
  throw new UserError(
    `the sweep file has changed, and these runs in ${folder} no longer fit:\n${lines.join('\n')}\n` +
      remedy(changed.map(({ name }) => join(folder, name))),
  );
}

/** Every seed of all variants before the next one, so that a sweep that is stopped has compared what it could. */
async function trainAll(
  folder: string,
  plan: Plan,
  trainer: Trainer,
  progress: Progress,
): Promise<'done' | 'interrupted'> {
  const runs = plan.seeds.flatMap(seed => plan.variants.map(variant => ({ variant, seed })));
  // One that another process trains, or that has its mark, is open too: `malc train` says then what is to be done.
  const isOpen = ({ variant, seed }: (typeof runs)[number]) =>
    variant.failure === null &&
    ['waiting', 'stopped', 'training'].includes(runResult(runPath(folder, variant.name, seed), seed, variant).state);
  for (const [index, run] of runs.entries()) {
    if (!isOpen(run)) continue;
    const { variant, seed } = run;
    const path = runPath(folder, variant.name, seed);
    const after = runs.slice(index + 1).filter(isOpen);
    const place: Place = {
      ...{ number: index + 1, of: runs.length, variant: variant.name, seed, steps: variant.steps },
      seconds: variant.seconds!,
      secondsAfter: after.reduce((sum, each) => sum + each.variant.seconds!, 0),
    };
    const result = await trainer.train(
      {
        // One program for all seeds: once is enough.
        'self-check': seed === plan.seeds[0],
        keep: 1,
        ...variant.options,
        ...{ model: modelPath(folder, variant.name), data: plan.data, tokenizer: plan.tokenizer, output: path, seed },
        resume: existsSync(join(path, 'metrics.jsonl')),
      },
      { step: record => progress.step(place, record), note: text => progress.note(text) },
    );
    if (result.ending === 'interrupted') return 'interrupted';
    if (result.ending === 'failed') {
      makeFolder(path);
      writeFailure(path, result.reason);
    }
    progress.ended(place, runResult(path, seed, variant));
    writeResults(folder, resultsOf(folder, plan));
  }
  return 'done';
}
