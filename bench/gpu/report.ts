// What a GPU run found, as one JSON object and one Markdown page, written anew after every part.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from '../../runtime/atomic-file.ts';
import type { Item, Part, PartResult } from './part.ts';
import { summaryOf } from './summary.ts';

export interface Run {
  /** ISO 8601. */
  readonly date: string;
  readonly malc: string;
  readonly commit: string | null;
  /** As the driver calls it; `dry` for a run without one. */
  readonly gpu: string;
  readonly plan: string;
  readonly minutes: number;
  readonly parts: readonly PartResult[];
}

/** Writes `DATE-GPU-COMMIT-PLAN.json` and `.md`; returns their path without the ending. */
export function writeRun(folder: string, run: Run, parts: readonly Part[]): string {
  const gpu = run.gpu
    .replace(/^NVIDIA /, '')
    .replaceAll(/[^A-Za-z0-9]+/g, '-')
    .toLowerCase();
  const path = join(folder, `${run.date.slice(0, 10)}-${gpu}-${run.commit ?? 'unknown'}-${run.plan}`);
  makeFolder(folder);
  writeFileSync(`${path}.json`, `${JSON.stringify(run, null, 1)}\n`);
  writeFileSync(`${path}.md`, pageOf(run, parts));
  return path;
}

function pageOf(run: Run, parts: readonly Part[]): string {
  const dry = run.gpu === 'dry' ? ['A dry run, on the CPU: no number here says anything.'] : [];
  const head = `# malc ${run.malc} on ${run.gpu}\n\n${run.date}, commit ${run.commit ?? 'unknown'}.`;
  const sections = run.parts.map(result => sectionOf(result, parts.find(({ name }) => name === result.name)!));
  const summary = summaryOf(run.parts);
  return `${[head, ...dry, ...(summary === '' ? [] : [summary]), ...sections].join('\n\n')}\n`;
}

function sectionOf(result: PartResult, part: Part): string {
  const clock = result.clock
    ? `, ${result.clock.mhz.toFixed(0)} MHz and ${result.clock.watts.toFixed(0)} W in the mean`
    : '';
  const state = `\`${result.name}\`: ${result.status}, ${result.seconds.toFixed(0)} s${clock}.`;
  const table = result.items.length > 0 ? [tableOf(part, result.items)] : [];
  const faults = [
    ...result.items.flatMap(({ failed }) => failed ?? []),
    ...(result.output === null ? [] : [result.output]),
  ];
  return [`## ${part.title}`, state, ...table, ...faults.map(fenced)].join('\n\n');
}

/** A part that died may have left what its table does not expect. */
function tableOf(part: Part, items: readonly Item[]): string {
  try {
    return part.table(items);
  } catch (error) {
    return `No table: ${(error as Error).message}`;
  }
}

const fenced = (text: string) => `\`\`\`\n${text.replaceAll('```', "'''")}\n\`\`\``;
