// `malc quickstart`, and `npm start`: a story teller from nothing, in about a minute.
import type { Command } from './command.ts';
import { chooseTarget, targetOption } from './target-option.ts';

export const quickstart: Command = {
  name: 'quickstart',
  describe: 'Train a small story teller from nothing, in about a minute',
  options: {
    output: {
      type: 'string',
      alias: 'o',
      describe: 'The run folder to write; replaces an earlier quickstart',
      default: 'runs/quickstart',
    },
    target: targetOption,
  },
  examples: [['malc quickstart', 'see what malc does, then look into runs/quickstart']],
  async run(args) {
    const { runQuickstart } = await import('../quickstart.ts');
    await runQuickstart(args.output as string, await chooseTarget(args));
  },
};
