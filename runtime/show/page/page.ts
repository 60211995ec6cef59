// One page of runs: a file that needs nothing else, with its style, its code, uPlot and the runs' data inside.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { readPackageFile } from '../../../compiler/package-files.ts';
import { renderTemplate } from '../../../compiler/template.ts';
import type { SweepResult } from '../../sweep/results.ts';
import type { Progress, RunRecord } from './run-record.ts';

export interface PageRun {
  readonly record: RunRecord;
  readonly progress: Progress;
}

/**
 * The page's HTML.
 * @param live whether the page asks its server for what comes later (serve.ts)
 * @param sweep the results of the sweep whose runs they are; null for any runs
 */
export function pageOf(runs: readonly PageRun[], live: boolean, sweep: SweepResult | null = null): string {
  return renderTemplate('page/page.html.hbs', {
    title: escapeText(sweep?.name ?? runs.map(({ record }) => record.name).join(', ')),
    style: `${library('uPlot.min.css')}\n${readPackageFile('templates/page/page.css')}`,
    code: ['numbers.js', 'charts.js', 'sweep.js', 'page.js'].map(script).join('\n'),
    library: library('uPlot.iife.min.js'),
    data: scriptJson({ live, runs, sweep }),
  });
}

/** A module of the page's, as a part of its one script: a file that is opened from a disk may import nothing. */
const script = (name: string): string =>
  readPackageFile(`templates/page/${name}`).replace(/^(import .*\n|export (?=\w))/gm, '');

const library = (name: string): string =>
  readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), 'utf8').trim();

const escapeText = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** JSON that no HTML parser takes for the end of its script: https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements */
const scriptJson = (value: unknown): string => JSON.stringify(value).replaceAll('<', '\\u003c');
