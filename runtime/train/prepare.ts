// Everything that a run is, found before anything is written or compiled: model, text, tokenizer, settings, cadence.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { requireMaskable } from '../../compiler/build/documents.ts';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { Batches, ValidationBatches } from '../data/batches.ts';
import { readModelConfig } from '../hub/config.ts';
import { readTokenizer, tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { TrainState } from './checkpoint.ts';
import { type Corpus, readCorpus } from './corpus.ts';
import { type Derived, deriveSettings, type GivenSettings, sequenceLength, VALIDATION_SHARE } from './derive.ts';
import type { Cadence, TrainingSamples, ValidationSamples } from './loop.ts';
import { RunFolder } from './run-folder.ts';
import { requireSameRun } from './settings.ts';

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
  readonly output: string;
  readonly resume: boolean;
  /** What it runs on. */
  readonly target: RunTarget;
  readonly settings: GivenSettings;
  readonly cadence: Partial<Cadence>;
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
  /** Where the run goes on from; null at the beginning. */
  readonly from: TrainState | null;
  readonly cadence: Cadence;
  readonly training: TrainingSamples;
  readonly validation: ValidationSamples | null;
}

/** Validation takes at most so many batches, the same each time: enough for a steady number, and soon done. */
const VALIDATION_BATCHES = 32;
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
  if (!request.data && files.includes('-') && process.stdin.isTTY)
    throw new UserError(`the run in ${output} reads standard input; pipe the same text into the command again`);
  // Before the text is read, which may take minutes.
  sequenceLength(request.settings, from?.settings ?? null, source.model);
  const masksDocuments = request.settings['mask-documents'] ?? from?.settings['mask-documents'] ?? false;
  if (masksDocuments) requireMaskable(source.model);

  const ownTokenizer = join(output, 'tokenizer.json');
  const tokenizerPath = request.tokenizer ?? (existsSync(ownTokenizer) ? ownTokenizer : null);
  const tokenizer = tokenizerPath === null ? null : readTokenizer(tokenizerPath);
  if (masksDocuments && tokenizer) separatorOf(tokenizer);
  const corpus = await readCorpus(files, {
    validationShare: request.settings['validation-share'] ?? from?.settings['validation-share'] ?? VALIDATION_SHARE,
    tokenizer,
    vocabularySize: source.model.vocab_size,
    textField: request.textField ?? null,
    onSkipped: request.onSkipped ?? null,
  });
  const model = { ...source.model, vocab_size: corpus.tokenizer.vocabularySize };
  const batches = (time: number, batch: number, seed: number) => new Batches(corpus.training, { batch, time, seed });
  const derived = deriveSettings(
    request.settings,
    from?.settings ?? null,
    model,
    time => batches(time, 1, 0).samplesPerEpoch,
    request.target,
  );
  const { settings } = derived;
  const hash = tokenizerHash(corpus.tokenizer);
  if (from && savedModel) {
    const saved = { ...from, model: savedModel };
    requireSameRun(output, saved, { settings, model, dataHash: corpus.hash, tokenizerHash: hash });
  }
  return {
    ...derived,
    model,
    statedVocabulary: source.model.vocab_size,
    text: source.text,
    corpus,
    separator: masksDocuments ? separatorOf(corpus.tokenizer) : null,
    tokenizerHash: hash,
    tokenizerPath,
    from,
    cadence: cadenceFor(request.cadence, settings.steps),
    training: batches(settings['seq-len'], settings['batch-size'] * settings['grad-accum'], settings.seed),
    validation: settings['validation-share'] === 0 ? null : validationOf(corpus, settings),
  };
}

/** The token that ends a document. @throws UserError where the tokenizer has none */
function separatorOf({ endOfText }: Tokenizer): number {
  if (endOfText !== null) return endOfText;
  throw new UserError(
    '--mask-documents: the tokenizer has no token that ends a text, as <|endoftext|> does, so that nothing says where ' +
      'documents end; leave the option out, or give another --tokenizer',
  );
}

/** The model that a run folder holds, for a resumed run that does not name it again. */
function readSource(output: string): { model: Model; text: string } {
  const [config, text] = [join(output, 'config.json'), join(output, 'model.mal')];
  const missing = [config, text].find(path => !existsSync(path));
  if (missing !== undefined) throw new UserError(`${missing} is missing; say with --model what the run trains`);
  return { model: readModelConfig(config), text: readFileSync(text, 'utf8') };
}

function validationOf(corpus: Corpus, settings: Derived['settings']): ValidationSamples {
  const batches = new ValidationBatches(corpus.validation, {
    batch: settings['batch-size'],
    time: settings['seq-len'],
  });
  return {
    count: Math.min(batches.count, VALIDATION_BATCHES),
    ...(corpus.validationBytes !== null && { bytesPerToken: corpus.validationBytes / corpus.validation.length }),
    fill: (index, tokens, labels) => batches.fill(index, tokens, labels),
  };
}

/** Ten evaluations and samples in a run, where nothing is said, and as many checkpoints where they lie far enough apart. */
function cadenceFor(given: Partial<Cadence>, steps: number): Cadence {
  const tenth = Math.max(1, Math.round(steps / 10));
  const save = Math.min(steps, Math.max(tenth, LEAST_STEPS_BETWEEN_CHECKPOINTS));
  return { evaluate: tenth, save, saveMinutes: SAVE_MINUTES, sample: tenth, ...given };
}
