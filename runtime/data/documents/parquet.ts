// Parquet: a table, of which one column is the text. Read group of rows by group of rows.
import { UserError } from '../../../compiler/diagnostic.ts';
import { explainReading } from '../text.ts';
import type { Document, ReadOptions } from './documents.ts';

/** Where a row stands. */
export const rowOf = (path: string, number: number): string => `${path}: row ${number}`;

/**
 * The documents of a Parquet file, one for each row.
 *
 * @throws UserError where the file is none, or has no such column of texts; for the first row without a text, where
 *   `onSkipped` is null.
 */
export async function* readParquet(path: string, { textField, onSkipped }: ReadOptions): AsyncGenerator<Document> {
  // Large, and seldom needed.
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');

  const file = await asyncBufferFromFile(path).catch(error => {
    throw explainReading(error, path);
  });
  const metadata = await parquetMetadataAsync(file).catch(error => {
    throw new UserError(`${path} cannot be read as Parquet: ${(error as Error).message}; fetch it again`);
  });
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  if (!columns.includes(textField))
    throw new UserError(`${path} has no column '${textField}'; it has ${columns.join(', ')} (--text-field)`);
  let rowStart = 0;
  let given = 0;
  for (const { num_rows: count } of metadata.row_groups) {
    const rowEnd = rowStart + Number(count);
    const wanted = { file, metadata, compressors, columns: [textField], rowStart, rowEnd };
    const rows = await parquetReadObjects(wanted).catch(error => {
      throw new UserError(
        `${path}: rows ${rowStart + 1} to ${rowEnd} cannot be read: ${(error as Error).message}; fetch it again`,
      );
    });
    for (const [index, row] of rows.entries()) {
      const number = rowStart + index + 1;
      const text: unknown = row[textField];
      if (typeof text === 'string' && text !== '') {
        given += 1;
        yield { text, number };
      } else if (onSkipped) onSkipped(rowOf(path, number), `its '${textField}' is no text`);
      else throw new UserError(`${rowOf(path, number)}: its '${textField}' is no text`);
    }
    rowStart = rowEnd;
  }
  if (given === 0) throw new UserError(`${path} holds no row with a text in its column '${textField}'`);
}
