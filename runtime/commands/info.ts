// `malc info`: what a model is made of and what it costs, before anything is built.
import type { CacheSize } from '../../compiler/check/cost.ts';
import type { ParameterCount } from '../../compiler/check/count.ts';
import type { Model } from '../../compiler/check/model.ts';
import { type Optimizer, optimizers } from '../../compiler/emission/optimizer.ts';
import type { TrainingState } from '../../compiler/emission/training-state.ts';
import type { Command } from './command.ts';
import { readRecompute, recomputeOption } from './recompute-option.ts';

export const info: Command = {
  name: 'info',
  describe: "Show a model's exact parameters, operations per token, cache and training memory",
  options: {
    model: { type: 'string', alias: 'm', describe: 'A .mal file, or the name of a well-known model', required: true },
    name: { type: 'string', describe: 'Which model, where the file has several' },
    optimizer: { type: 'string', default: 'adamw', choices: optimizers, describe: 'Whose moments are counted' },
    recompute: { ...recomputeOption, default: 'block' },
    json: { type: 'boolean', describe: 'Print JSON', default: false },
  },
  examples: [
    ['malc info --model gpt2-small', '124,439,808 parameters, and their parts'],
    ['malc info -m gpt2-small --optimizer lion --recompute 0.5', 'what training then keeps'],
  ],
  async run(args) {
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { countParameters } = await import('../../compiler/check/count.ts');
    const { cacheSize, flopsPerToken } = await import('../../compiler/check/cost.ts');
    const { compile } = await import('../../compiler/index.ts');
    const { bytesKept } = await import('../../compiler/plan/recompute.ts');
    const { describeCount, describeMemory } = await import('../show/quantities.ts');

    const { model, warnings } = readModel(args.model as string, args.name as string | undefined);
    const parameters = countParameters(model);
    const flops = flopsPerToken(model, model.max_seq_len);
    const cache = cacheSize(model);
    const [optimizer, recompute] = [args.optimizer as Optimizer, args.recompute as string];
    const { state, kept } = compile(model, { optimizer, recompute: readRecompute(recompute) }).plan;
    const keptOf = (recomputed: number) => bytesKept(kept, { batch: 1, time: model.max_seq_len }, recomputed);
    const training = { ...state, optimizer, total: state.weights + state.gradients + state.moments };
    const keeps = { none: keptOf(0), recomputed: keptOf(kept.recomputed), recompute };
    if (args.json) {
      console.log(JSON.stringify(asData(model, { parameters, flops, cache, training, keeps, warnings }), null, 2));
      return;
    }
    for (const warning of warnings) console.error(`${warning}\n`);
    const length = model.max_seq_len.toLocaleString('en');
    const whole = cache.constant + cache.perToken * model.max_seq_len;
    const rows: readonly Row[] = [
      ['parameters', parameters.total, describeCount(parameters.total)],
      ...partRows(model, parameters, describeCount),
      ['FLOPs per token', flops, `${describeCount(flops)}, forward and backward, at ${length} tokens`],
      ...present([
        ['cache per token', cache.perToken, `${describeMemory(cache.perToken)}: what a text keeps of each, in float32`],
        ['constant cache', cache.constant, `${describeMemory(cache.constant)}: windows and states, however long it is`],
      ]),
      ['cache at most', whole, `${describeMemory(whole)}, at ${length} tokens`],
      ['training state', training.total, `${describeMemory(training.total)} in float32, besides the activations`],
      ['  weights', training.weights, describeMemory(training.weights)],
      ['  gradients', training.gradients, describeMemory(training.gradients)],
      ['  moments', training.moments, `${describeMemory(training.moments)}, with --optimizer ${optimizer}`],
      [
        'kept for backward',
        keeps.none,
        `${describeMemory(keeps.none)}: what training's blocks keep of ${length} tokens`,
      ],
      ['  recomputed', keeps.recomputed, `${describeMemory(keeps.recomputed)}, with --recompute ${recompute}`],
    ];
    console.log(`${model.name}${model.description && `: ${model.description}`}`);
    console.log(
      `  ${describeLayers(model)}, ${model.hidden_size} wide, ` +
        `${model.vocab_size.toLocaleString('en')} tokens to choose from, ${length} seen at once`,
    );
    for (const [label, value, note] of rows)
      console.log(`  ${label.padEnd(17)}${value.toLocaleString('en').padStart(19)}  ${note}`.trimEnd());
  },
};

/** What is counted, the number, and what a person should know of it. */
type Row = readonly [label: string, value: number, note: string];

/** A model has no rows for the parts that it does not have. */
const present = (rows: readonly Row[]) => rows.filter(([, value]) => value > 0);

function partRows(model: Model, parameters: ParameterCount, describeCount: (count: number) => string): Row[] {
  const { active, total, head } = parameters;
  const tied = model.embeddings.tie_weights;
  const used = active < total ? active : 0;
  const shares = model.blocks.some(({ ffn }) => ffn?.moe && ffn.moe.shared_experts > 0);
  return [
    ...present([
      ['  active', used, `${describeCount(used)}: those that a generated token passes`],
      ['  embedding', parameters.embedding, tied ? 'the output head is tied to it' : ''],
      ['  positions', parameters.positions, ''],
      ['  roles', parameters.roles, ''],
      ['  attention', parameters.attention, ''],
      ['  state space', parameters.stateSpace, ''],
      ['  feed-forward', parameters.feedForward, shares ? 'shared experts among it' : ''],
      ['  experts', parameters.experts, describeExperts(model)],
      ['  router', parameters.router, ''],
      ['  norms', parameters.norms, ''],
      ['  mtp', parameters.mtp, 'modules for further tokens, in training only'],
      ['  output head', head, ''],
    ]),
  ];
}

/** `2 of 8 for each token`; nothing where layers differ. */
function describeExperts({ blocks }: Model): string {
  const kinds = blocks.flatMap(({ ffn }) => (ffn?.moe ? `${ffn.moe.top_k} of ${ffn.moe.experts} for each token` : []));
  return new Set(kinds).size === 1 ? kinds[0]! : '';
}

/** `27 layers (1 dense, 26 sparse)`. */
function describeLayers({ layers, blocks }: Model): string {
  const count = `${layers.length} ${layers.length === 1 ? 'layer' : 'layers'}`;
  if (blocks.length === 1) return count;
  const kinds = blocks.map(({ name }, kind) => `${layers.filter(layer => layer === kind).length} ${name}`);
  return `${count} (${kinds.join(', ')})`;
}

interface Numbers {
  readonly parameters: ParameterCount;
  readonly flops: number;
  readonly cache: CacheSize;
  readonly training: TrainingState & { readonly optimizer: Optimizer; readonly total: number };
  /** Bytes that blocks keep of a text of full length between passes, without recompute and with it. */
  readonly keeps: { readonly none: number; readonly recomputed: number; readonly recompute: string };
  readonly warnings: readonly string[];
}

function asData(model: Model, { parameters, flops, cache, training, keeps, warnings }: Numbers) {
  const { name, description, layers, hidden_size, vocab_size, max_seq_len } = model;
  const { perLayer, feedForward, stateSpace, ...parts } = parameters;
  const { total, ...trainingParts } = training;
  return {
    name,
    description,
    num_layers: layers.length,
    hidden_size,
    vocab_size,
    max_seq_len,
    parameters: { ...parts, state_space: stateSpace, feed_forward: feedForward, per_layer: perLayer },
    flops_per_token: flops,
    cache_bytes: { per_token: cache.perToken, constant: cache.constant },
    training_state_bytes: total,
    training_state: trainingParts,
    kept_bytes: keeps,
    warnings,
  };
}
