// Where a stage's functions find what their graphs name: members of the structs that the program hands them.
import type { Program } from '../build/program.ts';
import { type SharedInput, sharedInputs } from '../build/site.ts';
import type { Stage } from '../build/stage.ts';
import { shortName } from './naming.ts';
import type { Homes } from './places.ts';
import { Writer } from './writer.ts';

/** Tells a parameter from those of other stages; what a stage borrows bears its owner's name. */
export function parameterKey({ embedding, head }: Program, stage: Stage, name: string): string {
  const isShared = [...embedding.parameters, ...head.parameters].some(parameter => parameter.name === name);
  return isShared ? name : `${stage.name}: ${name}`;
}

/**
 * Where a stage's functions find what a label names (build/stage.ts and build/site.ts list the labels).
 * @param numbers how malc_run holds what is a single number: itself, or a pointer to it
 */
export const homes =
  (stage: Stage, numbers: 'themselves' | 'pointers'): Homes =>
  (label, isOutput) => {
    if (label === 'x') return 'x';
    if (label === 'y' || label === 'logits') return label;
    if (label === 'gradient.x') return 'x_gradient';
    if (label === 'gradient.y') return 'y_gradient';
    if (isOutput && (label === 'loss' || label === 'auxiliary')) return `run->${label}`;
    if (label.startsWith('rotary_')) return `run->${label}`;
    // What is drawn by differs from layer to layer, and kernels that were queued for one layer run while another is at hand.
    if (label === 'noise' && numbers === 'pointers') return 'noise_of(run)';
    if (label in sharedInputs) {
      const isNumber = sharedInputs[label as SharedInput].dimensions.length === 0;
      return `${isNumber && numbers === 'themselves' ? '&' : ''}run->${label}`;
    }
    if (label.startsWith('cache.')) return `c->${label.slice('cache.'.length)}`;
    if (label.startsWith('next.')) return `c->next_${label.slice('next.'.length)}`;
    if (label.startsWith('saved.')) return `s->${label.slice('saved.'.length)}`;
    if (label.startsWith('gradient.')) return `g->${shortName(label.slice('gradient.'.length))}`;
    return stage.parameters.some(parameter => parameter.name === label) ? `p->${shortName(label)}` : null;
  };

/** Names each parameter that a function has by its stage's convention and does not use. */
export function unusedParameters(text: string): string {
  const head = text.slice(0, text.indexOf('{'));
  const body = text.slice(head.length);
  const declared = [...head.matchAll(/\*?(\w+)(?=[,)])/g)].map(match => match[1]!);
  const unused = declared.filter(name => !new RegExp(`(?<!\\.|->)\\b${name}\\b`).test(body));
  if (unused.length === 0) return text;
  const writer = new Writer(2);
  writer.words(unused.map(name => `(void)${name};`));
  return text.replace('{\n', `{\n${writer.toString().replace(/^/gm, '  ').trimEnd()}\n`);
}
