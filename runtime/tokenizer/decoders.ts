// The decoders of tokenizer.json: from the spellings of tokens back to text, whole or token by token.
import { spelledBytes } from './alphabet.ts';
import { isByteToken } from './bpe.ts';
import type { Part } from './part.ts';
import { readPattern } from './pattern.ts';

export interface Decoder {
  decode(tokens: readonly string[]): string;
  /** For tokens that come one at a time. */
  stream(): TokenStream;
}

/** Turns tokens that come one at a time into text, whole characters only. */
export interface TokenStream {
  /** The text that this token completes: often one word, sometimes none. */
  push(token: string): string;
  /** What is left of an unfinished character, as U+FFFD; the stream then begins anew. */
  end(): string;
}

/** One step: tokens to fewer, more, or other ones. */
type Step = (tokens: readonly string[]) => readonly string[];

/** @throws UserError for a decoder that is not supported. */
export function readDecoder(part: Part | null): Decoder {
  if (part?.type === 'ByteLevel') {
    part.ignore('add_prefix_space', 'trim_offsets', 'use_regex');
    return part.read(byteLevel);
  }
  // Without a decoder, tokens are words.
  const step = part === null ? (tokens: readonly string[]) => [tokens.join(' ')] : readStep(part);
  return new StepDecoder(tokens => (tokens.length === 0 ? '' : step(tokens).join('')));
}

const utf8 = () => new TextDecoder('utf-8', { ignoreBOM: true });

/** Bytes that are not UTF-8 become U+FFFD; a byte order mark is a character like any other. */
const byteLevel: Decoder = {
  decode(tokens) {
    return utf8().decode(Buffer.concat(tokens.map(tokenBytes)));
  },
  stream() {
    const decoder = utf8();
    return { push: token => decoder.decode(tokenBytes(token), { stream: true }), end: () => decoder.decode() };
  },
};

/** An added token may hold what no byte is spelled with: it then stands for itself. */
function tokenBytes(token: string): Uint8Array {
  return spelledBytes(token) ?? Buffer.from(token);
}

class StepDecoder implements Decoder {
  readonly decode: (tokens: readonly string[]) => string;

  constructor(decode: (tokens: readonly string[]) => string) {
    this.decode = decode;
  }

  /**
   * What a token adds depends on the tokens before it, so these are decoded again with it, and what is new is given.
   * For that the last tokens are kept which completed a text, more than blanks: decoders strip these at a beginning.
   */
  stream(): TokenStream {
    let kept: string[] = [];
    let complete = 0;
    const rest = () => this.decode(kept).slice(this.decode(kept.slice(0, complete)).length);
    return {
      push: token => {
        kept.push(token);
        const text = rest();
        if (text === '' || text.endsWith('\ufffd')) return '';
        if (/\S/.test(this.decode(kept.slice(complete)))) kept = kept.slice(complete);
        complete = kept.length;
        return text;
      },
      end: () => {
        const text = rest();
        kept = [];
        complete = 0;
        return text;
      },
    };
  }
}

function readStep(part: Part): Step {
  const type = part.type ?? '';
  const read = readers[type];
  if (read === undefined) throw part.unsupported(` ${type}`);
  return part.read(read(part));
}

const readers: Readonly<Record<string, (part: Part) => Step>> = {
  Sequence(part) {
    const steps = part.parts('decoders').map(readStep);
    return tokens => steps.reduce((result, step) => step(result), tokens);
  },
  ByteLevel(part) {
    part.ignore('add_prefix_space', 'trim_offsets', 'use_regex');
    return tokens => [byteLevel.decode(tokens)];
  },
  ByteFallback: () => byteFallback,
  Fuse: () => tokens => [tokens.join('')],
  Metaspace(part) {
    const mark = part.text('replacement', '\u2581');
    const prefixed = part.flag('add_prefix_space', true);
    const first =
      part.choice('prepend_scheme', ['always', 'first', 'never'], prefixed ? 'always' : 'never') !== 'never';
    part.ignore('split', 'str_rep');
    return tokens => tokens.map((token, index) => token.replaceAll(mark, index === 0 && first ? '' : ' '));
  },
  Replace(part) {
    const pattern = readPattern(part.part('pattern'));
    const content = part.text('content');
    return tokens => tokens.map(token => token.replace(pattern, () => content));
  },
  Strip(part) {
    const content = part.text('content');
    const start = part.number('start', 0);
    const stop = part.number('stop', 0);
    return tokens => tokens.map(token => stripped(token, content, start, stop));
  },
  WordPiece(part) {
    const prefix = part.text('prefix', '##');
    const cleanup = part.flag('cleanup', true) ? closedUp : (text: string) => text;
    return tokens =>
      tokens.map((token, index) =>
        cleanup(index === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`),
      );
  },
  BPEDecoder(part) {
    const suffix = part.text('suffix', '</w>');
    return tokens => tokens.map((token, index) => token.replaceAll(suffix, index === tokens.length - 1 ? '' : ' '));
  },
  CTC(part) {
    const padding = part.text('pad_token', '<pad>');
    const delimiter = part.text('word_delimiter_token', '|');
    const cleanup = part.flag('cleanup', true)
      ? (text: string) => closedUp(text).replaceAll(delimiter, ' ')
      : (text: string) => text;
    return tokens =>
      tokens
        .filter((token, index) => token !== tokens[index - 1])
        .map(token => cleanup(token.replaceAll(padding, '')))
        .filter(token => token !== '');
  },
};

/** Runs of tokens that are bytes become text; a run that is not UTF-8 becomes U+FFFD for each byte. */
function byteFallback(tokens: readonly string[]): string[] {
  const result: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    try {
      if (bytes.length > 0)
        result.push(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes)));
    } catch {
      result.push(...bytes.map(() => '\ufffd'));
    }
    bytes = [];
  };
  for (const token of tokens) {
    if (isByteToken(token)) {
      bytes.push(Number.parseInt(token.slice(3, 5), 16));
      continue;
    }
    flush();
    result.push(token);
  }
  flush();
  return result;
}

/** A token without the first `start` and the last `stop` characters, as far as these are `content`. */
function stripped(token: string, content: string, start: number, stop: number): string {
  const characters = Array.from(token);
  let from = 0;
  while (from < Math.min(start, characters.length) && characters[from] === content) from++;
  let to = characters.length;
  while (to > Math.max(from, characters.length - stop) && characters[to - 1] === content) to--;
  return characters.slice(from, to).join('');
}

/** Takes out the blanks that word pieces leave before punctuation and contractions in English. */
function closedUp(text: string): string {
  return closings.reduce((result, [apart, together]) => result.replaceAll(apart, together), text);
}

const closings: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [' do not', " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
