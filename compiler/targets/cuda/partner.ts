// Where an element's partner in a pair lies, for a thread that may be at any place of the dimension.
import type { Node } from '../../graph/graph.ts';
import type { PairAttributes } from '../../ops/pair.ts';

/** The C++ text of the partner's coordinate along the paired dimension, for an element at `place`. */
function partnerText({ from, span, interleaved }: PairAttributes, place: string, size: number): string {
  const [half, end] = [span / 2, from + span];
  const inside = `${from > 0 ? `${place} >= ${from} && ` : ''}${place} < ${end}`;
  const here = from > 0 ? `(${place} - ${from})` : place;
  const paired = interleaved
    ? `${from > 0 ? `${from} + ` : ''}(${here} ^ 1)`
    : `${place} < ${from + half} ? ${place} + ${half} : ${place} - ${half}`;
  return from === 0 && end === size ? paired : `${inside} ? (${paired}) : ${place}`;
}

/** Where the partners of `some` neighbours, the first of which is at a multiple of `some`, lie. */
export type Neighbours = 'side by side' | 'each other' | 'apart';

function neighboursOf({ from, span, interleaved }: PairAttributes, some: number, size: number): Neighbours {
  if (interleaved) return some > 1 && from === 0 && span === size ? 'each other' : 'apart';
  return from % some === 0 && (span / 2) % some === 0 ? 'side by side' : 'apart';
}

/** A coordinate that holds the partner of another. */
export interface Partner {
  readonly dimension: string;
  readonly text: string;
  readonly neighbours: Neighbours;
}

/**
 * The partner of the element at hand, where members pair elements: along one dimension, and all alike.
 * @param placeOf the C++ text of a dimension's coordinate
 * @param some how many elements are done side by side
 */
export function partnerOf(members: Iterable<Node>, placeOf: (dimension: string) => string, some = 1): Partner | null {
  const pairs = [...members].filter(node => node.primitive?.name === 'pair');
  const [first, ...others] = pairs.map(node => node.attributes as PairAttributes);
  if (!first) return null;
  if (others.some(other => JSON.stringify(other) !== JSON.stringify(first)))
    throw new Error(`pairs along ${pairs.map(({ label }) => label).join(', ')} differ in one kernel`);
  const { size } = pairs[0]!.dimensions.find(dim => dim.name === first.dimension)!;
  const text = partnerText(first, placeOf(first.dimension), size!);
  return { dimension: first.dimension, text, neighbours: neighboursOf(first, some, size!) };
}
