// The epilogue of products: what is computed of a row of their tiles, and stored, while the tiles are in cache.

import { Elements } from '../../emission/elements.ts';
import {
  type Coordinates,
  coordinateName,
  countText,
  dividedBy,
  offsetBeside,
  offsetText,
  sizeText,
  times,
} from '../../emission/index-text.ts';
import { assigned } from '../../emission/kernel-outputs.ts';
import type { Names, Writer } from '../../emission/writer.ts';
import { type Dimension, hasDimension, product as productOf, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, stored } from '../../kernels/kernel.ts';
import { elementType, narrowed, type Surroundings, widened } from './kernel-source.ts';
import { columnLoops } from './loops.ts';

/** Tiles of a group's products that are ready to be finished. */
export interface FinishedTiles {
  readonly group: MatmulGroup;
  /** C text of the tiles' first column and of their number of columns. */
  readonly column: string;
  readonly columns: string;
  /** C text of the first of the task's rows that are in the tiles. */
  readonly top: string;
  /** Floats from row to row of a tile. */
  readonly width: number;
  readonly tiles: ReadonlyMap<Node, string>;
  /** Names of the task's own scope. */
  readonly names: Names;
}

/**
 * Finishes row `r` of the task: the epilogue's maps, and the stores.
 * @param named the kernel's own names of its values
 */
export function emitEpilogueRow(
  writer: Writer,
  { group, column, columns, top, width, tiles, names }: FinishedTiles,
  named: ReadonlyMap<Node, string>,
  surroundings: Surroundings,
): void {
  const { storageOf } = surroundings;
  const inside = new Set(group.epilogue);
  const external = [...new Set(group.epilogue.flatMap(node => node.inputs.flatMap(stored)))].filter(
    node => !inside.has(node) && !tiles.has(node),
  );
  const at = rowCoordinates(writer, group, external);
  const pointers = new Map<Node, string>();
  const targets = new Map<Node, string>();
  for (const [node, tile] of tiles) {
    const name = names.unique(`${named.get(node)}_done`);
    writer.line(`const float *${name} = ${tile} + ${times(top === '0' ? 'r' : `(r - ${top})`, String(width))};`);
    pointers.set(node, name);
  }
  for (const node of [...external, ...group.outputs]) {
    const hasColumns = node.dimensions.some(dim => !hasDimension(group.rows, dim.name));
    const hasRows = node.dimensions.some(dim => hasDimension(group.rows, dim.name));
    if (!hasRows || !hasColumns) continue;
    const isOutput = group.outputs.includes(node);
    const name = names.unique(`${named.get(node)}_row`);
    const own = node.dimensions.filter(dim => !hasDimension(group.rows, dim.name));
    const leads = sameDimensions(node.dimensions.slice(0, group.rows.length), group.rows);
    const offset = leads ? times('(first + r)', countText(own)) : offsetText(node.dimensions, at);
    const type = elementType(node, storageOf(node));
    writer.line(`${isOutput ? '' : 'const '}${type} *${name} = ${named.get(node)} + ${offset};`);
    (isOutput ? targets : pointers).set(node, name);
  }
  const read = (node: Node, place: Coordinates): string => {
    const pointer = pointers.get(node);
    if (tiles.has(node))
      return `${pointer}[${offsetText(group.columns, place)}${column === '0' ? '' : ` - ${column}`}]`;
    const storage = storageOf(node);
    if (pointer) return widened(`${pointer}[${offsetBeside(node.dimensions, place, group.rows)}]`, node, storage);
    const index = sameDimensions(node.dimensions, group.rows) ? '(first + r)' : offsetText(node.dimensions, place);
    return widened(`${named.get(node)}[${index}]`, node, storage);
  };
  const flat = group.columns.length === 1;
  const step = productOf(group.columns.slice(1).map(dim => dim.size!));
  const bounds = (dim: Dimension, axis: number): [string, string] =>
    axis > 0 || column === '0'
      ? ['0', sizeText(dim)]
      : flat
        ? [column, `${column} + ${columns}`]
        : [`${column} / ${step}`, `(${column} + ${columns}) / ${step}`];
  columnLoops(writer, group.columns, bounds, inside, '#pragma omp simd', (columnCoordinates, segment) => {
    const place = new Map([...at, ...columnCoordinates]);
    const nameOf = (node: Node) =>
      group.outputs.includes(node) ? `${named.get(node)}_value` : (named.get(node) ?? surroundings.nameOf(node));
    const bufferOf = (node: Node) => named.get(node)!;
    const elements = new Elements(writer, { inside, read, nameOf, bufferOf, segment });
    for (const node of group.outputs) {
      const value = elements.stored(node, place, group.epilogue);
      const target = `${targets.get(node)}[${offsetText(group.columns, place)}]`;
      writer.line(assigned(target, narrowed(value, storageOf(node)), node, surroundings));
    }
  });
}

/** Where row `r` of the task is in each of the rows' dimensions; declares those that something is read by. */
function rowCoordinates(writer: Writer, group: MatmulGroup, external: readonly Node[]): Map<string, string> {
  const { rows } = group;
  if (rows.length === 1) return new Map([[rows[0]!.name, '(first + r)']]);
  const at = new Map(rows.map(dim => [dim.name, coordinateName(dim)]));
  const drawn = group.epilogue.some(node => node.inputs.some(input => input.primitive?.name === 'random'));
  const isReadBy = ({ dimensions }: Node, dim: Dimension) =>
    hasDimension(dimensions, dim.name) && !sameDimensions(dimensions.slice(0, rows.length), rows);
  for (const dim of rows.filter(dim => drawn || external.some(node => isReadBy(node, dim)))) {
    const axis = rows.indexOf(dim);
    const above = dividedBy('(first + r)', rows.slice(axis + 1));
    writer.line(`const int64_t ${at.get(dim.name)} = ${axis > 0 ? `${above} % ${sizeText(dim)}` : above};`);
  }
  return at;
}
