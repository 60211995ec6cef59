// `malc info`: what a model is made of and what it costs, from its dimensions alone.
import type { Model } from '../../compiler/check/model.ts';
import type { Command } from './command.ts';

export const info: Command = {
  name: 'info',
  describe: "Show a model's exact parameters, operations per token and training memory",
  options: {
    model: { type: 'string', alias: 'm', describe: 'A .mal file, or the name of a well-known model', required: true },
    name: { type: 'string', describe: 'Which model, where the file has several' },
    json: { type: 'boolean', describe: 'Print JSON', default: false },
  },
  examples: [['malc info --model gpt2-small', '124,439,808 parameters, and their parts']],
  async run(args) {
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { countParameters, flopsPerToken, trainingStateBytes } = await import('../../compiler/check/count.ts');
    const { describeCount, describeMemory } = await import('../show/quantities.ts');

    const { model, warnings } = readModel(args.model as string, args.name as string | undefined);
    const parameters = countParameters(model);
    const flops = flopsPerToken(model, model.max_seq_len);
    const bytes = trainingStateBytes(model);
    if (args.json) {
      const { name, description } = model;
      const { perLayer, feedForward, ...parts } = parameters;
      const counts = { ...parts, feed_forward: feedForward, per_layer: perLayer };
      const numbers = { parameters: counts, flops_per_token: flops, training_state_bytes: bytes, warnings };
      console.log(JSON.stringify({ name, description, ...shape(model), ...numbers }, null, 2));
      return;
    }
    for (const warning of warnings) console.error(`${warning}\n`);
    const { total, embedding, positions, attention, feedForward, norms, head } = parameters;
    const tied = model.embeddings.tie_weights ? 'tied to the embedding' : '';
    const rows: readonly (readonly [string, number, string])[] = [
      ['parameters', total, describeCount(total)],
      ['  embedding', embedding, ''],
      ['  positions', positions, ''],
      ['  attention', attention, ''],
      ['  feed-forward', feedForward, ''],
      ['  norms', norms, ''],
      ['  output head', head, tied],
      ['FLOPs per token', flops, `${describeCount(flops)}, forward and backward, at ${model.max_seq_len} tokens`],
      ['training state', bytes, `${describeMemory(bytes)}: float32 weights, gradients and two moments`],
    ];
    const { num_layers, hidden_size, vocab_size, max_seq_len } = shape(model);
    console.log(`${model.name}${model.description && `: ${model.description}`}`);
    console.log(
      `  ${num_layers} ${num_layers === 1 ? 'layer' : 'layers'}, ${hidden_size} wide, ` +
        `${vocab_size.toLocaleString('en')} tokens to choose from, ${max_seq_len.toLocaleString('en')} seen at once`,
    );
    for (const [label, value, note] of rows)
      console.log(`  ${label.padEnd(17)}${value.toLocaleString('en').padStart(19)}  ${note}`.trimEnd());
  },
};

function shape({ layers, hidden_size, vocab_size, max_seq_len }: Model) {
  return { num_layers: layers.length, hidden_size, vocab_size, max_seq_len };
}
