// The variants of a sweep: those that are listed, each at every point of the grid.
import type { Span } from '../../compiler/syntax/syntax.ts';

/** One value of an option of `malc train`, or of a constant of the model. */
export interface Choice {
  readonly name: string;
  readonly nameSpan: Span;
  readonly isOption: boolean;
  /** Options that say the same in another way. */
  readonly instead: readonly string[];
  /** As it was written. */
  readonly text: string;
  readonly value: unknown;
}

export interface Variant {
  /** Names its folder: `wide`, `wide,lr=1e-3` or `layers=4,lr=1e-3`. */
  readonly name: string;
  /** Options of `malc train`, of this variant and of all. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Constants of the model, as they are written. */
  readonly constants: Readonly<Record<string, string>>;
  /** What sets it apart from the others, with the places in the file. */
  readonly own: readonly Choice[];
}

/** Every listed variant, or none with a name, at every point of the axes; the last axis changes first. */
export function productOf(
  shared: readonly Choice[],
  listed: readonly { readonly label: string; readonly choices: readonly Choice[] }[],
  axes: readonly (readonly Choice[])[],
): Variant[] {
  const points = axes.reduce<readonly (readonly Choice[])[]>(
    (found, axis) => found.flatMap(point => axis.map(choice => [...point, choice])),
    [[]],
  );
  const variants = listed.length > 0 ? listed : [{ label: '', choices: [] }];
  return variants.flatMap(({ label, choices }) =>
    points.map(point => {
      const own = [...choices, ...point];
      const all = [...shared, ...own];
      const words = point.map(({ name, text }) => `${name}=${text.replaceAll(/[^\w.-]+/g, '_')}`);
      return {
        name: [label, ...words].filter(word => word !== '').join(','),
        options: optionsOf(all),
        constants: Object.fromEntries(all.filter(({ isOption }) => !isOption).map(({ name, text }) => [name, text])),
        own,
      };
    }),
  );
}

/** Of options that say the same in two ways a variant's own takes the place of what all have. */
function optionsOf(choices: readonly Choice[]): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const { name, isOption, instead, value } of choices) {
    if (!isOption) continue;
    for (const other of instead) delete options[other];
    options[name] = value;
  }
  return options;
}
