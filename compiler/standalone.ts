// The stand-alone trainer: a command line in C, beside a generated program, that trains it without Node.
import type { Model } from './check/model.ts';
import type { Target } from './targets/names.ts';
import { renderTemplate } from './template.ts';

/** How the trainer's file is called: nvcc takes it for a part of its program by its name's end. */
export const standaloneFile = (target: Target): string => (target === 'cuda' ? 'train.cu' : 'train.c');

/** Positions in a sequence where nothing is said. */
const SEQUENCE_LENGTH = 256;

export interface Standalone {
  readonly target: Target;
  /** The words of the command that builds it. */
  readonly command: readonly string[];
  /** What updates go by: the peak of the learning rate, which an option may change, and the rest. */
  readonly update: Readonly<Record<'lr' | 'weight-decay' | 'beta1' | 'beta2' | 'momentum', number>>;
}

/** The source of the trainer: C11, and C++ as well, over malc.h. */
export function standaloneSource(model: Model, { target, command, update }: Standalone): string {
  return renderTemplate('program/standalone.c.hbs', {
    file: standaloneFile(target),
    name: model.name,
    command: shellLines(command),
    layer_count: model.layers.length,
    max_positions: model.max_seq_len,
    // As malc's own token files: two bytes as long as they do.
    token_type: model.vocab_size <= 2 ** 16 ? 'uint16' : 'uint32',
    time: Math.min(SEQUENCE_LENGTH, model.max_seq_len),
    learning_rate: update.lr,
    update: [update['weight-decay'], 1, update.beta1, update.beta2, 1e-8, update.momentum].map(asFloat).join(', '),
  });
}

/** A number as C has it. */
const asFloat = (value: number): string => (Number.isInteger(value) ? `${value}.0f` : `${value}f`);

/** A command for a shell, in lines of at most a hundred characters or so. */
export function shellLines(words: readonly string[]): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of words.map(quoted)) {
    if (line.length + word.length > 100) {
      lines.push(`${line} \\`);
      line = '   ';
    }
    line += line === '' ? word : ` ${word}`;
  }
  return [...lines, line];
}

const quoted = (word: string): string => (/^[\w=.,/+*-]+$/.test(word) ? word : `'${word}'`);
