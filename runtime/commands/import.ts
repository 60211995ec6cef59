// malc import: a model that transformers or hermes-llm saved, as a run folder.
import type { Command } from './command.ts';

export const importModel: Command = {
  name: 'import',
  describe: 'Make a run folder of a model that transformers or hermes-llm saved',
  positionals: [
    { name: 'dir', describe: 'A folder with config.json and safetensors weights, or hf:OWNER/NAME', required: true },
  ],
  options: {
    output: { type: 'string', alias: 'o', required: true, describe: 'The run folder to write' },
  },
  examples: [
    ['malc import models/gpt2 -o runs/gpt2', 'then: malc generate -c runs/gpt2'],
    ['malc import hf:openai-community/gpt2 -o runs/gpt2', 'fetched from Hugging Face, and kept in the cache'],
  ],

  async run(args) {
    const { countParameters } = await import('../../compiler/check/count.ts');
    const { importFolder } = await import('../hub/import.ts');
    const { saveAsRun } = await import('../hub/save-run.ts');
    const { describeCount } = await import('../show/quantities.ts');

    const [dir, output] = [args.dir as string, args.output as string];
    const folder = dir.startsWith('hf:') ? await fetched(dir) : dir;
    const imported = importFolder(folder);
    const { model, architecture, tensors, warnings } = imported;
    try {
      for (const warning of warnings) console.error(`warning: ${warning}`);
      const noTokenizer = await saveAsRun(imported, folder, output);
      if (noTokenizer !== null)
        console.error(`warning: malc generate will need a tokenizer.json in ${output}: ${noTokenizer}`);
      const size = describeCount(countParameters(model).total);
      const note = noTokenizer === null ? '' : ', without a tokenizer';
      console.log(`${output}: ${architecture.model_type} with ${size} parameters${note}`);
    } finally {
      tensors.close();
    }
  },
};

/** The folder of a model of the hub. */
async function fetched(word: string): Promise<string> {
  const { fetchModel } = await import('../hub/fetch-model.ts');
  const { DataLine } = await import('../show/data-line.ts');

  const progress = new DataLine(process.stderr);
  return await fetchModel(word, progress.tell).finally(progress.clear);
}
