// A repository of the hub at one commit: which files it has, and these files in malc's cache. A file is there when it is
// whole; until then what has come of it lies in a .part beside its place, and the next request asks for the rest alone.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UserError } from '../../compiler/diagnostic.ts';
import { explainWriting, makeFolder, writeFileAtomic } from '../atomic-file.ts';
import { cacheFolder } from '../cache.ts';
import { endpoint, isOffline, type RepositoryName, request } from './client.ts';

/** A file as the hub describes it. */
export interface HubFile {
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of its bytes where it is a large one, else the SHA-1 by which git knows it. */
  readonly hash: string;
}

export interface Commit extends RepositoryName {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** How often a download that breaks off without a byte more than before is taken up, and the milliseconds between. */
const ATTEMPTS = 5;
const PAUSE = 500;

/** How the hub describes a repository: GET /api/datasets/NAME/revision/REVISION?blobs=true. */
interface Description {
  readonly sha?: string;
  readonly siblings?: readonly {
    readonly rfilename: string;
    readonly size?: number;
    readonly blobId?: string;
    readonly lfs?: { readonly sha256: string; readonly size: number };
  }[];
}

/**
 * The files of a revision (a branch, a tag or a commit). A commit that was asked for before is known; without a network
 * (HF_HUB_OFFLINE) so is what any other revision was when it was last asked for.
 *
 * @throws UserError where the hub has none, or cannot be asked.
 */
export async function readRevision(repository: RepositoryName, revision: string): Promise<Commit> {
  const { kind, name } = repository;
  const known = join(folderOf(repository), `${encodeURIComponent(revision)}.json`);
  if (existsSync(known) && (isOffline() || /^[0-9a-f]{40}$/.test(revision)))
    return JSON.parse(readFileSync(known, 'utf8')) as Commit;
  const url = `${endpoint()}/api/${kind}/${name}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const response = await request(url, repository, `${name} at ${revision}`);
  const { sha, siblings = [] } = (await response.json()) as Description;
  if (sha === undefined) throw new UserError(`${url} does not say which commit it is; check HF_ENDPOINT`);
  const files = siblings.map(({ rfilename: path, size = 0, blobId = '', lfs }) => {
    const isSafe = !path.startsWith('/') && !path.split('/').includes('..');
    if (!isSafe) throw new UserError(`${name} has a file ${path}, which would lie outside of malc's cache`);
    return { path, bytes: lfs?.size ?? size, hash: lfs?.sha256 ?? blobId };
  });
  const commit: Commit = { kind, name, commit: sha, files };
  makeFolder(folderOf(repository));
  for (const each of new Set([revision, sha]))
    writeFileAtomic(join(folderOf(repository), `${encodeURIComponent(each)}.json`), JSON.stringify(commit));
  return commit;
}

/**
 * The paths in the cache of files, which are fetched unless they are there.
 *
 * @param onProgress is told of the bytes that there are, of all these files
 * @throws UserError where the hub refuses, the network fails for good, or what comes is not what was described
 */
export async function fetchFiles(
  commit: Commit,
  files: readonly HubFile[],
  onProgress: (bytes: number) => void = () => {},
): Promise<string[]> {
  const paths: string[] = [];
  let before = 0;
  for (const file of files) {
    paths.push(await fetchFile(commit, file, bytes => onProgress(before + bytes)));
    before += file.bytes;
  }
  return paths;
}

async function fetchFile(commit: Commit, file: HubFile, onProgress: (bytes: number) => void): Promise<string> {
  const path = join(commitFolder(commit), file.path);
  if (statSync(path, { throwIfNoEntry: false })?.size === file.bytes) return path;
  makeFolder(dirname(path));
  const part = `${path}.part`;
  for (let attempt = 1; ; attempt++) {
    const before = sizeOf(part);
    if (before > file.bytes) rmSync(part);
    else if (before === file.bytes && existsSync(part)) break;
    const fault = await fetchRest(commit, file, part, onProgress).then(
      () => null,
      error => error as Error,
    );
    if (fault instanceof UserError) throw fault;
    if (sizeOf(part) > before) attempt = 0;
    else if (attempt === ATTEMPTS)
      throw new UserError(
        `${file.path} of ${commit.name} broke off at byte ${before} of ${file.bytes} again and again` +
          `${fault ? ` (${fault.message})` : ''}; run the command again, which goes on from there`,
      );
    if (sizeOf(part) < file.bytes) await sleep(PAUSE);
  }
  if ((await hashOf(part, file)) !== file.hash) {
    rmSync(part);
    throw new UserError(
      `${file.path} of ${commit.name} came with another content than the hub describes; run the command again`,
    );
  }
  renameSync(part, path);
  return path;
}

/** Appends what is missing, as far as it comes. A commit's files never change, so that a part is always of the same file. */
async function fetchRest(
  { commit, ...repository }: Commit,
  file: HubFile,
  part: string,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const start = sizeOf(part);
  const place = file.path.split('/').map(encodeURIComponent).join('/');
  const prefix = repository.kind === 'datasets' ? 'datasets/' : '';
  const url = `${endpoint()}/${prefix}${repository.name}/resolve/${commit}/${place}`;
  const range: Record<string, string> = start > 0 ? { range: `bytes=${start}-` } : {};
  // Before anything comes: what waits while a file is opened is lost where the connection breaks meanwhile.
  const output = await opened(part);
  try {
    const response = await request(url, repository, `${file.path} of ${repository.name}`, range);
    // A server that knows no ranges sends all of it.
    const isRest = response.status === 206 && response.headers.get('content-range')?.startsWith(`bytes ${start}-`);
    if (!isRest) await output.truncate(0);
    let size = isRest ? start : 0;
    for await (const bytes of response.body ?? []) {
      await output.write(bytes);
      size += bytes.length;
      onProgress(size);
    }
  } catch (error) {
    throw explainWriting(error, part);
  } finally {
    await output.close();
  }
}

/** @throws WriteError */
function opened(path: string): Promise<FileHandle> {
  return open(path, 'a').catch(error => {
    throw explainWriting(error, path);
  });
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

async function hashOf(path: string, { bytes, hash }: HubFile): Promise<string> {
  // git puts a heading before the content (git-hash-object).
  const sum = hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`);
  for await (const block of createReadStream(path, { highWaterMark: 2 ** 20 })) sum.update(block);
  return sum.digest('hex');
}

/** Where the files of a commit lie. Its last part is the repository's own name, which an imported model gets. */
export function commitFolder(commit: Commit): string {
  return join(folderOf(commit), commit.commit, basename(commit.name));
}

function folderOf({ kind, name }: RepositoryName): string {
  return join(cacheFolder(), 'hub', kind, name.replaceAll('/', '--'));
}
