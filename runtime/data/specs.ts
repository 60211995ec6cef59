// What --data says: files, folders and data sets of the hub, each with a weight or none with any.
import { existsSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { fetchHubData, HUB } from './hub-data.ts';
import type { OnProgress } from './progress.ts';

/** Texts that are drawn from together. */
export interface SourceSpec {
  /** What tables and metrics call it. */
  readonly name: string;
  readonly paths: readonly string[];
  readonly weight: number;
  /** Whether the weight was said. */
  readonly isWeighted: boolean;
}

/**
 * Sources out of words such as `a.txt:0.7`: a path, and after a colon how much of a mixture comes from it. Weights are in
 * any unit. Where none is said, all paths are one source.
 *
 * @throws UserError where one has a weight and another none, a weight is not above 0, or a word means two things.
 */
export function readSpecs(words: readonly string[]): SourceSpec[] {
  const read = words.map(readSpec);
  const weighted = read.filter(({ weight }) => weight !== null);
  if (weighted.length === 0) return [{ name: 'all', paths: words, weight: 1, isWeighted: false }];
  const other = read.find(({ weight }) => weight === null);
  if (other)
    throw new UserError(`--data: ${other.path} has no weight and others have one; give all of them one, or none`);
  if (words.length === 1)
    throw new UserError(`--data ${words[0]}: a weight is a share of a mixture, and this is all there is; leave it out`);
  const names = read.map(({ path }) => (path === '-' ? 'standard input' : basename(path)));
  const isUnique = new Set(names).size === names.length;
  if (new Set(read.map(({ path }) => resolve(path))).size < read.length)
    throw new UserError('--data: a path is there twice; give it once, with the sum of its weights');
  return read.map(({ path, weight }, index) => ({
    name: isUnique ? names[index]! : path,
    paths: [path],
    weight: weight!,
    isWeighted: true,
  }));
}

/** The words that say the same from any folder. */
export function absolute({ paths, weight, isWeighted }: SourceSpec): string[] {
  const words = paths.map(path => (path === '-' || path.startsWith(HUB) ? path : resolve(path)));
  return isWeighted ? words.map(word => `${word}:${weight}`) : words;
}

function readSpec(word: string): { path: string; weight: number | null } {
  const [, path, number] = /^(.+):(-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i.exec(word) ?? [];
  if (path === undefined) return { path: word, weight: null };
  if (/^hf:[^:]+$/.test(path) && /^\d+$/.test(number!))
    throw new UserError(
      `--data ${word}: ${number} can be a weight or a config of the data set; write ${word}.0 for the weight, or say the ` +
        `split too: ${word}:train`,
    );
  if (existsSync(word)) {
    if (!existsSync(path)) return { path: word, weight: null };
    throw new UserError(
      `--data ${word}: there is a file of that name, and ${path} with the weight ${number} could be meant; ` +
        `rename one of them, or give ${word} a weight too: ${word}:1`,
    );
  }
  const weight = Number(number);
  if (!(weight > 0 && Number.isFinite(weight)))
    throw new UserError(`--data ${word}: the weight is ${number}; give a number above 0, or leave ${path} out`);
  return { path, weight };
}

/** Local paths for words, data sets of the hub fetched; and the words that stand for the same for good. */
export interface Fetched {
  readonly paths: readonly string[];
  readonly pinned: readonly string[];
}

/**
 * Fetches what lies on the hub.
 *
 * @throws UserError as fetchHubData; where a name of the hub is given without `hf:`
 */
export async function fetchAll(words: readonly string[], onProgress: OnProgress): Promise<Fetched> {
  const paths: string[] = [];
  const pinned: string[] = [];
  for (const word of words) {
    if (!word.startsWith(HUB)) {
      if (/^[\w-]+\/[\w-]+$/.test(word) && !existsSync(word))
        throw new UserError(
          `there is no file ${word} (in ${process.cwd()}); if it is a data set of Hugging Face, write ${HUB}${word}`,
        );
      paths.push(word);
      pinned.push(word);
      continue;
    }
    const found = await fetchHubData(word, onProgress);
    for (const path of found.paths) paths.push(path);
    pinned.push(found.pinned);
  }
  return { paths, pinned };
}
