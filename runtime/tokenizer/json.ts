// tokenizer.json of Hugging Face: read, part by part, into a tokenizer; written as their library writes it. What would
// change ids or texts and is not supported is refused by name.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { AddedTokens, readAddedToken } from './added-tokens.ts';
import { Bpe } from './bpe.ts';
import { ByteLevelWords } from './byte-level.ts';
import { readDecoder } from './decoders.ts';
import { IdList } from './id-list.ts';
import type { LearnedMerges } from './learn.ts';
import { type Model, readModel } from './model.ts';
import { keepsWords, losesBeginning, readNormalizer } from './normalizers.ts';
import { Part } from './part.ts';
import { readPostProcessor } from './post-processors.ts';
import { type PreTokenizer, readPreTokenizer } from './pre-tokenizers.ts';
import { type SplitName, splitNames, splits } from './split.ts';
import { Tokenizer } from './tokenizer.ts';

/** @throws UserError where the file is missing, corrupt or holds what is not supported: what is wrong and how to mend it. */
export function readTokenizer(path: string): Tokenizer {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new UserError(
        `there is no tokenizer ${path}; make one with: malc train-tokenizer --input TEXT --output ${path}`,
      );
    if ((error as NodeJS.ErrnoException).code === 'EISDIR')
      throw new UserError(`${path} is a folder; give the tokenizer.json in it`);
    throw new UserError(`cannot read the tokenizer ${path}: ${(error as Error).message}`);
  }
  return parseTokenizer(text, path);
}

/**
 * The tokenizer of a text that is a tokenizer.json.
 *
 * @param path what messages call it
 * @throws UserError as readTokenizer
 */
export function parseTokenizer(text: string, path: string): Tokenizer {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UserError(
      `${path} is not a whole JSON file, it may have been cut short (${(error as Error).message}); ` +
        'copy or download it again, or make it anew with malc train-tokenizer',
    );
  }
  const file = new Part(path, 'the file', json);
  file.ignore('version');
  for (const name of ['truncation', 'padding'])
    if (file.has(name))
      throw file.inside(name, {}).unsupported(' (a text is encoded whole, whatever its length: set it to null)');

  const tokens = file.has('added_tokens') ? file.parts('added_tokens').map(readAddedToken) : [];
  const { model, vocabulary } = readModel(file.part('model'), tokens);
  const normalize = readNormalizer(file.partIfAny('normalizer'));
  const added = new AddedTokens(tokens, normalize);
  const words = byteLevelWords(file, model);
  const preTokenize = readPreTokenizer(file.partIfAny('pre_tokenizer'), !losesBeginning(file.partIfAny('normalizer')));
  return file.read(
    new Tokenizer({
      json: text,
      vocabulary,
      added,
      encode: words === null ? wordByWord(preTokenize, model) : (part, _, ids) => words.encode(part, ids),
      marks: readPostProcessor(file.partIfAny('post_processor')),
      decoder: readDecoder(file.partIfAny('decoder')),
      cutsSafely:
        words !== null &&
        keepsWords(file.partIfAny('normalizer')) &&
        tokens.every(
          token => !token.leftBlanks && !token.rightBlanks && !token.singleWord && !/\s/.test(token.content),
        ),
    }),
  );
}

/** The fast path, where the pre-tokenizer is ByteLevel with a split pattern known here, or null. */
function byteLevelWords(file: Part, model: Model): ByteLevelWords | null {
  const whole = file.partIfAny('pre_tokenizer');
  const steps = whole?.type === 'Sequence' ? whole.parts('pretokenizers') : [whole];
  const last = steps.at(-1);
  if (!(model instanceof Bpe) || last?.type !== 'ByteLevel' || last.flag('add_prefix_space', true)) return null;
  if (model.options.prefix !== '' || model.options.suffix !== '') return null;
  const ownPattern = last.flag('use_regex', true);
  const [first] = steps;
  if (steps.length === 1) return ownPattern ? ByteLevelWords.of(model, 'gpt2') : null;
  if (steps.length !== 2 || ownPattern || first?.type !== 'Split') return null;
  const isolated = first.any('behavior') === 'Isolated' && first.any('invert') === false;
  const source = first.part('pattern').any('Regex');
  const split = splitNames.find(name => splits[name].source === source);
  return isolated && split !== undefined ? ByteLevelWords.of(model, split) : null;
}

/** Words that are kept with their ids, and the longest such word, in characters. */
const KEPT_WORDS = 1 << 16;
const KEPT_LENGTH = 64;

/** Encodes the words that a pre-tokenizer makes, each by itself. */
function wordByWord(preTokenize: PreTokenizer, model: Model): (text: string, first: boolean, ids: IdList) => void {
  const kept = new Map<string, Int32Array>();
  const idsOf = (word: string): Int32Array => {
    const known = kept.get(word);
    if (known !== undefined) return known;
    const found = new IdList(word.length);
    model.encode(word, found);
    const result = found.toArray();
    if (word.length > KEPT_LENGTH) return result;
    if (kept.size === KEPT_WORDS) kept.clear();
    kept.set(word, result);
    return result;
  };
  return (text, first, ids) => {
    for (const { text: word } of preTokenize([{ text, first }])) {
      if (word === '') continue;
      const found = idsOf(word);
      ids.append(found, 0, found.length);
    }
  };
}

/** Writes tokenizer.json, whole or not at all: the very text that the tokenizer comes from. */
export function writeTokenizer(path: string, tokenizer: Tokenizer): void {
  writeFileAtomic(path, tokenizer.json);
}

/** SHA-256 of tokenizer.json: two tokenizers of one hash give the same ids. */
export function tokenizerHash(tokenizer: Tokenizer): string {
  return createHash('sha256').update(tokenizer.json).digest('hex');
}

/** The tokenizer.json of byte-level BPE, as the Hugging Face library writes it. The special tokens have the first ids. */
export function byteLevelText(
  learned: LearnedMerges & { readonly specialTokens: readonly string[]; readonly split: SplitName },
): string {
  const { tokens, merges, specialTokens, split } = learned;
  const byteLevel = (use_regex: boolean) => ({
    type: 'ByteLevel',
    add_prefix_space: false,
    trim_offsets: true,
    use_regex,
  });
  const file = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer:
      split === 'gpt2'
        ? byteLevel(true)
        : {
            type: 'Sequence',
            pretokenizers: [
              { type: 'Split', pattern: { Regex: splits[split].source }, behavior: 'Isolated', invert: false },
              byteLevel(false),
            ],
          },
    post_processor: null,
    decoder: { ...byteLevel(true), add_prefix_space: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: {},
      merges: merges.map(([left, right]) => [tokens[left], tokens[right]]),
    },
  };
  // An object of JavaScript would put the tokens that look like numbers first; the file has them in the order of ids.
  const vocabulary = tokens.map((token, id) => `      ${JSON.stringify(token)}: ${id}`).join(',\n');
  return JSON.stringify(file, null, 2).replace('"vocab": {}', () => `"vocab": {\n${vocabulary}\n    }`);
}
