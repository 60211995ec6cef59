// The post-processors of tokenizer.json: which marks a text gets before it and after it. Some only move offsets, which
// are not kept here.
import type { Part } from './part.ts';

/** The ids that go before a text and after it. */
export interface Marks {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const none: Marks = { before: [], after: [] };

/** @throws UserError for a post-processor that is not supported, or that uses a token which it does not declare. */
export function readPostProcessor(part: Part | null): Marks {
  if (part === null) return none;
  const type = part.type ?? '';
  switch (type) {
    case 'Sequence':
      // Each goes around what those before it made.
      return part.read(
        part
          .parts('processors')
          .map(readPostProcessor)
          .reduce(
            (inner, outer) => ({
              before: [...outer.before, ...inner.before],
              after: [...inner.after, ...outer.after],
            }),
            none,
          ),
      );
    case 'ByteLevel':
      part.ignore('add_prefix_space', 'trim_offsets', 'use_regex');
      return part.read(none);
    case 'BertProcessing':
    case 'RobertaProcessing':
      part.ignore('add_prefix_space', 'trim_offsets');
      return part.read({ before: [markId(part, 'cls')], after: [markId(part, 'sep')] });
    case 'TemplateProcessing':
      return part.read(template(part));
    default:
      throw part.unsupported(` ${type}`);
  }
}

/** A mark as a pair of its spelling and its id. */
function markId(part: Part, name: string): number {
  const [, id] = part.list(name);
  if (typeof id !== 'number') throw part.broken(`.${name} is no pair of a token and its id`);
  return id;
}

/** The template for one text; that for two does not matter here. */
function template(part: Part): Marks {
  part.ignore('pair');
  const declared = part.part('special_tokens');
  const before: number[] = [];
  const after: number[] = [];
  let texts = 0;
  for (const piece of part.parts('single')) {
    if (piece.has('Sequence')) {
      if (piece.part('Sequence').text('id') !== 'A' || ++texts > 1)
        throw piece.unsupported(' (another text than the first)');
      continue;
    }
    const name = piece.part('SpecialToken').text('id');
    if (!declared.has(name)) throw declared.broken(` lacks ${JSON.stringify(name)}`);
    const ids = declared.part(name).list('ids') as readonly number[];
    (texts === 0 ? before : after).push(...ids);
  }
  if (texts === 0) throw part.unsupported('.single without the text itself');
  return { before, after };
}
