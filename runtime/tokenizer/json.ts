// tokenizer.json of Hugging Face: read where it says byte-level BPE with a split pattern that is known here, written as
// their library writes it. What would change the ids and is not supported is refused by name.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { byteCharacters } from './alphabet.ts';
import { type SplitName, splitNames, splits } from './split.ts';
import { type AddedToken, Tokenizer } from './tokenizer.ts';

/** @throws UserError where the file is missing, corrupt or not byte-level BPE: what is wrong and how to mend it. */
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
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UserError(
      `${path} is not a whole JSON file, it may have been cut short (${(error as Error).message}); ` +
        'copy or download it again, or make it anew with malc train-tokenizer',
    );
  }
  return new Reader(path).tokenizer(json);
}

/** Writes tokenizer.json, whole or not at all; what the Hugging Face library reads back gives the same ids. */
export function writeTokenizer(path: string, tokenizer: Tokenizer): void {
  writeFileAtomic(path, tokenizerJson(tokenizer));
}

/** SHA-256 of the tokenizer as it would be written: two tokenizers of one hash give the same ids. */
export function tokenizerHash(tokenizer: Tokenizer): string {
  return createHash('sha256').update(tokenizerJson(tokenizer)).digest('hex');
}

function tokenizerJson(tokenizer: Tokenizer): string {
  const { tokens, merges, added, split, wholeWords } = tokenizer.vocabulary;
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
    added_tokens: added.map(({ id, content, special }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special,
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
      ignore_merges: wholeWords,
      vocab: {},
      merges: merges.map(([left, right]) => [tokens[left], tokens[right]]),
    },
  };
  // An object of JavaScript would put the tokens that look like numbers first; the file has them in the order of ids.
  const vocabulary = tokens.map((token, id) => `      ${JSON.stringify(token)}: ${id}`).join(',\n');
  return JSON.stringify(file, null, 2).replace('"vocab": {}', () => `"vocab": {\n${vocabulary}\n    }`);
}

type Fields = Readonly<Record<string, unknown>>;

/** Reads one parsed file; knows its path, for the messages. */
class Reader {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  tokenizer(json: unknown): Tokenizer {
    const file = this.#fields(json, 'the file');
    for (const name of ['truncation', 'padding', 'normalizer'])
      if ((file[name] ?? null) !== null) throw this.#unsupported(`${name} ${kind(file[name])}`);
    this.#onlyByteLevel(file.post_processor ?? { type: 'ByteLevel' }, 'post_processor');
    this.#onlyByteLevel(file.decoder, 'decoder');

    const model = this.#fields(file.model, 'model');
    if ((model.type ?? 'BPE') !== 'BPE') throw this.#unsupported(`model ${kind(model)}`);
    for (const name of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback'])
      if (model[name]) throw this.#unsupported(`model.${name} ${JSON.stringify(model[name])}`);

    const added = this.#added(file.added_tokens);
    const tokens = this.#tokens(model.vocab, added);
    const merges = this.#merges(model.merges, new Map(tokens.map((token, id) => [token, id])));
    const split = this.#split(file.pre_tokenizer);
    return new Tokenizer({ tokens, merges, added, split, wholeWords: model.ignore_merges === true });
  }

  /** A step that only moves offsets, or only undoes the byte alphabet. */
  #onlyByteLevel(step: unknown, where: string): void {
    if (kind(step) !== 'ByteLevel') throw this.#unsupported(`${where} ${kind(step)}`);
  }

  #split(value: unknown): SplitName {
    const whole = this.#fields(value, 'pre_tokenizer');
    const steps = whole.type === 'Sequence' ? this.#list(whole.pretokenizers, 'pre_tokenizer.pretokenizers') : [whole];
    const [first, last] = steps.length === 1 ? [null, steps[0]] : steps;
    if (steps.length > 2 || kind(last) !== 'ByteLevel' || (first !== null && kind(first) !== 'Split'))
      throw this.#unsupported(`pre_tokenizer ${steps.map(kind).join(', ')}`);

    const byteLevel = this.#fields(last, 'pre_tokenizer');
    if (byteLevel.add_prefix_space !== false) throw this.#unsupported('pre_tokenizer.add_prefix_space true');
    const ownPattern = byteLevel.use_regex !== false;
    if (first === null) {
      if (!ownPattern) throw this.#unsupported('pre_tokenizer ByteLevel without a split pattern (use_regex false)');
      return 'gpt2';
    }
    if (ownPattern)
      throw this.#unsupported('pre_tokenizer with two split patterns (Split, and ByteLevel with use_regex)');

    const { pattern, behavior, invert } = this.#fields(first, 'pre_tokenizer Split');
    if (behavior !== 'Isolated' || invert === true)
      throw this.#unsupported(`pre_tokenizer Split with behavior ${behavior}${invert === true ? ', inverted' : ''}`);
    const expression = this.#fields(pattern, 'pre_tokenizer Split pattern').Regex;
    const split = splitNames.find(name => splits[name].source === expression);
    if (split === undefined) throw this.#unsupported(`the split pattern ${JSON.stringify(expression ?? pattern)}`);
    return split;
  }

  #added(value: unknown): AddedToken[] {
    return this.#list(value ?? [], 'added_tokens').map((item, index) => {
      const where = `added_tokens[${index}]`;
      const token = this.#fields(item, where);
      const { id, content } = token;
      if (typeof content !== 'string' || content === '') throw this.#broken(`${where}.content is no text`);
      for (const name of ['single_word', 'lstrip', 'rstrip'])
        if (token[name] === true) throw this.#unsupported(`${name} of the added token ${content}`);
      return { id: this.#id(id, `${where}.id`), content, special: token.special === true };
    });
  }

  /** All tokens by id: those of the model, and the added ones, which may be in it or not. */
  #tokens(value: unknown, added: readonly AddedToken[]): string[] {
    const tokens: (string | undefined)[] = [];
    const put = (id: number, token: string) => {
      const there = tokens[id];
      if (there !== undefined && there !== token)
        throw this.#broken(`id ${id} is both ${JSON.stringify(there)} and ${JSON.stringify(token)}`);
      tokens[id] = token;
    };
    for (const [token, id] of Object.entries(this.#fields(value, 'model.vocab')))
      put(this.#id(id, `model.vocab[${JSON.stringify(token)}]`), token);
    for (const { id, content } of added) put(id, content);

    const gap = tokens.findIndex(token => typeof token !== 'string');
    if (gap !== -1) throw this.#broken(`no token has the id ${gap}, though there are larger ids`);
    const known = new Set(tokens);
    if (known.size !== tokens.length)
      throw this.#broken('a token has two ids: one in model.vocab, another in added_tokens');
    const missing = byteCharacters.findIndex(character => !known.has(character));
    if (missing !== -1)
      throw this.#unsupported(`a vocabulary without the byte ${missing} (${JSON.stringify(byteCharacters[missing])})`);
    return tokens as string[];
  }

  #merges(value: unknown, ids: ReadonlyMap<string, number>): [number, number][] {
    return this.#list(value, 'model.merges').map((merge, rank) => {
      const parts = typeof merge === 'string' ? merge.split(' ') : merge;
      if (!(Array.isArray(parts) && parts.length === 2 && parts.every(part => typeof part === 'string')))
        throw this.#broken(`model.merges[${rank}] is ${JSON.stringify(merge)}, not a pair of tokens`);
      for (const token of [...parts, parts.join('')])
        if (!ids.has(token))
          throw this.#broken(`model.merges[${rank}] needs ${JSON.stringify(token)}, which model.vocab lacks`);
      return parts.map(part => ids.get(part)!) as [number, number];
    });
  }

  #id(value: unknown, where: string): number {
    // The bound keeps a slip of the pen in the file from asking for gigabytes.
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 24) return value;
    throw this.#broken(`${where} is ${JSON.stringify(value)}, not an id`);
  }

  #fields(value: unknown, where: string): Fields {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
    throw this.#broken(value === undefined ? `${where} is missing` : `${where} is not an object`);
  }

  #list(value: unknown, where: string): readonly unknown[] {
    if (Array.isArray(value)) return value;
    throw this.#broken(value === undefined ? `${where} is missing` : `${where} is not a list`);
  }

  #broken(what: string): UserError {
    return new UserError(
      `${this.#path} is not a sound tokenizer.json: ${what}; ` +
        'copy or download it again, or make it anew with malc train-tokenizer',
    );
  }

  #unsupported(what: string): UserError {
    return new UserError(
      `${this.#path}: ${what} is not supported; byte-level BPE with the split pattern of ${splitNames.join(' or ')} ` +
        'is (malc train-tokenizer makes such a tokenizer from your text)',
    );
  }
}

/** The type that a part of the file says it is, for messages. */
function kind(part: unknown): string {
  const type = (part as { readonly type?: unknown } | null | undefined)?.type;
  return typeof type === 'string' ? type : (JSON.stringify(part) ?? 'missing');
}
