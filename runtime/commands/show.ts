// malc show: runs on one page, in a browser, while they go on or afterwards.
import { type Command, UsageError } from './command.ts';

const usualPort = 6107;

export const show: Command = {
  name: 'show',
  describe: 'Show runs on one page: curves, samples, model and kernels',
  positionals: [{ name: 'run', describe: 'Run folders of malc train', required: true, array: true }],
  options: {
    output: { type: 'string', alias: 'o', describe: 'Write the page to this file, and serve nothing' },
    port: { type: 'number', number: 'countOrNone', describe: 'Where it is served', whenAbsent: `${usualPort}` },
  },
  examples: [
    ['malc show runs/nano', 'serve the page, live while the run goes on'],
    ['malc show runs/a runs/b -o runs.html', 'both on one page, as a file to keep or to send'],
  ],

  async run(args) {
    const { readProgress, readRun } = await import('../show/page/run-record.ts');

    const port = args.port as number | undefined;
    if (args.output !== undefined && port !== undefined)
      throw new UsageError('--output writes a file and --port serves the page; give one of them');
    if (port !== undefined && port > 65_535) throw new UsageError(`--port is ${port}; there are ports up to 65535`);
    const records = (args.run as readonly string[]).map(readRun);
    if (args.output !== undefined) {
      const { pageOf } = await import('../show/page/page.ts');
      const { writeFileAtomic } = await import('../atomic-file.ts');
      const runs = records.map(record => ({ record, progress: readProgress(record.path, 0) }));
      writeFileAtomic(args.output as string, pageOf(runs, false));
      console.log(`wrote ${args.output}`);
      return;
    }
    const { servePage } = await import('../show/page/serve.ts');
    const { url } = await servePage(records, port ?? usualPort);
    console.log(`${url}\nCtrl-C ends it.`);
  },
};
