// The tokenizer against the Hugging Face library's reference files, against itself on any text, and its file's errors.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { trainTokenizer as command } from '../runtime/commands/train-tokenizer.ts';
import { readTokenizer, tokenizerHash, writeTokenizer } from '../runtime/tokenizer/json.ts';
import { forEachWord, type SplitName, splitNames } from '../runtime/tokenizer/split.ts';
import { trainTokenizer } from '../runtime/tokenizer/train.ts';

fc.configureGlobal({ includeErrorInReport: true, seed: 20, numRuns: 200 });

const shared = new URL('../../shared/', import.meta.url).pathname;
const references = join(shared, 'reference-tokenizers');
const corpus = join(shared, 'data/tinyshakespeare.txt');

const folder = mkdtempSync(join(tmpdir(), 'malc-tokenizer-'));
const file = join(folder, 'tokenizer.json');

const text = 'the cat sat on the mat.\nThe cat, the hat!\nnaïve cafés and 日本語 and 😀😀\n'.repeat(3);
const small = (split: SplitName) => trainTokenizer([text], { vocabSize: 300, split });

const reference = suite('the reference tokenizers');

if (!existsSync(references) || !existsSync(corpus)) console.log(`SKIPPED: the reference cases, for want of ${shared}`);
else
  for (const name of readdirSync(references).filter(entry => !entry.endsWith('.py'))) {
    const path = join(references, name, 'tokenizer.json');
    const { split, vocab_size, encodings } = JSON.parse(
      readFileSync(join(references, name, 'encodings.json'), 'utf8'),
    ) as { split: SplitName; vocab_size: number; encodings: [string, number[]][] };

    reference(`${name}: training on the corpus writes the same file, byte for byte`, () => {
      const trained = trainTokenizer([readFileSync(corpus, 'utf8')], { vocabSize: vocab_size, split });
      writeTokenizer(file, trained);
      assert.ok(readFileSync(file, 'utf8') === readFileSync(path, 'utf8'), `${file} differs from ${path}`);
    });

    reference(`${name}: the file read encodes and decodes as recorded`, () => {
      const tokenizer = readTokenizer(path);
      for (const [given, ids] of encodings) {
        assert.equal([...tokenizer.encode(given)], ids, JSON.stringify(given));
        assert.is(tokenizer.decode(ids), given);
      }
      assert.is(tokenizer.vocabularySize, vocab_size);
      assert.is(tokenizer.endOfText, 0);
    });
  }

const splitting = suite('split patterns');

function words(given: string, split: SplitName): string[] {
  const bytes = Buffer.from(given);
  const found: string[] = [];
  forEachWord(bytes, 0, bytes.length, split, (start, end) => found.push(bytes.toString('utf8', start, end)));
  return found;
}

splitting('cut as the models do', () => {
  assert.equal(words("I'll  go\n\nNOW 12345", 'gpt2'), ['I', "'ll", ' ', ' go', '\n', '\n', 'NOW', ' 12345']);
  assert.equal(words("I'LL  go.\n\nNOW 12345", 'llama3'), ['I', "'LL", ' ', ' go', '.\n\n', 'NOW', ' ', '123', '45']);
});

splitting('white space is that of Unicode, not that of JavaScript', () => {
  // U+0085 is white space, and U+FEFF is none: a space before it belongs to it.
  assert.equal(words('a \u0085b', 'gpt2'), ['a', ' ', '\u0085', 'b']);
  assert.equal(words('a \ufeffb', 'gpt2'), ['a', ' \ufeff', 'b']);
});

splitting('the long s is an s where case is ignored', () => {
  assert.equal(words("it'\u017ft", 'llama3'), ['it', "'\u017f", 't']);
});

splitting('words joined are the text, for any text', () => {
  for (const split of splitNames)
    fc.assert(fc.property(fc.string({ unit: 'binary' }), given => words(given, split).join('') === given));
});

const training = suite('training');

training('numbers special tokens first, then the bytes, then merges', () => {
  const tokenizer = trainTokenizer(['aaab aaab'], { vocabSize: 260, specialTokens: ['<pad>', '<eos>'] });
  assert.is(tokenizer.tokenToId('<pad>'), 0);
  assert.is(tokenizer.tokenToId('!'), 2);
  assert.is(tokenizer.tokenToId('aa'), 258);
  assert.is(tokenizer.endOfText, 1);
  assert.equal([...tokenizer.encode('<eos>')], [1]);
});

training('stops where no pair is frequent enough', () => {
  assert.is(trainTokenizer(['abc'], { vocabSize: 400 }).vocabularySize, 257);
  assert.is(trainTokenizer(['abc'], { vocabSize: 400, minFrequency: 1 }).vocabularySize, 259);
});

training('does not count special tokens in the text, nor pairs over a line', () => {
  const tokenizer = trainTokenizer(['a<|endoftext|>b\n\n'.repeat(9)], { vocabSize: 400 });
  assert.is(tokenizer.vocabularySize, 257);
});

training('two pairs that make one token give it one id', () => {
  // abc is made as ab + c and, in words where bc was merged first, as a + bc.
  const tokenizer = trainTokenizer([`${'ab '.repeat(20)}${'xbc '.repeat(30)}${'abc '.repeat(9)}`], {
    vocabSize: 300,
  });
  const { vocab } = JSON.parse(tokenizer.json).model;
  assert.equal(
    Object.values(vocab).sort((a, b) => Number(a) - Number(b)),
    Array.from({ length: tokenizer.vocabularySize }, (_, id) => id),
  );
});

training('progress is told, and ends with the size reached', () => {
  const told: string[] = [];
  trainTokenizer([text], {
    vocabSize: 290,
    onProgress: ({ phase, done, total }) => told.push(`${phase} ${done} ${total}`),
  });
  assert.is(told[0], `count ${Buffer.byteLength(text)} null`);
  assert.is(told.at(-1), 'merge 290 290');
});

training('refuses what cannot be', () => {
  const refused = (options: Parameters<typeof trainTokenizer>[1], message: RegExp) =>
    assert.throws(
      () => trainTokenizer([text], options),
      (error: Error) => error instanceof UserError && message.test(error.message),
    );
  refused({ vocabSize: 256 }, /need 257/);
  refused({ vocabSize: 300.5 }, /whole number/);
  refused({ vocabSize: 300, minFrequency: 0 }, /minimum frequency is 0/);
  refused({ vocabSize: 300, specialTokens: ['<a>', '<a>'] }, /<a> is given twice/);
  refused({ vocabSize: 300, specialTokens: ['!'] }, /another name/);
  refused({ vocabSize: 300, specialTokens: [''] }, /empty/);
  refused({ vocabSize: 300, specialTokens: ['<a b>'] }, /"<a b>" has white space/);
});

const coding = suite('encoding and decoding');

coding('any text comes back, in full and token by token', () => {
  for (const split of splitNames) {
    const tokenizer = small(split);
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), given => {
        const ids = tokenizer.encode(given);
        assert.is(tokenizer.decode(ids), given);
        const stream = tokenizer.streamDecoder();
        const pieces = [...ids].map(id => stream.push(id));
        assert.is(pieces.join('') + stream.end(), given);
        for (const piece of pieces) assert.is(Buffer.from(piece).toString(), piece, 'a piece ends inside a character');
      }),
    );
  }
});

coding('merges are applied lowest rank first, then leftmost: as by the definition', () => {
  const tokenizer = trainTokenizer(['abababab aabb abba babab'.repeat(4)], { vocabSize: 280 });
  const merges: [string, string][] = JSON.parse(tokenizer.json).model.merges;
  const byDefinition = (word: string): string[] => {
    let symbols = [...word];
    for (const [left, right] of merges) {
      const next: string[] = [];
      for (const symbol of symbols)
        if (symbol === right && next.at(-1) === left) next.push(next.pop()! + symbol);
        else next.push(symbol);
      symbols = next;
    }
    return symbols;
  };
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 60 }), word => {
      assert.equal(
        [...tokenizer.encode(word)],
        byDefinition(word).map(token => tokenizer.tokenToId(token)),
      );
    }),
  );
});

coding('a long run of one letter is no trap', () => {
  const run = 'a'.repeat(200_000);
  const tokenizer = trainTokenizer([run.slice(0, 64)], { vocabSize: 262 });
  assert.is(tokenizer.decode(tokenizer.encode(run)), run);
});

coding('half a character is held back, and given as U+FFFD at the end', () => {
  const tokenizer = trainTokenizer([''], { vocabSize: 257 });
  const stream = tokenizer.streamDecoder();
  const [first, ...rest] = tokenizer.encode('é');
  assert.is(stream.push(first!), '');
  assert.is(stream.push(rest[0]!), 'é');
  assert.is(stream.push(first!), '');
  assert.is(stream.end(), '\ufffd');
});

coding('a lone surrogate becomes U+FFFD, and a byte order mark stays', () => {
  const tokenizer = small('gpt2');
  assert.is(tokenizer.decode(tokenizer.encode('a\ud800b')), 'a\ufffdb');
  assert.is(tokenizer.decode(tokenizer.encode('\ufeffa')), '\ufeffa');
});

coding('the longest special token that begins at a place is taken', () => {
  const tokenizer = trainTokenizer([''], { vocabSize: 300, specialTokens: ['<a>', '<a>+'] });
  assert.equal([...tokenizer.encode('<a><a>+')], [0, 1]);
});

coding('an id outside the vocabulary is refused', () => {
  assert.throws(() => small('gpt2').decode([9999]), /token 9999 is outside the vocabulary of 2\d\d/);
});

const files = suite('tokenizer.json');

files('written and read, it is the same tokenizer', () => {
  for (const split of splitNames) {
    const tokenizer = small(split);
    writeTokenizer(file, tokenizer);
    const read = readTokenizer(file);
    assert.is(read.json, tokenizer.json);
    assert.equal([...read.encode(text)], [...tokenizer.encode(text)]);
    assert.is(tokenizerHash(read), tokenizerHash(tokenizer));
  }
});

// biome-ignore lint/suspicious/noExplicitAny: the cases below put anything anywhere, as a corrupt file does
type Json = Record<string, any>;

/** Writes a sound file with a change made to it. */
function changed(change: (json: Json) => void): void {
  writeTokenizer(file, small('llama3'));
  const json = JSON.parse(readFileSync(file, 'utf8')) as Json;
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

function refusal(): string {
  try {
    readTokenizer(file);
  } catch (error) {
    assert.instance(error, UserError);
    assert.match((error as Error).message, file);
    return (error as Error).message;
  }
  throw new Error('the file was read');
}

files('older forms are read: merges as text, no model type, added tokens outside the vocabulary', () => {
  changed(json => {
    delete json.model.type;
    json.model.merges = json.model.merges.map((pair: string[]) => pair.join(' '));
    json.added_tokens.push({ id: 300, content: '<|user|>', special: false });
    json.post_processor = { type: 'ByteLevel', trim_offsets: true };
  });
  const tokenizer = readTokenizer(file);
  assert.is(tokenizer.vocabularySize, 301);
  assert.equal([...tokenizer.encode('<|user|>the')], [300, ...small('llama3').encode('the')]);
});

files('ignore_merges takes a word whole where it is a token', () => {
  changed(json => {
    json.model.merges = json.model.merges.slice(0, 0);
    json.model.ignore_merges = true;
  });
  const tokenizer = readTokenizer(file);
  assert.equal([...tokenizer.encode(' the')], [tokenizer.tokenToId('Ġthe')]);
  assert.is(tokenizer.encode('thx').length, 3);
});

files('what is not supported is refused by name', () => {
  const cases: [(json: Json) => void, RegExp][] = [
    [json => Object.assign(json, { normalizer: { type: 'Rot13' } }), /normalizer Rot13 is not supported/],
    [json => Object.assign(json, { truncation: { max_length: 5 } }), /truncation .* set it to null/],
    [json => Object.assign(json, { post_processor: { type: 'Frame' } }), /post_processor Frame/],
    [json => Object.assign(json, { decoder: { type: 'Rot13' } }), /decoder Rot13/],
    [json => Object.assign(json, { pre_tokenizer: { type: 'UnicodeScripts' } }), /pre_tokenizer UnicodeScripts/],
    [json => Object.assign(json, { chat: 1 }), /the file.chat/],
    [json => Object.assign(json.model, { type: 'Bigram' }), /model Bigram/],
    [json => Object.assign(json.model, { dropout: 0.1 }), /model.dropout 0.1/],
    [json => Object.assign(json.model, { heat: 0.1 }), /model.heat/],
    [json => Object.assign(json.added_tokens[0], { sticky: true }), /added_tokens\[0\].sticky/],
    [json => Object.assign(json.pre_tokenizer.pretokenizers[0].pattern, { Regex: '\\G\\w' }), /\\G in "\\\\G/],
    [json => Object.assign(json.pre_tokenizer.pretokenizers[0], { behavior: 'Swapped' }), /behavior Swapped/],
    [
      json =>
        Object.assign(json, {
          normalizer: { type: 'Strip', strip_left: true, strip_right: false },
          pre_tokenizer: { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'first', split: true },
        }),
      /pre_tokenizer.prepend_scheme first after a normalizer/,
    ],
  ];
  for (const [change, message] of cases) {
    changed(change);
    assert.match(refusal(), message);
    assert.match(refusal(), 'malc train-tokenizer');
  }
});

files('a corrupt file is refused with what is wrong in it', () => {
  const cases: [(json: Json) => void, RegExp][] = [
    [json => delete json.model, /model is missing/],
    [json => delete json.model.vocab, /model.vocab is missing/],
    [json => delete json.model.merges, /model.merges is missing/],
    [json => delete json.model.vocab.a, /merges\[\d+\] needs "a", which model.vocab lacks/],
    [json => Object.assign(json.model.vocab, { a: -1 }), /model.vocab\["a"\] is -1, not an id/],
    [json => Object.assign(json.model.vocab, { a: 5 }), /id 5 is both "%" and "a"/],
    [json => json.model.merges.push(['t', 'zzz']), /needs "zzz", which model.vocab lacks/],
    [json => json.model.merges.push('abc'), /is "abc", not a pair of tokens/],
    [json => Object.assign(json.added_tokens[0], { content: 7 }), /added_tokens\[0\].content is 7, not a text/],
  ];
  for (const [change, message] of cases) {
    changed(change);
    assert.match(refusal(), message);
  }
});

files('a truncated, an empty and a missing file', () => {
  writeTokenizer(file, small('gpt2'));
  writeFileSync(file, readFileSync(file).subarray(0, 2000));
  assert.match(refusal(), /not a whole JSON file/);
  writeFileSync(file, '');
  assert.match(refusal(), /not a whole JSON file/);
  rmSync(file);
  assert.match(refusal(), /there is no tokenizer .* malc train-tokenizer/);
});

const commandLine = suite('malc train-tokenizer');

commandLine('writes the file and says what it made', async () => {
  const input = join(folder, 'text.txt');
  writeFileSync(input, text);
  const lines: string[] = [];
  const { log } = console;
  console.log = line => lines.push(line);
  try {
    await command.run({ input: [input], output: file, 'vocab-size': 5000, 'min-frequency': 2, split: 'gpt2' });
  } finally {
    console.log = log;
  }
  const { vocabularySize } = readTokenizer(file);
  assert.match(lines[0]!, `${file}: ${vocabularySize} tokens from`);
  assert.match(lines[0]!, 'bytes per token');
  assert.match(lines[1]!, 'instead of 5,000');
});

commandLine('says before the work that the output cannot be written', async () => {
  const output = join(folder, 'none', 'tokenizer.json');
  const failed = await command.run({ input: ['no such file'], output }).then(
    () => null,
    error => error,
  );
  assert.instance(failed, UserError);
  assert.match(failed.message, /the folder .*none does not exist; create it/);
});

commandLine.after(() => rmSync(folder, { recursive: true }));

for (const each of [reference, splitting, training, coding, files, commandLine]) each.run();
