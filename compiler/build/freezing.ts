// What freezing some parameters makes of a model: which gradients its stages still need. Layers of one kind share their
// functions, so layers that need other gradients than the rest of their kind become a kind of their own.
import type { Model } from '../check/model.ts';
import { UserError } from '../diagnostic.ts';
import type { Program } from './program.ts';

/** What a stage's gradients are needed for. */
export interface Freezing {
  /** Whether training leaves a parameter of the stage as it is, by its local name. */
  isFrozen(name: string): boolean;
  /** Whether what lies below needs the gradient of what the stage reads. */
  readonly handsOn: boolean;
}

/** The same for all stages of a program. */
export interface FreezingOfStages {
  readonly embedding: Freezing;
  /** For each of the model's block kinds. */
  readonly blocks: readonly Freezing[];
  readonly head: Freezing;
  /** What surrounds the block of a module. */
  readonly modules: Freezing;
  /** The kind of the modules' blocks. */
  readonly moduleKind: number;
  /** The lowest layer that has a backward pass; the number of layers where none has. */
  readonly lowest: number;
}

export const trainsAll: Freezing = { isFrozen: () => false, handsOn: true };

/** The stages of a model of which everything is trained. */
export const freezesNothing = ({ blocks, layers }: Model): FreezingOfStages => ({
  embedding: trainsAll,
  blocks: blocks.map(() => trainsAll),
  head: trainsAll,
  modules: trainsAll,
  moduleKind: layers.at(-1)!,
  lowest: 0,
});

/** A kind of layers: a block of the model, with what is frozen of it. */
interface Kind extends Freezing {
  readonly block: number;
  /** Local names, in the block's order. */
  readonly frozen: readonly string[];
  /** How it differs from the block's other kinds, in a word. */
  readonly word: string;
}

/**
 * Splits the kinds of a model's layers by what is frozen of them.
 * @param whole the program of the model with everything trained
 * @param names of the frozen parameters, as checkpoints have them
 * @returns the model with a block for each kind, and what each stage's gradients are needed for
 * @throws UserError where modules that predict further ahead, which share their functions, are not frozen alike.
 */
export function freeze(whole: Program, names: ReadonlySet<string>): { model: Model; freezing: FreezingOfStages } {
  const { model, embedding, blocks, modules } = whole;
  const kinds: Kind[] = [];
  const kindOf = (block: number, layer: number, handsOn: boolean): number => {
    const own = blocks[block]!.parameters.map(({ name }) => name);
    const frozen = own.filter(name => names.has(`model.layers.${layer}.${name}`));
    const known = kinds.findIndex(
      kind => kind.block === block && kind.handsOn === handsOn && kind.frozen.join() === frozen.join(),
    );
    if (known >= 0) return known;
    const share = frozen.length === 0 ? 'none' : frozen.length === own.length ? 'all' : 'some';
    return kinds.push({ ...freezingOf(frozen, handsOn), block, frozen, word: kindWords[share][Number(handsOn)]! }) - 1;
  };

  // From the bottom up: a layer hands its gradient on where anything below it is trained. The embedding is below layer 0.
  let lowest = embedding.parameters.every(({ name }) => names.has(name)) ? model.layers.length : -1;
  const layers = model.layers.map((block, layer) => {
    const kind = kindOf(block, layer, lowest < layer);
    const isTrained = kinds[kind]!.frozen.length < blocks[block]!.parameters.length;
    if (isTrained) lowest = Math.min(lowest, layer);
    return kind;
  });
  const depth = model.mtp?.depth ?? 0;
  const numbers = Array.from({ length: depth }, (_, n) => model.layers.length + n);
  const moduleKinds = numbers.map(layer => kindOf(model.layers.at(-1)!, layer, true));
  // What a module borrows of the embedding and the head bears its owner's name.
  const around = [...(modules?.join.parameters ?? []), ...(modules?.head.parameters ?? [])].map(({ name }) => name);
  const frozenAround = numbers.map(layer =>
    around.filter(name => names.has(name) || names.has(`model.layers.${layer}.${name}`)),
  );
  if (new Set(moduleKinds.map((kind, n) => `${kind}: ${frozenAround[n]!.join()}`)).size > 1)
    throw new UserError(
      `the modules that predict further ahead share their functions: freeze model.layers.${numbers[0]} to ` +
        `model.layers.${numbers.at(-1)} alike`,
    );
  return {
    model: {
      ...model,
      blocks: kinds.map(kind => ({ ...model.blocks[kind.block]!, name: nameOf(kind, kinds, model) })),
      layers,
    },
    freezing: {
      embedding: freezingOf(names, false),
      blocks: kinds,
      head: freezingOf(names, lowest < model.layers.length || depth > 0),
      modules: freezingOf(frozenAround[0] ?? [], true),
      moduleKind: moduleKinds[0] ?? layers.at(-1)!,
      lowest: Math.max(0, lowest),
    },
  };
}

/** What tells the kinds of a block apart, by the share of it that is frozen, where it hands no gradient on and where it does. */
const kindWords: Readonly<Record<'none' | 'some' | 'all', readonly [string, string]>> = {
  none: ['lowest', 'trained'],
  some: ['lowest_part', 'part'],
  all: ['frozen', 'passing'],
};

function freezingOf(frozen: Iterable<string>, handsOn: boolean): Freezing {
  const names = new Set(frozen);
  return { isFrozen: name => names.has(name), handsOn };
}

/** The block's own name, and in which way this kind of it is frozen where there are several. */
function nameOf({ block, word }: Kind, kinds: readonly Kind[], { blocks }: Model): string {
  const { name } = blocks[block]!;
  if (kinds.filter(kind => kind.block === block).length === 1) return name;
  return blocks.length === 1 ? word : `${name}_${word}`;
}
