// Data sets of the hub of Hugging Face: `hf:OWNER/NAME[@REVISION][:CONFIG][:SPLIT]` becomes files, as of one commit.
import { nearest, UserError } from '../../compiler/diagnostic.ts';
import { HubRefusal, pageOf } from '../hub/client.ts';
import { type Commit, fetchFiles, type HubFile, readRevision } from '../hub/repository.ts';
import { hasKnownFormat } from './documents/documents.ts';
import type { OnProgress } from './progress.ts';

export const HUB = 'hf:';

/** Where the hub keeps data sets that it has converted to Parquet: CONFIG/SPLIT/0000.parquet and so on. */
const CONVERTED = 'refs/convert/parquet';
/** What the hub puts before the name of a split of which it has converted the beginning alone. */
const PARTIAL = 'partial-';
/** The splits that people hold out, under their names, and the one that they learn from. */
const SPLITS = ['train', 'validation', 'valid', 'val', 'dev', 'test', 'eval'];

interface HubData {
  readonly name: string;
  readonly revision: string | null;
  readonly config: string | null;
  readonly split: string | null;
}

/** A file and what it belongs to. */
interface Member {
  readonly file: HubFile;
  readonly config: string;
  readonly split: string;
}

/** @throws UserError where a word is no name of a data set. */
export function readHubWord(word: string): HubData {
  const match = /^hf:([\w.-]+(?:\/[\w.-]+)?)(?:@([^:@]+))?(?::([^:]+))?(?::([^:]+))?$/.exec(word);
  if (!match)
    throw new UserError(
      `${word} names no data set; write hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or hf:OWNER/NAME:CONFIG:SPLIT`,
    );
  const [, name, revision, config, split] = match;
  return { name: name!, revision: revision ?? null, config: config ?? null, split: split ?? null };
}

/**
 * The files of a data set in malc's cache, which are fetched unless they are there, and the word that stands for the same
 * commit, config and split for good.
 *
 * @throws UserError where the hub refuses, or has no such config or split: it names those that there are
 */
export async function fetchHubData(word: string, onProgress: OnProgress): Promise<{ paths: string[]; pinned: string }> {
  const wanted = readHubWord(word);
  const commit = await readCommit(wanted);
  const { config, split, files } = choose(word, wanted, membersOf(commit));
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const paths = await fetchFiles(commit, files, done => onProgress({ phase: 'fetch', done, total }));
  return { paths, pinned: `${HUB}${wanted.name}@${commit.commit}:${config}:${split}` };
}

/** The converted data set, which has all splits by name, or where there is none the data set's own files. */
async function readCommit({ name, revision }: HubData): Promise<Commit> {
  const repository = { kind: 'datasets', name } as const;
  if (revision !== null) return await readRevision(repository, revision);
  const own = await readRevision(repository, 'main');
  const converted = await readRevision(repository, CONVERTED).catch(error => {
    if (error instanceof HubRefusal && error.isMissing) return null;
    throw error;
  });
  return converted && membersOf(converted).length > 0 ? converted : own;
}

/** The files with text in them. Of converted data sets the path says all; of others folders and words in names do. */
function membersOf({ files }: Commit): Member[] {
  const readable = files
    .filter(({ path }) => hasKnownFormat(path) && !path.endsWith('.md'))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
  return readable.map(file => {
    const [, config, split] = /^([^/]+)\/([^/]+)\/\d+\.parquet$/.exec(file.path) ?? [];
    if (config !== undefined && split !== undefined) return { file, config, split };
    const words = file.path.split(/[/_.-]/);
    const folder = file.path
      .split('/')
      .slice(0, -1)
      .find(name => name !== 'data' && !SPLITS.includes(name));
    return { file, config: folder ?? 'default', split: words.findLast(word => SPLITS.includes(word)) ?? 'train' };
  });
}

/** @throws UserError where what is wanted is not there, or does not say which of several it is. */
function choose(word: string, wanted: HubData, members: readonly Member[]) {
  if (members.length === 0)
    throw new UserError(
      `${word} has no file that malc reads (.parquet, .jsonl, .txt); see ` +
        `${pageOf({ kind: 'datasets', name: wanted.name })}/tree/main`,
    );
  const config = pick(
    word,
    'config',
    wanted.config,
    'default',
    members.map(member => member.config),
  );
  const ofConfig = members.filter(member => member.config === config);
  const split = pick(
    `${word}, config ${config},`,
    'split',
    wanted.split,
    'train',
    ofConfig.map(member => member.split),
  );
  return { config, split, files: ofConfig.filter(member => member.split === split).map(({ file }) => file) };
}

function pick(what: string, kind: string, wanted: string | null, usual: string, all: readonly string[]): string {
  const names = [...new Set(all)];
  const chosen = wanted ?? (names.length === 1 && !names[0]!.startsWith(PARTIAL) ? names[0]! : usual);
  if (names.includes(chosen)) return chosen;
  const list = `${names.slice(0, 20).join(', ')}${names.length > 20 ? ` and ${names.length - 20} more` : ''}`;
  if (names.includes(`${PARTIAL}${chosen}`))
    throw new UserError(
      `${what} is converted in its first part alone, the split ${PARTIAL}${chosen}; take that by its name, or the data ` +
        'set’s own files with @main after the name',
    );
  const near = wanted === null ? null : nearest(wanted, names);
  const hint = near === null ? '' : ` Did you mean ${near}?`;
  throw new UserError(
    wanted === null
      ? `${what} has several ${kind}s and none is called ${usual}; say one after a colon: ${list}`
      : `${what} has no ${kind} ${wanted}; it has ${list}.${hint}`,
  );
}
