// The normalizers of tokenizer.json: what is done to a text before anything else, save that added tokens that are not
// normalized are taken out of it first.
import { bytesSpelled } from './alphabet.ts';
import type { Part } from './part.ts';
import { readPattern } from './pattern.ts';
import { readPrecompiled } from './precompiled.ts';

export type Normalizer = (text: string) => string;

/** @throws UserError for a normalizer that is not supported. */
export function readNormalizer(part: Part | null): Normalizer {
  if (part === null) return text => text;
  const type = part.type ?? '';
  const read = readers[type];
  if (read === undefined) throw part.unsupported(` ${type}`);
  return part.read(read(part));
}

/** Whether a letter and a blank after it stay what they are, and what is before and after them is normalized apart. */
export function keepsWords(part: Part | null): boolean {
  if (part === null) return true;
  if (part.type === 'Sequence') return part.parts('normalizers').every(keepsWords);
  return ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase'].includes(part.type ?? '');
}

/** The kinds whose first character may not be the text's first: no pre-tokenizer can tell where such a text begins. */
export function losesBeginning(part: Part | null): boolean {
  if (part === null) return false;
  if (part.type === 'Sequence') return part.parts('normalizers').some(losesBeginning);
  return ['Strip', 'StripAccents', 'BertNormalizer', 'Nmt', 'Precompiled'].includes(part.type ?? '');
}

const readers: Readonly<Record<string, (part: Part) => Normalizer>> = {
  Sequence(part) {
    const steps = part.parts('normalizers').map(readNormalizer);
    return text => steps.reduce((result, step) => step(result), text);
  },
  NFC: () => text => text.normalize('NFC'),
  NFD: () => text => text.normalize('NFD'),
  NFKC: () => text => text.normalize('NFKC'),
  NFKD: () => text => text.normalize('NFKD'),
  Lowercase: () => lowercase,
  Strip(part) {
    const left = part.flag('strip_left', true);
    const right = part.flag('strip_right', true);
    return text => {
      const begun = left ? text.replace(/^\p{White_Space}+/u, '') : text;
      return right ? begun.slice(0, begun.length - trailingBlanks(begun)) : begun;
    };
  },
  StripAccents: () => text => text.replace(/\p{M}/gu, ''),
  Prepend(part) {
    const first = part.text('prepend');
    return text => (text === '' ? '' : first + text);
  },
  Replace(part) {
    const pattern = readPattern(part.part('pattern'));
    const content = part.text('content');
    return text => text.replace(pattern, () => content);
  },
  ByteLevel: () => bytesSpelled,
  Nmt: () => text => text.replace(NMT_REMOVED, '').replace(NMT_BLANKS, ' '),
  BertNormalizer(part) {
    const clean = part.flag('clean_text', true);
    const apart = part.flag('handle_chinese_chars', true);
    const lower = part.flag('lowercase', true);
    const strip = part.flag('strip_accents', lower);
    return text => {
      let result = text;
      if (clean) result = result.replace(/(?![\t\n\r])[\p{C}\uFFFD]/gu, '').replace(/\p{White_Space}/gu, ' ');
      if (apart) result = result.replace(IDEOGRAPH, ' $& ');
      if (strip) result = result.normalize('NFD').replace(/\p{Mn}/gu, '');
      return lower ? lowercase(result) : result;
    };
  },
  Precompiled: readPrecompiled,
};

/** Letter by letter: the one letter whose lower case depends on its neighbours, the Greek sigma, has but one here. */
function lowercase(text: string): string {
  return text.includes('\u03a3') ? Array.from(text, letter => letter.toLowerCase()).join('') : text.toLowerCase();
}

function trailingBlanks(text: string): number {
  let start = text.length;
  while (start > 0 && /\p{White_Space}/u.test(text[start - 1]!)) start--;
  return text.length - start;
}

/** What the normalizer of NMT models (of SentencePiece) takes out, and what it makes blanks. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it is about
const NMT_REMOVED = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/g;
const NMT_BLANKS = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;

/** The blocks of CJK ideographs that BERT sets apart, as its own code lists them. */
const IDEOGRAPH =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
