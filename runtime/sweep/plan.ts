// What a sweep will do: each variant's model, options, size and work, found before the first run and kept in sweep.json.
import { join } from 'node:path';
import { flopsPerToken } from '../../compiler/check/cost.ts';
import { countParameters } from '../../compiler/check/count.ts';
import type { Model } from '../../compiler/check/model.ts';
import { MachineError, SourceError, UserError } from '../../compiler/diagnostic.ts';
import { didYouMean, error, listed, quoted } from '../../compiler/message.ts';
import { makeFolder, WriteError, writeFileAtomic } from '../atomic-file.ts';
import { writeTokenizer } from '../tokenizer/json.ts';
import type { Prepared } from '../train/prepare.ts';
import { modelDifference } from '../train/settings.ts';
import { ModelFile } from './model-text.ts';
import type { Equality, Sweep } from './read-sweep.ts';
import { nearestCount } from './solve.ts';
import { inTemporaryFolder } from './temporary-folder.ts';
import type { Trainer, TrainOptions } from './trainer.ts';
import type { Variant } from './variants.ts';

/** A variant with everything that follows from it. */
export interface PlannedVariant {
  readonly name: string;
  /** Options of `malc train`, but for those that say where the run lies and its seed. */
  readonly options: TrainOptions;
  /** Its constants, the one among them that was found. */
  readonly constants: Readonly<Record<string, string>>;
  /** Its model, in MAL, as it stands in its folder; and with the tokenizer's vocabulary. */
  readonly text: string;
  readonly model: Model;
  readonly parameters: number;
  /** Those that a token passes. */
  readonly active: number;
  readonly flopsPerToken: number;
  readonly steps: number;
  /** Of a whole run. */
  readonly tokens: number;
  /** Null where its program could not be made. */
  readonly memory: number | null;
  /** Seconds that a run takes, evaluations included. */
  readonly seconds: number | null;
  /** Why it cannot be trained; null where it can. */
  readonly failure: string | null;
}

export interface Plan {
  readonly name: string;
  readonly equal: Equality['kind'] | null;
  /** How many parameters each variant should have; null where that is not held equal. */
  readonly target: number | null;
  readonly seeds: readonly number[];
  /** What was asked for, and what stands for the same for good: data sets of the hub with their commit. */
  readonly named: readonly string[];
  readonly data: readonly string[];
  readonly dataHash: string;
  readonly tokenizer: string;
  readonly tokenizerHash: string;
  readonly variants: readonly PlannedVariant[];
}

export interface PlanOptions {
  readonly sweep: Sweep;
  /** Where the sweep is, or is going to be. */
  readonly folder: string;
  readonly named: readonly string[];
  /** A tokenizer.json; null for one that is learned from the text and put into the folder. */
  readonly tokenizer: string | null;
  readonly trainer: Trainer;
  /** What was found before, of which variants that are the same are not measured again. */
  readonly before: Plan | null;
  /** Told of what takes a while, and of warnings. */
  readonly tell: (text: string) => void;
}

/** Where a variant's model stands, in the folder of a sweep. */
export const modelPath = (folder: string, variant: string): string => join(folder, variant, 'model.mal');

/**
 * Finds everything out. Nothing is written into the sweep's folder.
 *
 * @returns the plan, and what puts the tokenizer there that was learned.
 * @throws UserError or SourceError where the file, the data or a model is at fault; what every variant's program lacks.
 */
export async function makePlan(options: PlanOptions): Promise<{ plan: Plan; writeTokenizer: () => void }> {
  return inTemporaryFolder(workplace => new Planner(options, workplace).plan());
}

/** A variant on its way to being planned. */
interface Draft {
  readonly variant: Variant;
  readonly file: ModelFile;
  readonly constants: Readonly<Record<string, string>>;
  readonly model: Model;
  readonly settings: Prepared['settings'];
  /** What evaluations take, in steps of training. */
  readonly evaluationSteps: number;
}

class Planner {
  readonly #options: PlanOptions;
  /** A temporary folder, which goes when the plan is made. */
  readonly #workplace: string;
  readonly #files = new Map<string, ModelFile>();
  readonly #told = new Set<string>();
  #tokenizer: string | null;
  #data: readonly string[];

  constructor(options: PlanOptions, workplace: string) {
    const { named, before } = options;
    this.#options = options;
    this.#workplace = workplace;
    // What a sweep began with: a data set of the hub may have another commit by now.
    this.#data = before && JSON.stringify(before.named) === JSON.stringify(named) ? before.data : named;
    this.#tokenizer = options.tokenizer;
  }

  async plan(): Promise<{ plan: Plan; writeTokenizer: () => void }> {
    const { sweep, folder, named, tokenizer } = this.#options;
    for (const variant of sweep.variants) this.#checkConstants(variant);
    const [first] = sweep.variants as [Variant];
    const original = await this.#prepare(first, first.constants);
    const reference = this.#draftOf(first, first.constants, original);
    const { corpus, tokenizerHash, statedVocabulary } = original;
    this.#data = corpus.paths;
    const isLearned = this.#tokenizer === null;
    if (isLearned) {
      this.#tokenizer = join(this.#workplace, 'tokenizer.json');
      writeTokenizer(this.#tokenizer, corpus.tokenizer);
    }
    const { equal } = sweep;
    const target = equal?.kind === 'parameters' ? (equal.to ?? countParameters(reference.model).total) : null;
    const drafts: Draft[] = [];
    for (const variant of sweep.variants) {
      if (variant === first && (equal?.kind !== 'parameters' || equal.to === null)) {
        drafts.push(reference);
        continue;
      }
      const constants =
        target === null ? variant.constants : this.#constantsFor(variant, target, reference.model.vocab_size);
      const prepared = await this.#prepare(variant, constants);
      drafts.push(this.#draftOf(variant, constants, prepared));
      const { statedVocabulary: stated } = prepared;
      if (isLearned && stated !== statedVocabulary)
        throw new UserError(
          `the variants ${first.name} and ${variant.name} have vocabularies of ${statedVocabulary} and ${stated} tokens, ` +
            'and losses of different tokenizers cannot be compared; give both models the same vocab_size',
        );
    }
    const variants: PlannedVariant[] = [];
    const failures: Error[] = [];
    for (const draft of drafts) variants.push(await this.#planned(draft, drafts[0]!, failures));
    // What stands in the way of every one is no result.
    if (failures.length === variants.length) throw failures[0]!;
    const place = join(folder, 'tokenizer.json');
    return {
      plan: {
        name: sweep.name,
        equal: equal?.kind ?? null,
        target,
        seeds: sweep.seeds,
        named,
        data: corpus.paths,
        dataHash: corpus.hash,
        tokenizer: isLearned ? place : tokenizer!,
        tokenizerHash,
        variants,
      },
      writeTokenizer: () => isLearned && writeTokenizer(place, corpus.tokenizer),
    };
  }

  #fileOf({ name, options, own }: Variant): ModelFile {
    const { sweep } = this.#options;
    if (options.model === undefined)
      throw new UserError(
        `${sweep.path} names no model${own.length > 0 ? ` for the variant ${name}` : ''}; ` +
          'add `model: "FILE.mal"`, or the name of a well-known model',
      );
    const key = JSON.stringify([options.model, options.name]);
    const known = this.#files.get(key);
    if (known) return known;
    const file = new ModelFile(options.model as string, options.name as string | undefined);
    this.#files.set(key, file);
    return file;
  }

  /** @throws SourceError where a variant, or `equal`, names a constant that its model does not have. */
  #checkConstants(variant: Variant): void {
    const { sweep } = this.#options;
    const file = this.#fileOf(variant);
    const { constants } = file;
    const { equal } = sweep;
    const named = variant.own.filter(({ isOption }) => !isOption).map(({ name, nameSpan }) => ({ name, nameSpan }));
    if (equal?.kind === 'parameters') {
      const { by, bySetting } = equal;
      const clash = variant.own.find(({ name }) => name === by);
      named.push({ name: by, nameSpan: bySetting.values[0]!.span });
      if (clash && variant !== sweep.variants[0])
        this.#refuse(clash.nameSpan, `${quoted(by)} is what is found for each variant`, 'leave it out here');
    }
    for (const { name, nameSpan } of named) {
      if (constants.includes(name)) continue;
      const origin = file.originOf(name);
      if (origin !== null)
        this.#refuse(nameSpan, `${quoted(name)} is a constant of ${origin}`, `define it in ${file.path} itself`);
      const help = `a constant of a model is a number by name: write \`let ${name} = ...\` in its file`;
      const near = didYouMean(name, constants, constants.length > 0 ? `it has ${listed(constants)}` : help);
      this.#refuse(nameSpan, `${file.path} has no constant ${quoted(name)}, and malc train no such option`, near);
    }
  }

  #refuse(span: Variant['own'][number]['nameSpan'], message: string, help: string | null): never {
    const { path, text } = this.#options.sweep;
    throw new SourceError([error(span, message, help)], new Map([[path, text]]));
  }

  /** A variant's constants, with the one that gives it as many parameters as are asked for. */
  #constantsFor(variant: Variant, target: number, vocabulary: number): Readonly<Record<string, string>> {
    const equal = this.#options.sweep.equal as Extract<Equality, { kind: 'parameters' }>;
    const file = this.#fileOf(variant);
    let fault: unknown = null;
    const countOf = (value: number): number | null => {
      try {
        const { model } = file.with({ ...variant.constants, [equal.by]: String(value) });
        return countParameters({ ...model, vocab_size: vocabulary }).total;
      } catch (error) {
        if (!(error instanceof SourceError)) throw error;
        fault ??= error;
        return null;
      }
    };
    const solution = nearestCount(countOf, target, equal.multiple);
    if (solution === null) throw fault;
    const other = countOf(solution.value + equal.multiple) ?? countOf(2 * solution.value);
    if (solution.count === other)
      this.#refuse(
        equal.bySetting.values[0]!.span,
        `${quoted(equal.by)} does not change how many parameters the variant ${quoted(variant.name)} has`,
        null,
      );
    return { ...variant.constants, [equal.by]: String(solution.value) };
  }

  /** All that a run of a variant would be, its text included. */
  async #prepare(variant: Variant, constants: Readonly<Record<string, string>>): Promise<Prepared> {
    const { trainer, tell } = this.#options;
    const file = this.#fileOf(variant);
    const { warnings } = file.with(constants);
    for (const warning of warnings.filter(text => !this.#told.has(text))) {
      this.#told.add(warning);
      tell(warning);
    }
    const prepared = await trainer.prepare(this.#trial(variant.name, variant.options, file, constants));
    if (prepared.validation === null)
      throw new UserError('a sweep compares validation losses, and `validation-share: 0` leaves none');
    return prepared;
  }

  /** What is kept of it: the text need not be there once for each variant. */
  #draftOf(variant: Variant, constants: Readonly<Record<string, string>>, prepared: Prepared): Draft {
    const { model, settings, cadence, validation } = prepared;
    const evaluations = Math.ceil(settings.steps / cadence.evaluate);
    // A forward pass is about a third of a micro-batch.
    const evaluationSteps = (evaluations * validation!.count) / (3 * settings['grad-accum']);
    return { variant, file: this.#fileOf(variant), constants, model, settings, evaluationSteps };
  }

  /** Options for a run that is not made: its model lies in the workplace. */
  #trial(
    name: string,
    options: TrainOptions,
    file: ModelFile,
    constants: Readonly<Record<string, string>>,
  ): TrainOptions {
    const place = modelPath(this.#workplace, name);
    const folder = join(this.#workplace, name);
    makeFolder(folder);
    writeFileAtomic(place, file.textFor(constants, folder));
    return {
      ...options,
      model: place,
      data: this.#data,
      ...(this.#tokenizer !== null && { tokenizer: this.#tokenizer }),
      output: join(folder, 'run'),
    };
  }

  async #planned(draft: Draft, first: Draft, failures: Error[]): Promise<PlannedVariant> {
    const { sweep, folder, trainer, before, tell } = this.#options;
    const { variant, file, constants, model, settings } = draft;
    const flops = flopsPerToken(model, settings['seq-len']);
    const steps = stepsFor(sweep.equal, draft, first);
    const { name } = variant;
    const { model: _model, epochs: _epochs, tokens: _tokens, ...given } = variant.options;
    const options = { ...given, steps };
    const parameters = countParameters(model);
    const found = {
      name,
      options,
      constants,
      text: file.textFor(constants, join(folder, name)),
      model,
      parameters: parameters.total,
      active: parameters.active,
      flopsPerToken: flops,
      steps,
      tokens: steps * tokensPerStep(draft),
    };
    const known = before?.variants.find(each => each.name === name);
    if (known?.failure === null && differences(known, found).length === 0) return { ...known, ...found };
    tell(`trying ${name} ...`);
    try {
      const { bytes, secondsPerStep } = await trainer.measure(this.#trial(name, options, file, constants));
      const seconds = secondsPerStep * (steps + draft.evaluationSteps);
      return { ...found, memory: bytes, seconds, failure: null };
    } catch (fault) {
      if (!(fault instanceof UserError || fault instanceof MachineError) || fault instanceof WriteError) throw fault;
      failures.push(fault);
      return { ...found, memory: null, seconds: null, failure: fault.message };
    }
  }
}

const tokensPerStep = ({ settings }: Draft): number =>
  settings['batch-size'] * settings['grad-accum'] * settings['seq-len'];

/** The steps of a variant: its own, or as many as make tokens or operations those of the first. */
function stepsFor(equal: Equality | null, draft: Draft, first: Draft): number {
  if (equal === null || equal.kind === 'parameters' || draft === first) return draft.settings.steps;
  const workOf = (each: Draft) =>
    tokensPerStep(each) * (equal.kind === 'tokens' ? 1 : flopsPerToken(each.model, each.settings['seq-len']));
  return Math.max(1, Math.round((first.settings.steps * workOf(first)) / workOf(draft)));
}

/** In what two plans of a variant differ, as a user knows it; nothing where the same runs come of both. */
export function differences(before: PlannedVariant, now: Pick<PlannedVariant, 'options' | 'model'>): string[] {
  const names = new Set([...Object.keys(before.options), ...Object.keys(now.options)]);
  const options = [...names].flatMap(name => {
    const [then, here] = [before.options[name], now.options[name]].map(value => JSON.stringify(value));
    return then === here ? [] : [`${name} is ${here ?? 'not said'}; the run has ${then ?? 'none'}`];
  });
  const model = modelDifference(before.model, now.model);
  return [...options, ...(model === null ? [] : [`its model: ${model}`])];
}
