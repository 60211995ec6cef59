// From a file to its syntax and that of the files that it imports (LANGUAGE 2.1), each parsed once.
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import { parse } from '../syntax/parse.ts';
import type { Import, SyntaxFile } from '../syntax/syntax.ts';

export interface LoadedFile {
  readonly syntax: SyntaxFile;
  /** The files that it imports, and those that these import, in the order in which they are first named. */
  readonly imported: readonly SyntaxFile[];
  readonly diagnostics: readonly Diagnostic[];
  /** The texts of all of them. */
  readonly sources: ReadonlyMap<string, string>;
}

/** Files that import files that import files: the loading recurses over them. */
const deepestImport = 32;

/** Parses a text, which is that of the file `path`, and what it imports. Never throws: faults are in the diagnostics. */
export function load(path: string, text: string): LoadedFile {
  const files: SyntaxFile[] = [];
  const diagnostics: Diagnostic[] = [];
  const seen = new Set<string>();

  const visit = (file: string, content: string, open: readonly OpenFile[]) => {
    const parsed = parse(content, file);
    diagnostics.push(...parsed.diagnostics);
    files.push(parsed.syntax);
    for (const wanted of parsed.syntax.imports) {
      const found = findImport(wanted, file, open);
      if ('severity' in found) diagnostics.push(found);
      else if (!seen.has(found.identity)) {
        seen.add(found.identity);
        visit(found.file, found.content, [...open, found]);
      }
    }
  };

  // A text that is no file on disk is known by its name.
  const identity = existsSync(path) ? realpathSync(path) : path;
  seen.add(identity);
  visit(path, text, [{ file: path, identity }]);
  const [syntax, ...imported] = files as [SyntaxFile, ...SyntaxFile[]];
  return { syntax, imported, diagnostics, sources: new Map(files.map(file => [file.file, file.text])) };
}

/** A file that is being read, because the one before it imports it. */
interface OpenFile {
  readonly file: string;
  /** Its path without links: a file is itself by whatever name. */
  readonly identity: string;
}

function findImport(
  { path, pathSpan }: Import,
  importer: string,
  open: readonly OpenFile[],
): (OpenFile & { readonly content: string }) | Diagnostic {
  if (isAbsolute(path)) return errors.importNotRelative(pathSpan, path);
  const file = join(dirname(importer), path);
  try {
    const identity = realpathSync(file);
    const cycle = open.findIndex(other => other.identity === identity);
    if (cycle >= 0) return errors.importCycle(pathSpan, [...open.slice(cycle).map(other => other.file), file]);
    if (open.length > deepestImport) return errors.importsTooDeep(pathSpan, deepestImport);
    return { file, identity, content: readFileSync(file, 'utf8') };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' || code === 'ENOTDIR'
      ? errors.importNotFound(pathSpan, file)
      : errors.importUnreadable(pathSpan, file, code === 'EISDIR' ? 'it is a folder' : message);
  }
}
