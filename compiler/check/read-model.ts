// From what a user names, a path or a well-known model, to a checked Model.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Diagnostic, formatDiagnostic, nearest, SourceError, UserError } from '../diagnostic.ts';
import { packagePath, readPackageFile } from '../package-files.ts';
import { check, checkFile } from './index.ts';
import { load } from './load.ts';
import type { Model } from './model.ts';
import { standardFiles } from './standard-library.ts';

const wellKnown = 'well-known/models';

interface FoundSource {
  readonly path: string;
  readonly text: string;
}

/**
 * Reads the model that a user names (LANGUAGE 1.4): a path to a file, or a well-known model, so that `gpt2-small`,
 * `gpt2_small`, `gpt2_small.mal` and `well-known/gpt2_small.mal` are the same, and so is `well-known/models/gpt2-small.mal`.
 * A file that exists wins.
 *
 * @param modelName which model, where the file has several.
 * @returns the model, its file's warnings as formatted texts, and the file.
 * @throws SourceError where the file is at fault, UserError where there is none.
 */
export function readModel(
  pathOrName: string,
  modelName?: string,
): { model: Model; warnings: string[]; text: string; path: string } {
  const { path, text } = findSource(pathOrName);
  return { ...readModelText(path, text, modelName), text, path };
}

/** The same of a text, as if it stood in the file `path`: what it imports is found from there. */
export function readModelText(path: string, text: string, modelName?: string): { model: Model; warnings: string[] } {
  const { syntax, imported, sources } = loadText(path, text);
  const { model, diagnostics } = check(syntax, { model: modelName, imported });
  if (model === null) throw sourceError(diagnostics, sources);
  return { model, warnings: warningTexts(diagnostics, sources) };
}

/** Reads and checks every model of a file; there may be none. Otherwise as readModel. */
export function readModels(pathOrName: string): { models: Model[]; warnings: string[]; text: string; path: string } {
  const { path, text } = findSource(pathOrName);
  const { syntax, imported, sources } = loadText(path, text);
  const { models, diagnostics } = checkFile(syntax, imported);
  if (diagnostics.some(diagnostic => diagnostic.severity === 'error')) throw sourceError(diagnostics, sources);
  return { models, warnings: warningTexts(diagnostics, sources), text, path };
}

type Sources = ReadonlyMap<string, string>;

const warningTexts = (diagnostics: readonly Diagnostic[], sources: Sources) =>
  diagnostics.map(warning => formatDiagnostic(warning, sources, { color: false }));

/** An error that can show the standard library's lines too. */
function sourceError(diagnostics: readonly Diagnostic[], sources: Sources): SourceError {
  const standard = standardFiles.map(file => [file, readPackageFile(file)] as const);
  return new SourceError(diagnostics, new Map([...standard, ...sources]));
}

/** The names of the well-known models, as users write them. */
export function wellKnownModels(): string[] {
  return readdirSync(packagePath(wellKnown))
    .filter(file => file.endsWith('.mal'))
    .map(file => basename(file, '.mal').replaceAll('_', '-'))
    .sort();
}

function loadText(path: string, text: string) {
  const loaded = load(path, text);
  if (loaded.diagnostics.length > 0) throw sourceError(loaded.diagnostics, loaded.sources);
  return loaded;
}

function findSource(pathOrName: string): FoundSource {
  if (existsSync(pathOrName)) return readSource(pathOrName);
  const name = pathOrName.replace(/^well-known\/(models\/)?/, '').replace(/\.mal$/, '');
  const files = readdirSync(packagePath(wellKnown)).filter(file => file.endsWith('.mal'));
  const found = files.find(file => plainName(basename(file, '.mal')) === plainName(name));
  if (found) return readSource(join(packagePath(wellKnown), found));
  const known = wellKnownModels();
  const near = nearest(name, known);
  const help = near ? `did you mean \`${near}\`?` : `the well-known models are ${known.join(', ')}`;
  throw new UserError(`there is no file and no well-known model \`${pathOrName}\`\nhelp: ${help}`);
}

/** A name as it is told from others: whatever stands between its parts. */
const plainName = (name: string) => name.replace(/[-._]/g, '-');

function readSource(path: string): FoundSource {
  if (statSync(path).isDirectory()) throw new UserError(`${path} is a folder, and a .mal file is needed`);
  return { path, text: readFileSync(path, 'utf8') };
}
