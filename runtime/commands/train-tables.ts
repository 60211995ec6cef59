// The tables that `malc train` prints: what a run is before it begins, and what a dry run found.
import { bytesKept, type Kept } from '../../compiler/plan/recompute.ts';
import type { MemoryParts, NativeModel } from '../native.ts';
import type { OpeningRow } from '../show/opening-table.ts';
import type { SettingName } from '../train/derive.ts';
import type { Prepared } from '../train/prepare.ts';
import type { Sampling } from '../train/samples.ts';
import type { ChosenTarget } from './target-option.ts';
import { cadenceOptions } from './train-options.ts';

/** What the run will take, from its first steps. */
export async function showForecast(
  prepared: Prepared,
  native: NativeModel,
  sampling: Sampling,
  kept: Kept,
  keep: number,
): Promise<void> {
  const { openingTable } = await import('../show/opening-table.ts');
  const { describeCount, describeDuration, describeMemory } = await import('../show/quantities.ts');
  const { forecast } = await import('../train/dry-run.ts');

  const { settings, from, frozen } = prepared;
  const found = await forecast(native, prepared, () => sampling.write(native));
  const { flopsPerToken, tokensPerStep, secondsPerStep, checkpoint, parts } = found;
  const tokens = settings.steps * tokensPerStep;
  const rate = tokensPerStep / secondsPerStep;
  const operations = `${describeCount(flopsPerToken)}, and ${describeCount(flopsPerToken * rate)} a second`;
  const left = describeDuration((settings.steps - (from?.step ?? 0)) * secondsPerStep);
  const rows = [
    row('FLOPs per token', `${operations}${frozen.length > 0 ? ', were nothing frozen' : ''}`),
    row('tokens', `${number(tokens)}, ${number(tokensPerStep)} a step`),
    row('speed', `${describeCount(rate)} tokens/s, by the medians of ${found.measuredSteps} steps`),
    row('time', `${left}, besides evaluations, samples and checkpoints`),
    ...Object.entries(parts)
      .filter(([, bytes]) => bytes > 0)
      .map(([name, bytes]) => row(name, `${describeMemory(bytes)}${partNotes[name as keyof typeof parts]}`)),
    row('kept', describeKept(kept, settings, describeMemory)),
    // What differs by a fiftieth is to be seen.
    row(
      'peak memory',
      `${number(Math.round(found.peak / 2 ** 20))}MiB${native.options.device ? '' : ', Node included'}`,
    ),
    row('disk', `${describeMemory((keep + 1) * checkpoint)}: ${keep + 1} checkpoints`),
  ];
  console.log(`${openingTable(rows)}\n\na dry run: nothing was written`);
}

/** What a part of the memory is, where its name does not say it. */
const partNotes: Readonly<Record<keyof MemoryParts, string>> = {
  weights: '',
  gradients: '',
  moments: '',
  averages: ', of weights',
  forms: ', of weights, as products read them',
  caches: ', of the samples',
  activations: ', with all that kernels need besides',
};
/** What forward passes keep of that, and what recompute saves, or would save at most. */
function describeKept(
  kept: Kept,
  { 'batch-size': batch, 'seq-len': time }: Prepared['settings'],
  describeMemory: (bytes: number) => string,
): string {
  const [now, none, least] = [kept.recomputed, 0, kept.blocks.length - 1].map(recomputed =>
    describeMemory(bytesKept(kept, { batch, time }, recomputed)),
  );
  const other = kept.recomputed === 0 ? `${least} with --recompute block` : `${none} with --recompute none`;
  return `${now} of them for backward passes${kept.blocks.length > 1 ? `; ${other}` : ''}`;
}

/** Every setting and where it came from. */
export async function showOpening(
  args: Readonly<Record<string, unknown>>,
  output: string,
  prepared: Prepared,
  native: NativeModel,
  { text: runsOn, automatic: isChosen }: ChosenTarget,
  program: string,
): Promise<void> {
  const { countParameters } = await import('../../compiler/check/count.ts');
  const { openingTable } = await import('../show/opening-table.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const { describeSetting } = await import('../train/settings.ts');

  const { model, statedVocabulary, settings, automatic, cadence, tokenizerPath } = prepared;
  const differs = model.vocab_size !== statedVocabulary;
  const vocabulary = `${number(model.vocab_size)} tokens${differs ? `; the model file says ${number(statedVocabulary)}` : ''}`;
  const frozen = native.parameters.filter(({ name }) => prepared.frozen.includes(name)).map(({ shape }) => shape);
  const floats = frozen.reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const rows = [
    row('model', `${model.name}, ${number(countParameters(model).total)} parameters`),
    ...(prepared.weights ? [row('weights', prepared.weights.path)] : []),
    ...(floats > 0 ? [row('frozen', `${number(floats)} parameters, of ${frozen.length} tensors`)] : []),
    row('tokenizer', tokenizerPath ?? 'learned from the text', args.tokenizer === undefined),
    row('vocabulary', vocabulary, differs),
    ...dataRows(prepared),
    row('output', output, args.output === undefined),
    row('target', runsOn, isChosen),
    ...Object.entries(settings).map(([name, value]) =>
      row(name, describeSetting(value), automatic.has(name as SettingName)),
    ),
    ...Object.entries(cadenceOptions).map(([name, key]) => row(name, String(cadence[key]), args[name] === undefined)),
    ...(args.recompute === undefined ? [] : [row('recompute', args.recompute as string)]),
    row('memory', describeMemory(native.bytes)),
    row('program', program),
  ];
  console.log(`${openingTable(rows)}\n`);
}

/** How much text there is, and of a mixture how often each source is gone through. */
function dataRows({ corpus: { training, validation, sources }, passes }: Prepared): OpeningRow[] {
  const held = `${number(validation.length)} for validation`;
  if (sources.length === 1) return [row('data', `${number(training.length)} tokens, and ${held}`)];
  return sources.map(({ name, share, training: tokens, validation: heldOut }, index) =>
    row(
      'data',
      `${(100 * share).toFixed(1)} % ${name}: ${number(tokens.length)} tokens, gone through ` +
        `${passes[index]!.toPrecision(2)} times, and ${number(heldOut.length)} for validation`,
    ),
  );
}

function row(name: string, value: string, automatic = false): OpeningRow {
  return { name, value, automatic };
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}
