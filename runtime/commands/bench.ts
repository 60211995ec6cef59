// `malc bench`: how fast a model's program is on this machine: kernel by kernel, step by step, token by token.

import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { Recompute } from '../../compiler/plan/recompute.ts';
import { type ProductType, productTypes, type TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { type RunTarget, targets } from '../../compiler/targets/names.ts';
import { anyOrderOption, autotuneOption, checkAnyOrder, requireTunable } from '../autotune-option.ts';
import type { BenchName, BenchRecord, Change, Circumstances, Result } from '../bench/history.ts';
import type { Measurement } from '../bench/measurement.ts';
import type { Place } from '../bench/place.ts';
import type { StepConfiguration } from '../bench/step.ts';
import { type Command, UsageError } from './command.ts';
import { readRecompute, recomputeOption } from './recompute-option.ts';
import { chooseTarget } from './target-option.ts';

const benches: readonly BenchName[] = ['kernels', 'step', 'decode'];

/** What `malc bench step` measures where nothing is said: small enough for any machine, and not all alike. */
const usualConfigurations = ['tiny:8:256', 'gpt2-small:4:64', 'hybrid-tiny:4:256'];

/** Options that only some of the benches have. */
const ownOptions: Readonly<Record<string, readonly BenchName[]>> = {
  model: ['kernels', 'decode'],
  name: ['kernels', 'decode'],
  'batch-size': ['kernels', 'decode'],
  'seq-len': ['kernels'],
  steps: ['kernels', 'step'],
  autotune: ['kernels', 'step'],
  recompute: ['kernels', 'step'],
  'any-order': ['kernels', 'step'],
  config: ['step'],
  repeats: ['step', 'decode'],
  prompt: ['decode'],
  tokens: ['decode'],
};

const usual = { repeats: 5, sequence: 256, prompt: 128, tokens: 64, several: 8 } as const;

export const bench: Command = {
  name: 'bench',
  describe: "Measure a program's speed: its kernels against this machine's ceilings, steps, decoding",
  positionals: [{ name: 'what', describe: 'kernels, step or decode', required: true }],
  options: {
    model: {
      type: 'string',
      alias: 'm',
      describe: 'kernels, decode: a .mal file, or the name of a well-known model',
    },
    name: { type: 'string', describe: 'kernels, decode: which model, where the file has several' },
    'batch-size': {
      type: 'number',
      number: 'count',
      alias: 'b',
      describe: 'Sequences in a step, or texts at once besides one',
      whenAbsent: `kernels: 1, decode: ${usual.several}`,
    },
    'seq-len': {
      type: 'number',
      number: 'count',
      describe: 'kernels: tokens in a sequence',
      whenAbsent: `${usual.sequence}, or as many as the model sees`,
    },
    config: {
      type: 'string',
      array: true,
      describe: 'step: what is measured, MODEL:BATCH:TIME, several by turns',
      whenAbsent: usualConfigurations.join(' '),
    },
    prompt: {
      type: 'number',
      number: 'count',
      describe: 'decode: tokens of the prompt',
      whenAbsent: `${usual.prompt}, or half of what the model sees`,
    },
    tokens: {
      type: 'number',
      number: 'count',
      describe: 'decode: tokens after it',
      whenAbsent: `${usual.tokens}, or what room is left`,
    },
    dtype: {
      type: 'string',
      choices: productTypes,
      describe: 'The number type of matrix products',
      whenAbsent: 'as training, f32 for decode',
    },
    target: {
      type: 'string',
      default: 'auto',
      choices: ['auto', ...targets],
      describe: 'What runs it; auto is the GPU where one answers and nvcc is there',
    },
    autotune: { type: 'boolean', describe: `kernels, step: ${autotuneOption.describe}` },
    recompute: {
      ...recomputeOption,
      array: true,
      advanced: true,
      describe: `kernels, step: ${recomputeOption.describe}; step: several by turns`,
      whenAbsent: 'none',
    },
    'any-order': { type: 'boolean', advanced: true, describe: `kernels, step: ${anyOrderOption.describe}` },
    compare: {
      type: 'boolean',
      describe: 'Show what moved since this was measured last on this machine',
      default: false,
    },
    json: { type: 'boolean', describe: 'Print JSON', default: false },
    steps: {
      type: 'number',
      number: 'count',
      advanced: true,
      describe: 'kernels: steps that are measured; step: steps in each repeat',
      whenAbsent: 'as many as take some seconds',
    },
    repeats: {
      type: 'number',
      number: 'count',
      advanced: true,
      describe: 'step, decode: how often each is measured, by turns',
      whenAbsent: String(usual.repeats),
    },
    history: {
      type: 'string',
      advanced: true,
      describe: 'The file that keeps results',
      whenAbsent: 'malc/bench-history.jsonl in $XDG_DATA_HOME',
    },
    threads: {
      type: 'number',
      number: 'threads',
      advanced: true,
      describe: 'Threads of the native program',
      whenAbsent: 'one for each core',
    },
  },
  examples: [
    ['malc bench kernels -m gpt2-small -b 4 --seq-len 64', 'every kernel of a step and how near to the ceiling it is'],
    ['malc bench step --config tiny:8:256 gpt2-small:4:64', 'tokens a second of training'],
    ['malc bench decode -m nano --compare', 'tokens a second of generation, and what moved'],
  ],
  async run(args) {
    const what = benches.find(name => name === args.what);
    if (what === undefined) throw new UsageError(`bench measures ${benches.join(', ')}, not ${args.what}`);
    for (const [option, owners] of Object.entries(ownOptions))
      if (args[option] !== undefined && !owners.includes(what))
        throw new UsageError(`--${option} means nothing to bench ${what}; it is for ${owners.join(' and ')}`);
    if (ownOptions.model!.includes(what) && args.model === undefined)
      throw new UsageError(`bench ${what} needs --model, a .mal file or the name of a well-known model`);

    // What is measured is known to be sound before anything is.
    const { target, device } = await chooseTarget(args);
    const measure = await { kernels: prepareKernels, step: prepareSteps, decode: prepareDecode }[what](args, target);
    const { findBuilder } = await import('../build.ts');
    const { architectureOf } = await import('../cuda-device.ts');
    const { availableParallelism } = await import('node:os');
    const { appendHistory, circumstances, compareRecords, historyPath, lastAlike, readHistory } = await import(
      '../bench/history.ts'
    );
    const path = (args.history as string | undefined) ?? historyPath();
    const { records: history, damaged } = readHistory(path);
    if (damaged.length > 0)
      console.error(`warning: ${path}: what is in line ${damaged.join(', ')} is no result, and is left out\n`);
    const architectures = device ? architectureOf(device) : undefined;
    const place = { target, device, builder: await findBuilder(target, { anew: true, architectures }) };
    const threads = (args.threads as number | undefined) ?? (target === 'cpu' ? availableParallelism() : 1);
    const common = circumstances(place, threads);
    const { records, details, text } = await measure(place, common);
    appendHistory(path, records);
    const compared = args.compare
      ? records.map(record => {
          const before = lastAlike(history, record);
          return { record, before, changes: before ? compareRecords(before, record) : [] };
        })
      : [];
    if (args.json) {
      const changes = args.compare ? { compared: compared.map(asData) } : {};
      console.log(JSON.stringify({ ...common, bench: what, ...details, ...changes }, null, 2));
      return;
    }
    const { changeTable, describeCircumstances } = await import('../show/bench-tables.ts');
    console.log(`${describeCircumstances(common)}\n${text}`);
    for (const { record, before, changes } of compared) {
      const { model, ...sizes } = record.configuration;
      const title = [model, ...Object.entries(sizes).map(([name, value]) => `${name} ${value}`)].join(', ');
      console.log(`\n${title}\n${before ? changeTable(before, record, changes) : '  not measured here before'}`);
    }
    console.log(`\n  kept in   ${path}`);
  },
};

interface Compared {
  readonly record: BenchRecord;
  readonly before: BenchRecord | undefined;
  readonly changes: readonly Change[];
}

const asData = ({ record, before, changes }: Compared) => ({
  configuration: record.configuration,
  before: before ? { date: before.date, malc: before.malc, commit: before.commit } : null,
  changes,
});

/** What a bench found: for the history, for `--json`, and as a table. */
interface Outcome {
  readonly records: readonly BenchRecord[];
  readonly details: object;
  readonly text: string;
}

type Measure = (place: Place, common: Circumstances) => Promise<Outcome>;
type Arguments = Readonly<Record<string, unknown>>;

const inUnit = (unit: Result['unit'], { median, low, high }: Measurement, factor = 1): Result => ({
  median: median * factor,
  low: low * factor,
  high: high * factor,
  unit,
});

async function readNamed(nameOrPath: string, modelName?: string): Promise<Model> {
  const { readModel } = await import('../../compiler/check/read-model.ts');
  const { model, warnings } = readModel(nameOrPath, modelName);
  for (const warning of warnings) console.error(`${warning}\n`);
  return model;
}

function requireRoom(model: Model, positions: number, options: string): void {
  if (positions > model.max_seq_len)
    throw new UserError(
      `${model.name} sees ${model.max_seq_len} tokens, and ${options} needs ${positions}; give less, or raise max_seq_len`,
    );
}

/** What `--recompute` says; none where it says nothing. */
const readRecomputes = (args: Arguments): [Recompute, ...Recompute[]] => {
  const [first, ...others] = (args.recompute as string[] | undefined) ?? [];
  return [readRecompute(first), ...others.map(readRecompute)];
};

/** Only where there is something to say: what was measured before goes on being compared. */
const toldRecompute = (recompute: Recompute) => (recompute === 'none' ? {} : { recompute });

/** The type of a program that trains; one for inference alone is refused. */
async function trainingType(args: Arguments, what: BenchName, target: RunTarget): Promise<TrainingType> {
  const { trainingTypeOf } = await import('../machine.ts');
  const dtype = (args.dtype as ProductType | undefined) ?? trainingTypeOf(target);
  checkAnyOrder(args, target);
  if (args.autotune) requireTunable(dtype, target);
  if (dtype === 'int8') throw new UsageError(`bench ${what} trains, and int8 is for inference alone; it is for decode`);
  return dtype;
}

/** What is tuned, and how the configuration of a result tells of it: only where there is something to say. */
function tuningOf(args: Arguments) {
  const [tunes, anyOrder] = [args.autotune === true, args['any-order'] === true];
  return { tunes, anyOrder, told: { ...(tunes && { autotune: 'yes' }), ...(anyOrder && { any_order: 'yes' }) } };
}

async function prepareKernels(args: Arguments, target: RunTarget): Promise<Measure> {
  const model = await readNamed(args.model as string, args.name as string | undefined);
  const batch = (args['batch-size'] as number | undefined) ?? 1;
  const time = (args['seq-len'] as number | undefined) ?? Math.min(usual.sequence, model.max_seq_len);
  const dtype = await trainingType(args, 'kernels', target);
  const [recompute, ...others] = readRecomputes(args);
  if (others.length > 0) throw new UsageError('bench kernels measures one program; give --recompute one value');
  requireRoom(model, time, '--seq-len');
  return async (place, common) => {
    const { benchKernels } = await import('../bench/kernels.ts');
    const { describeCeilings, kernelTable, tuningTable } = await import('../show/bench-tables.ts');
    const steps = args.steps as number | undefined;
    const { tunes, anyOrder, told } = tuningOf(args);
    const request = { model, batch, time, dtype, recompute, threads: common.threads, steps, tunes, anyOrder };
    const result = await benchKernels(request, place);
    const configuration = { model: model.name, batch, time, dtype, ...told, ...toldRecompute(recompute) };
    const timed = [...result.rows.map(row => [row.name, row.range] as const), ['step', result.step] as const];
    const results = Object.fromEntries(timed.map(([name, range]) => [name, inUnit('ms', range, 1e3)]));
    const { ceilings, stepSeconds, outside, counted } = result;
    return {
      records: [{ bench: 'kernels', ...common, configuration, results, ceilings }],
      details: {
        configuration,
        ceilings,
        steps: { measured: result.steps, counted },
        kernels: result.rows.map(({ range, needed, ...row }) => ({
          ...row,
          schedule: result.schedules.get(row.name) ?? null,
          seconds_range: range,
          share: row.seconds / stepSeconds,
          of_ceiling: needed / row.seconds,
        })),
        ...(tunes && { tuned: result.findings }),
        outside_seconds: outside,
        step_seconds: stepSeconds,
      },
      text:
        `${describeCeilings(ceilings)}\n` +
        `  step      ${model.name} ${batch}x${time}: ${((batch * time) / stepSeconds).toFixed(0)} tokens/s, ` +
        `the quicker ${counted} of ${result.steps} steps\n\n${kernelTable(result)}` +
        (result.findings.length > 0 ? `\n\n${tuningTable(result.findings)}` : ''),
    };
  };
}

async function prepareSteps(args: Arguments, target: RunTarget): Promise<Measure> {
  const configurations: StepConfiguration[] = [];
  const models = new Map<string, Model>();
  const dtype = await trainingType(args, 'step', target);
  for (const text of (args.config as string[] | undefined) ?? usualConfigurations)
    for (const recompute of readRecomputes(args))
      configurations.push({ ...(await readConfiguration(text, models)), recompute });
  return async (place, common) => {
    const { measureCeilings } = await import('../bench/ceilings.ts');
    const { peakOfProducts } = await import('../bench/place.ts');
    const { benchSteps } = await import('../bench/step.ts');
    const { describeCeilings, stepTable } = await import('../show/bench-tables.ts');
    const ceilings = await measureCeilings(place, common.threads);
    const { tunes, anyOrder, told } = tuningOf(args);
    const results = await benchSteps(
      {
        configurations,
        dtype,
        threads: common.threads,
        repeats: (args.repeats as number | undefined) ?? usual.repeats,
        steps: args.steps as number | undefined,
        tunes,
        anyOrder,
      },
      place,
    );
    const named = results.map(({ configuration: { model, batch, time, recompute = 'none' }, ...rest }) => ({
      configuration: { model: model.name, batch, time, dtype, ...told, ...toldRecompute(recompute) },
      ...rest,
    }));
    return {
      records: named.map(({ configuration, tokensPerSecond }) => ({
        bench: 'step',
        ...common,
        configuration,
        results: { training: inUnit('tokens/s', tokensPerSecond) },
        ceilings,
      })),
      details: {
        ceilings,
        steps: named.map(({ configuration, tokensPerSecond, flopsPerToken, ...rest }) => ({
          configuration,
          tokens_per_second: tokensPerSecond,
          flops_per_token: flopsPerToken,
          memory_bytes: rest.memoryBytes,
          compile_seconds: rest.compileSeconds,
          build_seconds: rest.buildSeconds,
        })),
      },
      text: `${describeCeilings(ceilings)}\n\n${stepTable(results, peakOfProducts(ceilings, place, dtype))}`,
    };
  };
}

/**
 * Reads `MODEL:BATCH:TIME`.
 * @param models those that were read already, by name
 */
async function readConfiguration(text: string, models: Map<string, Model>): Promise<StepConfiguration> {
  const [, name = '', batch, time] = /^(.+):([1-9]\d*):([1-9]\d*)$/.exec(text) ?? [];
  if (name === '')
    throw new UsageError(`--config expects MODEL:BATCH:TIME, such as tiny:8:256, with both at least 1, not '${text}'`);
  const model = models.get(name) ?? (await readNamed(name));
  models.set(name, model);
  requireRoom(model, Number(time), `--config ${text}`);
  return { model, batch: Number(batch), time: Number(time) };
}

async function prepareDecode(args: Arguments): Promise<Measure> {
  const model = await readNamed(args.model as string, args.name as string | undefined);
  const prompt = (args.prompt as number | undefined) ?? Math.min(usual.prompt, Math.ceil(model.max_seq_len / 2));
  const tokens = (args.tokens as number | undefined) ?? Math.max(1, Math.min(usual.tokens, model.max_seq_len - prompt));
  requireRoom(model, prompt + tokens, '--prompt with --tokens');
  const dtype = (args.dtype as ProductType | undefined) ?? 'f32';
  const several = (args['batch-size'] as number | undefined) ?? usual.several;
  const batches = [...new Set([1, several])];
  return async (place, common) => {
    const { benchDecode } = await import('../bench/decode.ts');
    const { decodeTable } = await import('../show/bench-tables.ts');
    const repeats = (args.repeats as number | undefined) ?? usual.repeats;
    const request = { model, dtype, batches, prompt, tokens, threads: common.threads, repeats };
    const results = await benchDecode(request, place);
    return {
      records: results.map(result => ({
        bench: 'decode',
        ...common,
        configuration: {
          ...{ model: model.name, batch: result.batch, prompt, tokens },
          // Only where there is something to say: what was measured before goes on being compared.
          ...(dtype !== 'f32' && { dtype }),
          ...(result.lengths === 'different' && { lengths: result.lengths }),
        },
        results: {
          prompt: inUnit('tokens/s', result.prompt),
          generation: inUnit('tokens/s', result.generation),
        },
        ceilings: null,
      })),
      details: {
        configuration: { model: model.name, prompt, tokens, dtype },
        decode: results.map(({ batch, lengths, prompt: read, generation, memoryBytes }) => ({
          batch,
          lengths,
          prompt_tokens_per_second: read,
          tokens_per_second: generation,
          memory_bytes: memoryBytes,
        })),
      },
      text: `  decoding  ${model.name} in ${dtype}: a prompt of ${prompt} tokens, then ${tokens} one by one\n\n${decodeTable(results)}`,
    };
  };
}
