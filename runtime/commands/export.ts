// malc export: a run as a folder that other programs load.
import type { Command } from './command.ts';

export const exportModel: Command = {
  name: 'export',
  describe: 'Write a trained model in the form that transformers loads',
  positionals: [{ name: 'run', describe: 'A run folder, or one of its step-N folders', required: true }],
  options: {
    to: { type: 'string', default: 'hf', describe: 'The form: hf, a folder of Hugging Face transformers' },
    output: { type: 'string', alias: 'o', required: true, describe: 'The folder to write' },
    ema: { type: 'boolean', default: false, describe: 'The averages of the weights, of a run with --ema' },
  },
  examples: [['malc export runs/nano -o nano-hf', 'AutoModelForCausalLM.from_pretrained("nano-hf") loads it']],

  async run(args) {
    const { copyFileSync, existsSync } = await import('node:fs');
    const { join } = await import('node:path');
    const { UserError } = await import('../../compiler/diagnostic.ts');
    const { exportRun } = await import('../hub/export.ts');
    const { weightsFile } = await import('../train/checkpoint.ts');
    const { findCheckpoint } = await import('../train/run-folder.ts');

    if (args.to !== 'hf') throw new UserError(`--to ${args.to} is not there yet; use --to hf`);
    const source = findCheckpoint(args.run as string);
    const output = args.output as string;
    const architecture = await exportRun(source, output, weightsFile(source.folder, args.ema === true));
    const tokenizer = join(source.run, 'tokenizer.json');
    if (existsSync(tokenizer)) copyFileSync(tokenizer, join(output, 'tokenizer.json'));
    const tokenizerNote = existsSync(tokenizer) ? '' : ', without a tokenizer, which the run does not have';
    console.log(`${output}: ${architecture.class}${tokenizerNote}`);
  },
};
