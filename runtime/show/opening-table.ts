// The table that a run opens with: every setting and its value; what nobody gave is marked `auto`.
import { paint } from './color.ts';

export interface OpeningRow {
  readonly name: string;
  readonly value: string;
  readonly automatic: boolean;
}

/** The rows as lines of text. */
export function openingTable(rows: readonly OpeningRow[]): string {
  const nameWidth = Math.max(...rows.map(({ name }) => name.length));
  const valueWidth = Math.max(...rows.map(({ value }) => value.length));
  return rows
    .map(({ name, value, automatic }) => {
      const text = `  ${paint('dim', name.padEnd(nameWidth))}  ${value.padEnd(automatic ? valueWidth : 0)}`;
      return automatic ? `${text}  ${paint('dim', 'auto')}` : text;
    })
    .join('\n');
}
