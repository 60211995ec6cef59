// Index arithmetic as C text: sizes, offsets and loops over named dimensions.
import { type Dimension, hasDimension, product } from '../graph/dimension.ts';

/** The C text of each dimension's coordinate. */
export type Coordinates = ReadonlyMap<string, string>;

/** How a dimension's size is written: a number, or the run-time variable of its name. */
export const sizeText = (dim: Dimension): string => (dim.size === null ? dim.name : String(dim.size));

/** The product of sizes, `batch * time * 128`; '1' for none. */
export function countText(dims: readonly Dimension[]): string {
  const fixed = product(dims.map(dim => dim.size ?? 1));
  const runtime = dims.filter(dim => dim.size === null).map(dim => dim.name);
  if (fixed !== 1 || runtime.length === 0) runtime.push(String(fixed));
  return runtime.join(' * ');
}

const isCompound = (text: string) => /[ ?]/.test(text);
const factor = (text: string) => (isCompound(text) && !/^\([^()]*\)$/.test(text) ? `(${text})` : text);

/** `a * b` without needless ones. */
export function times(a: string, b: string): string {
  if (a === '0' || b === '0') return '0';
  if (a === '1') return b;
  if (b === '1') return a;
  return `${factor(a)} * ${/^[\w* ]+$/.test(b) ? b : factor(b)}`;
}

export const plus = (parts: readonly string[]): string => parts.filter(part => part !== '0').join(' + ') || '0';

/** Where the element at these coordinates lies; dimensions without a coordinate count as 0. */
export function offsetText(dims: readonly Dimension[], at: Coordinates): string {
  return plus(
    dims.map((dim, n) => {
      const coordinate = at.get(dim.name);
      return coordinate === undefined ? '0' : times(coordinate, countText(dims.slice(n + 1)));
    }),
  );
}

/** The same, with the coordinates of some dimensions counted as 0: what is left to add to a pointer that has them. */
export const offsetBeside = (dims: readonly Dimension[], at: Coordinates, counted: readonly Dimension[]): string =>
  offsetText(dims, new Map([...at].filter(([name]) => !hasDimension(counted, name))));

export const coordinateName = (dim: Dimension): string => `i_${dim.name}`;

/** `row / (time * 4)`: a row's number without the dimensions that vary faster. */
export const dividedBy = (text: string, dims: readonly Dimension[]): string =>
  dims.length === 0 ? text : `${text} / ${factor(countText(dims))}`;
