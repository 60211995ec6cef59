// Serves the page of some runs on this machine alone, and what their folders gain while it is open.
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { UserError } from '../../../compiler/diagnostic.ts';
import type { SweepResult } from '../../sweep/results.ts';
import { pageOf } from './page.ts';
import { type RunRecord, readProgress } from './run-record.ts';

/** What is shown, and what more there may be when the page is asked for again. */
export interface Source {
  /** The runs that there are; those that come later stand behind those that were there. */
  runs(): readonly RunRecord[];
  /** Of the sweep whose runs they are; null for any runs. */
  sweep(): SweepResult | null;
}

/**
 * Listens until the server is closed. `GET /` is the page; `GET /progress?run=N&from=BYTES&samples=BYTES` what run N gained
 * since; `GET /sweep` the results of the sweep.
 *
 * @param port 0 for any that is free
 * @throws UserError where the port is taken.
 */
export function servePage(source: Source, port: number): Promise<{ url: string; server: Server }> {
  let records = source.runs();
  const server = createServer((request, response) => {
    try {
      if (!isOwnName(request.headers.host)) {
        answer(
          response,
          403,
          'text/plain; charset=utf-8',
          'The page is for this machine alone: 127.0.0.1 or localhost.\n',
        );
        return;
      }
      // Not by resolving it against a base: `//` is a path here, and no URL.
      const { pathname, searchParams } = new URL(`http://localhost${request.url ?? '/'}`);
      if (pathname === '/') {
        records = source.runs();
        const runs = records.map(record => ({ record, progress: readProgress(record.path, 0) }));
        answer(response, 200, 'text/html; charset=utf-8', pageOf(runs, true, source.sweep()));
        return;
      }
      if (pathname === '/sweep') {
        answer(response, 200, 'application/json', JSON.stringify(source.sweep()));
        return;
      }
      const record = records[Number(searchParams.get('run') ?? Number.NaN)];
      const [from, samples] = ['from', 'samples'].map(name => Number(searchParams.get(name))) as [number, number];
      const arePlaces = [from, samples].every(place => Number.isSafeInteger(place) && place >= 0);
      if (pathname !== '/progress' || !record || !arePlaces)
        answer(
          response,
          404,
          'text/plain; charset=utf-8',
          'There is /, /sweep and /progress?run=N&from=BYTES&samples=BYTES.\n',
        );
      else answer(response, 200, 'application/json', JSON.stringify(readProgress(record.path, from, samples)));
    } catch (error) {
      // Such as a folder that was removed while the page is open.
      answer(response, 500, 'text/plain; charset=utf-8', `${(error as Error).message}\n`);
    }
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE';
      reject(taken ? new UserError(`port ${port} is taken; choose another --port, or 0 for any that is free`) : error);
    });
    server.listen(port, '127.0.0.1', () => {
      resolve({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, server });
    });
  });
}

/** Whether this machine was asked for by a name of its own: a page of somebody else's whose name leads here is not. */
const isOwnName = (host: string | undefined): boolean => /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(host ?? '');

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}
