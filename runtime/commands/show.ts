// malc show: runs on one page, in a browser, while they go on or afterwards.
import type { RunRecord } from '../show/page/run-record.ts';
import type { Source } from '../show/page/serve.ts';
import { type Command, UsageError } from './command.ts';

const usualPort = 6107;

export const show: Command = {
  name: 'show',
  describe: 'Show runs on one page: curves, samples, model and kernels',
  positionals: [
    { name: 'run', describe: 'Run folders of malc train, or one of malc sweep', required: true, array: true },
  ],
  options: {
    output: { type: 'string', alias: 'o', describe: 'Write the page to this file, and serve nothing' },
    port: { type: 'number', number: 'countOrNone', describe: 'Where it is served', whenAbsent: `${usualPort}` },
  },
  examples: [
    ['malc show runs/nano', 'serve the page, live while the run goes on'],
    ['malc show runs/a runs/b -o runs.html', 'both on one page, as a file to keep or to send'],
    ['malc show runs/attention', 'a sweep: what its variants came to, beside each other'],
  ],

  async run(args) {
    const { readProgress, readRun, withDistinctNames } = await import('../show/page/run-record.ts');
    const { holdsSweep, readPlan, readSweepRuns, resultsOf } = await import('../sweep/results.ts');

    const port = args.port as number | undefined;
    if (args.output !== undefined && port !== undefined)
      throw new UsageError('--output writes a file and --port serves the page; give one of them');
    if (port !== undefined && port > 65_535) throw new UsageError(`--port is ${port}; there are ports up to 65535`);
    const paths = args.run as readonly string[];
    const sweep = paths.find(holdsSweep);
    if (sweep !== undefined && paths.length > 1)
      throw new UsageError(`${sweep} is a sweep, which has a page of its own; give it alone, or runs in it`);
    const ofRuns = (records: readonly RunRecord[]): Source => ({ runs: () => records, sweep: () => null });
    const source: Source =
      sweep === undefined
        ? ofRuns(withDistinctNames(paths.map(readRun)))
        : {
            runs: () => readSweepRuns(sweep, readPlan(sweep)),
            sweep: () => resultsOf(sweep, readPlan(sweep)),
          };
    if (args.output !== undefined) {
      const { pageOf } = await import('../show/page/page.ts');
      const { writeFileAtomic } = await import('../atomic-file.ts');
      const runs = source.runs().map(record => ({ record, progress: readProgress(record.path, 0) }));
      writeFileAtomic(args.output as string, pageOf(runs, false, source.sweep()));
      console.log(`wrote ${args.output}`);
      return;
    }
    const { servePage } = await import('../show/page/serve.ts');
    const { url } = await servePage(source, port ?? usualPort);
    console.log(`${url}\nCtrl-C ends it.`);
  },
};
