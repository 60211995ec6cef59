// Everything that a run is, found before anything is written or compiled: model, text, tokenizer, settings, cadence.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { requireMaskable } from '../../compiler/build/documents.ts';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { HUB } from '../data/hub-data.ts';
import { Mixture } from '../data/mixture.ts';
import { readSpecs } from '../data/specs.ts';
import { readModelConfig } from '../hub/config.ts';
import { readTokenizer, tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { TrainState } from './checkpoint.ts';
import { type Corpus, type CorpusOptions, readCorpus } from './corpus.ts';
import {
  type Derived,
  deriveSettings,
  type GivenSettings,
  MOST_TOKENS_PER_STEP,
  sequenceLength,
  VALIDATION_SHARE,
} from './derive.ts';
import { frozenParameters } from './frozen.ts';
import type { Cadence, TrainingSamples, ValidationSamples } from './loop.ts';
import { RunFolder } from './run-folder.ts';
import { formerly, requireSameRun, type Settings } from './settings.ts';
import { requireSameArchitecture, type StartingWeights } from './starting-weights.ts';
import { validationSamples } from './validation-samples.ts';

/** What the user asks for. What is absent is taken from the run in `output` on resume, or derived. */
export interface Request {
  /** A checked model and the text that it was read from. */
  readonly source?: { readonly model: Model; readonly text: string } | undefined;
  readonly data?: readonly string[] | undefined;
  /** The path of a tokenizer.json. */
  readonly tokenizer?: string | undefined;
  /** The field or column of `data` that is the text. */
  readonly textField?: string | undefined;
  /** Told of what `data` has that is no text; absent where that is refused. */
  readonly onSkipped?: ((place: string, why: string) => void) | undefined;
  /** Told how far the text is. */
  readonly onProgress?: CorpusOptions['onProgress'];
  readonly output: string;
  readonly resume: boolean;
  /** What it runs on. */
  readonly target: RunTarget;
  readonly settings: GivenSettings;
  /** Finds the batch size, where it is to be as large as memory allows. */
  readonly fitBatch?: ((run: Unbatched) => Promise<number>) | undefined;
  /** Another's weights that the run begins with. */
  readonly weights?: StartingWeights | undefined;
  readonly cadence: Partial<Cadence>;
}

/** What is known of a run before its batch size. */
export interface Unbatched extends Pick<Prepared, 'model' | 'frozen' | 'separator'> {
  readonly tokenizer: Tokenizer;
  /** With one sequence in a micro-batch. */
  readonly settings: Settings;
  /** Tokens in an update, where they are asked for. */
  readonly tokensPerStep: number | undefined;
  /** More sequences in a micro-batch would be more than the text has, or than a step may have. */
  readonly most: number;
}

export interface Prepared extends Derived {
  /** With the tokenizer's vocabulary. */
  readonly model: Model;
  /** As the MAL file says. */
  readonly statedVocabulary: number;
  /** The MAL file. */
  readonly text: string;
  readonly corpus: Corpus;
  /** The token that ends a document, where these are masked; else null. */
  readonly separator: number | null;
  readonly tokenizerHash: string;
  /** Null where the tokenizer was learned just now. */
  readonly tokenizerPath: string | null;
  /** Names of the parameters that stay as they are. */
  readonly frozen: readonly string[];
  /** Another's weights that the run begins with; null for random ones. */
  readonly weights: StartingWeights | null;
  /** Where the run goes on from; null at the beginning. */
  readonly from: TrainState | null;
  readonly cadence: Cadence;
  readonly training: TrainingSamples;
  /** How often the run goes through each source of the corpus. */
  readonly passes: readonly number[];
  readonly validation: ValidationSamples | null;
}

/** A checkpoint of a large model takes as long as several steps. */
const LEAST_STEPS_BETWEEN_CHECKPOINTS = 100;
/** Also save when so much work would be lost. */
const SAVE_MINUTES = 15;

/**
 * @throws UserError where something is missing, out of range, or differs from the run that is to be resumed; the message
 * names the option.
 */
export async function prepare(request: Request): Promise<Prepared> {
  const { output } = request;
  const from = RunFolder.peek(output, request.resume);
  const savedModel = from && readModelConfig(join(output, 'config.json'));
  const source = request.source ?? readSource(output);
  const files = request.data ?? from?.data;
  if (!files) {
    throw new UserError(
      `the run in ${output} stopped before its first checkpoint, so it begins anew; ` +
        'give --data and the other options that it had',
    );
  }
  if (!request.data && readSpecs(files).some(({ paths }) => paths.includes('-')) && process.stdin.isTTY)
    throw new UserError(`the run in ${output} reads standard input; pipe the same text into the command again`);
  if (!request.data) requirePresent(files, output);
  // Before the text is read, which may take minutes.
  sequenceLength(request.settings, from?.settings ?? null, source.model);
  const frozen = frozenParameters(source.model, { ...formerly, ...from?.settings, ...request.settings });
  const { weights = null } = request;
  if (weights && from)
    throw new UserError(
      `--checkpoint ${weights.path} is where a run begins, and the run in ${output} goes on from step ${from.step}; ` +
        'leave it out, or begin a new run with another --output',
    );
  if (weights) requireSameArchitecture(weights, source.model);
  const masksDocuments = request.settings['mask-documents'] ?? from?.settings['mask-documents'] ?? false;
  if (masksDocuments) requireMaskable(source.model);

  const ownTokenizer = join(output, 'tokenizer.json');
  const tokenizerPath = request.tokenizer ?? (existsSync(ownTokenizer) ? ownTokenizer : (weights?.tokenizer ?? null));
  if (weights && tokenizerPath === null)
    throw new UserError(`--tokenizer is needed: the one that the weights of ${weights.path} were trained with`);
  const tokenizer = tokenizerPath === null ? null : readTokenizer(tokenizerPath);
  if (masksDocuments && tokenizer) separatorOf(tokenizer);
  const corpus = await readCorpus(files, {
    validationShare: request.settings['validation-share'] ?? from?.settings['validation-share'] ?? VALIDATION_SHARE,
    tokenizer,
    vocabularySize: source.model.vocab_size,
    textField: request.textField ?? null,
    onSkipped: request.onSkipped ?? null,
    onProgress: request.onProgress,
  });
  const model = { ...source.model, vocab_size: vocabularySizeFor(corpus, weights) };
  const batches = (time: number, batch: number, seed: number) => new Mixture(corpus.sources, { batch, time, seed });
  const samplesPerEpoch = (time: number) => batches(time, 1, 0).samplesPerEpoch;
  const given = { ...request.settings };
  const separator = masksDocuments ? separatorOf(corpus.tokenizer) : null;
  if (request.fitBatch && !from) {
    const { settings } = deriveSettings({ ...given, 'batch-size': 1 }, null, model, samplesPerEpoch, request.target);
    const time = settings['seq-len'];
    const most = Math.min(samplesPerEpoch(time), Math.floor(MOST_TOKENS_PER_STEP / time));
    given['batch-size'] = await request.fitBatch({
      ...{ model, frozen, separator, settings, tokenizer: corpus.tokenizer },
      tokensPerStep: given['tokens-per-step'],
      most: Math.max(1, Math.floor(most / (given['grad-accum'] ?? 1))),
    });
  }
  const derived = deriveSettings(given, from?.settings ?? null, model, samplesPerEpoch, request.target);
  const { settings } = derived;
  const hash = tokenizerHash(corpus.tokenizer);
  if (from && !request.data && corpus.hash !== from.dataHash) throw changed(files, output);
  if (from && savedModel) {
    const saved = { ...from, model: savedModel };
    requireSameRun(output, saved, { settings, model, dataHash: corpus.hash, tokenizerHash: hash });
  }
  const samplesPerStep = settings['batch-size'] * settings['grad-accum'];
  const training = batches(settings['seq-len'], samplesPerStep, settings.seed);
  return {
    settings,
    automatic: request.fitBatch ? new Set([...derived.automatic, 'batch-size']) : derived.automatic,
    model,
    statedVocabulary: source.model.vocab_size,
    text: source.text,
    corpus,
    separator,
    tokenizerHash: hash,
    tokenizerPath,
    frozen,
    weights,
    from,
    cadence: cadenceFor(request.cadence, settings.steps),
    training,
    passes: training.passes(settings.steps * samplesPerStep),
    validation: settings['validation-share'] === 0 ? null : validationSamples(corpus.sources, settings),
  };
}

/**
 * The tokenizer's, or that of the weights, which may have rows for more tokens.
 *
 * @throws UserError where they have rows for fewer.
 */
function vocabularySizeFor({ tokenizer }: Corpus, weights: StartingWeights | null): number {
  const size = tokenizer.vocabularySize;
  if (weights === null || size <= weights.vocabularySize) return weights?.vocabularySize ?? size;
  throw new UserError(
    `the tokenizer has ${size} tokens, and the weights of ${weights.path} rows for ${weights.vocabularySize}; give the ` +
      'tokenizer that they were trained with as --tokenizer',
  );
}

/** The token that ends a document. @throws UserError where the tokenizer has none */
function separatorOf({ endOfText }: Tokenizer): number {
  if (endOfText !== null) return endOfText;
  throw new UserError(
    '--mask-documents: the tokenizer has no token that ends a text, as <|endoftext|> does, so that nothing says where ' +
      'documents end; leave the option out, or give another --tokenizer',
  );
}

/** @throws UserError where a file is gone that a resumed run learns from */
function requirePresent(data: readonly string[], output: string): void {
  const paths = readSpecs(data).flatMap(spec => spec.paths);
  const gone = paths.find(path => path !== '-' && !path.startsWith(HUB) && !existsSync(path));
  if (gone === undefined) return;
  throw new UserError(
    `${gone}, which the run in ${output} learns from, is gone; bring it back, or say with --data where it is now`,
  );
}

/** Of a resumed run that was told of no other text. */
function changed(data: readonly string[], output: string): UserError {
  const which = data.includes('-') ? 'the text of standard input' : data.join(', ');
  return new UserError(
    `${which} is no longer the text that the run in ${output} was trained on, and with another one it would not be the ` +
      'same run.\nBring the text back as it was, say with --data where it is now, or begin a new run from these weights: ' +
      `malc train --checkpoint ${output} --data FILE --output FOLDER`,
  );
}

/** The model that a run folder holds, for a resumed run that does not name it again. */
function readSource(output: string): { model: Model; text: string } {
  const [config, text] = [join(output, 'config.json'), join(output, 'model.mal')];
  const missing = [config, text].find(path => !existsSync(path));
  if (missing !== undefined) throw new UserError(`${missing} is missing; say with --model what the run trains`);
  return { model: readModelConfig(config), text: readFileSync(text, 'utf8') };
}

/** Ten evaluations and samples in a run, where nothing is said, and as many checkpoints where they lie far enough apart. */
function cadenceFor(given: Partial<Cadence>, steps: number): Cadence {
  const tenth = Math.max(1, Math.round(steps / 10));
  const save = Math.min(steps, Math.max(tenth, LEAST_STEPS_BETWEEN_CHECKPOINTS));
  return { evaluate: tenth, save, saveMinutes: SAVE_MINUTES, sample: tenth, ...given };
}
