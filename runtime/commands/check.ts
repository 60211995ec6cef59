// `malc check`: says whether a .mal file is right, and how large its models are.
import type { Diagnostic, Sources } from '../../compiler/diagnostic.ts';
import type { Command } from './command.ts';

export const check: Command = {
  name: 'check',
  describe: 'Find every error of a .mal file, with its place and how to mend it',
  positionals: [{ name: 'file', describe: 'A .mal file, or the name of a well-known model', required: true }],
  options: {
    json: { type: 'boolean', describe: 'Print JSON', default: false },
  },
  examples: [['malc check tiny.mal', 'print the errors, or the number of parameters']],
  async run(args) {
    const { readModels } = await import('../../compiler/check/read-model.ts');
    const { countParameters } = await import('../../compiler/check/count.ts');
    const { SourceError } = await import('../../compiler/diagnostic.ts');
    const { positionOf } = await import('../../compiler/diagnostic.ts');
    const asData = ({ severity, message, help, span }: Diagnostic, sources: Sources) => {
      const text = span ? sources.get(span.file) : undefined;
      return { severity, message, help, file: span?.file ?? null, ...(text && span && positionOf(text, span.start)) };
    };

    try {
      const { models, warnings, path } = readModels(args.file as string);
      const sizes = models.map(model => ({
        name: model.name,
        layers: model.layers.length,
        parameters: countParameters(model).total,
        embedding: countParameters(model).embedding,
      }));
      if (args.json) {
        console.log(JSON.stringify({ file: path, ok: true, models: sizes, warnings }, null, 2));
        return;
      }
      for (const warning of warnings) console.error(`${warning}\n`);
      if (sizes.length === 0) console.log(`${path}: ok, without a model`);
      for (const { name, layers, parameters, embedding } of sizes) {
        const counts = `${parameters.toLocaleString('en')} parameters, ${embedding.toLocaleString('en')} of them the embedding`;
        console.log(`${path}: ok, model ${name}: ${layers} layers, ${counts}`);
      }
    } catch (error) {
      if (args.json && error instanceof SourceError) {
        const diagnostics = error.diagnostics.map(diagnostic => asData(diagnostic, error.sources));
        console.log(JSON.stringify({ file: args.file, ok: false, diagnostics }, null, 2));
      }
      throw error;
    }
  },
};
