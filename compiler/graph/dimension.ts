// Named dimensions. A size is a number, or null where it is known only when the program runs.

export interface Dimension {
  readonly name: string;
  readonly size: number | null;
}

/** Sequences in a call; of decoding one, which the new tokens of all texts make, text after text. */
export const batch: Dimension = { name: 'batch', size: null };
/** Positions in a call. */
export const time: Dimension = { name: 'time', size: null };
/** Texts that decoding goes on with, each with any number of new tokens, or none. */
export const sequences: Dimension = { name: 'sequences', size: null };
/** Positions that the key-value cache holds. */
export const context: Dimension = { name: 'context', size: null };

export const dimension = (name: string, size: number): Dimension => ({ name, size });

/** Sizes of the run-time dimensions, by name. */
export type Sizes = Readonly<Record<string, number>>;

/** The size of a dimension once the run-time sizes are known. */
export function sizeOf(dim: Dimension, sizes: Sizes): number {
  const size = dim.size ?? sizes[dim.name];
  if (size === undefined) throw new Error(`the run-time dimension ${dim.name} has no size`);
  return size;
}

export const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);

/** The product of the compile-time sizes: elements for each combination of run-time coordinates. */
export const constantCount = (dims: readonly Dimension[]): number => product(dims.map(dim => dim.size ?? 1));

/** `[batch, time, hidden 128]`, for messages and dumps. */
export const showDimensions = (dims: readonly Dimension[]): string =>
  `[${dims.map(dim => (dim.size === null ? dim.name : `${dim.name} ${dim.size}`)).join(', ')}]`;

export const sameDimensions = (a: readonly Dimension[], b: readonly Dimension[]): boolean =>
  a.length === b.length && a.every((dim, n) => dim.name === b[n]!.name && dim.size === b[n]!.size);

export const hasDimension = (dims: readonly Dimension[], name: string): boolean => dims.some(dim => dim.name === name);

/** True where every dimension of `part` is one of `whole`. */
export const within = (part: readonly Dimension[], whole: readonly Dimension[]): boolean =>
  part.every(dim => hasDimension(whole, dim.name));
