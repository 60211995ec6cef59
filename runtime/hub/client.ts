// Requests to the hub of Hugging Face (huggingface.co, or the server that HF_ENDPOINT names), and its refusals in words.
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UserError } from '../../compiler/diagnostic.ts';

/** Where a repository is asked for and shown, by its kind. */
export type RepositoryKind = 'datasets' | 'models';

export interface RepositoryName {
  readonly kind: RepositoryKind;
  /** Such as `roneneldan/TinyStories`. */
  readonly name: string;
}

/** What the hub would not give. */
export class HubRefusal extends UserError {
  /** It has no such thing, or nobody can ask it. */
  readonly isMissing: boolean;

  constructor(message: string, isMissing: boolean) {
    super(message);
    this.isMissing = isMissing;
  }
}

/** How often a request is sent again that the server or the network failed, and the milliseconds before the first time. */
const ATTEMPTS = 5;
const PAUSE = 500;

export const endpoint = (): string => (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');

/** HF_HUB_OFFLINE, as the Hugging Face library reads it. */
export const isOffline = (): boolean => /^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? '');

/** The page of a repository. */
export const pageOf = ({ kind, name }: RepositoryName): string =>
  `${endpoint()}/${kind === 'datasets' ? 'datasets/' : ''}${name}`;

/** The token of HF_TOKEN, or of the file where `hf auth login` leaves it, and which of these; null where there is none. */
export function findToken(): { readonly secret: string; readonly from: string } | null {
  if (process.env.HF_TOKEN) return { secret: process.env.HF_TOKEN.trim(), from: 'HF_TOKEN' };
  const home = process.env.HF_HOME || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  const path = process.env.HF_TOKEN_PATH || join(home, 'token');
  const secret = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  return secret === '' ? null : { secret, from: path };
}

/**
 * Sends a request, again where the network or the server fails, and gives the response once it is one of success. A
 * redirect to another host is followed without the token.
 *
 * @param what the message calls that which is asked for
 * @throws HubRefusal where the hub refuses; UserError where it cannot be reached.
 */
export async function request(
  url: string,
  repository: RepositoryName,
  what: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  if (isOffline())
    throw new HubRefusal(
      `HF_HUB_OFFLINE is set, and ${what} is not in malc's cache; unset it to fetch that once`,
      true,
    );
  const secret = findToken()?.secret ?? null;
  const authorization = secret === null ? {} : { authorization: `Bearer ${secret}` };
  for (let attempt = 1; ; attempt++) {
    const isLast = attempt === ATTEMPTS;
    try {
      const response = await fetch(url, { headers: { 'user-agent': 'malc', ...authorization, ...headers } });
      if (response.ok) return response;
      await response.body?.cancel();
      if (response.status < 500 || isLast) throw refused(response, repository, what, secret !== null);
    } catch (error) {
      if (error instanceof UserError) throw error;
      const advice = process.env.HF_ENDPOINT ? 'check HF_ENDPOINT, or try again later' : 'try again later';
      if (isLast) throw new UserError(`${endpoint()} cannot be reached for ${what}: ${causeOf(error)}; ${advice}`);
    }
    await sleep(PAUSE * 2 ** (attempt - 1));
  }
}

/** What lies under an error of fetch, which itself says no more than that it failed. */
function causeOf(error: unknown): string {
  const { message, cause } = error as Error;
  return (cause as Error | undefined)?.message || message;
}

function refused(
  { status, headers }: Response,
  repository: RepositoryName,
  what: string,
  hasToken: boolean,
): HubRefusal {
  return new HubRefusal(reasonOf(status, headers, repository, what, hasToken), status === 404);
}

function reasonOf(
  status: number,
  headers: Headers,
  repository: RepositoryName,
  what: string,
  hasToken: boolean,
): string {
  const { kind, name } = repository;
  const page = pageOf(repository);
  // X-Error-Code says what the status alone does not.
  const code = headers.get('x-error-code');
  if (code === 'GatedRepo')
    return `${name} is given on request alone (${status}): ask on ${page}, and set HF_TOKEN to your token`;
  if (code === 'RevisionNotFound') return `the hub has no ${what}; its branches and tags are on ${page}/tree/main`;
  if (code === 'EntryNotFound') return `the hub has no ${what}; its files are on ${page}/tree/main`;
  if (status === 401 && hasToken && code !== 'RepoNotFound')
    return `the hub does not know the token that goes with the request for ${what} (401); check HF_TOKEN, or log in again: hf auth login`;
  if (status === 401 || status === 404) {
    const noun = kind === 'datasets' ? 'data set' : 'model';
    const secret = hasToken ? '' : ', and set HF_TOKEN for what is private';
    return `the hub has no ${noun} ${name} (${status}), or it is private: check the name${secret}`;
  }
  if (status === 403) return `your token may not have ${what} (403); ask for access on ${page}`;
  if (status === 429) {
    const wait = headers.get('retry-after');
    const when = wait === null ? 'later' : /^\d+$/.test(wait) ? `in ${wait} seconds` : `after ${wait}`;
    return `the hub has had too many requests (429); run the command again ${when}${hasToken ? '' : '. With a token (HF_TOKEN) it takes more'}`;
  }
  const says = headers.get('x-error-message');
  return `the hub answers ${status} for ${what}${says ? ` (${says})` : ''}; try again later`;
}
