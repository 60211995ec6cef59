// From what a user names, a path or a well-known model, to a checked Model.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { formatDiagnostic, nearest, SourceError, UserError } from '../diagnostic.ts';
import { packagePath } from '../package-files.ts';
import { parse } from '../syntax/parse.ts';
import type { SyntaxFile } from '../syntax/syntax.ts';
import { check, checkFile } from './index.ts';
import type { Model } from './model.ts';

const wellKnown = 'well-known/models';

interface FoundSource {
  readonly path: string;
  readonly text: string;
}

/**
 * Reads the model that a user names (LANGUAGE 1.4): a path to a file, or a well-known model, so that `gpt2-small`,
 * `gpt2_small`, `gpt2_small.mal` and `well-known/gpt2_small.mal` are the same. A file that exists wins.
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
  const { model, diagnostics } = check(parseSource(path, text), modelName === undefined ? {} : { model: modelName });
  const sources = new Map([[path, text]]);
  if (model === null) throw new SourceError(diagnostics, sources);
  const warnings = diagnostics.map(warning => formatDiagnostic(warning, sources, { color: false }));
  return { model, warnings, text, path };
}

/** Reads and checks every model of a file; there may be none. Otherwise as readModel. */
export function readModels(pathOrName: string): { models: Model[]; warnings: string[]; text: string; path: string } {
  const { path, text } = findSource(pathOrName);
  const { models, diagnostics } = checkFile(parseSource(path, text));
  const sources = new Map([[path, text]]);
  if (diagnostics.some(diagnostic => diagnostic.severity === 'error')) throw new SourceError(diagnostics, sources);
  const warnings = diagnostics.map(warning => formatDiagnostic(warning, sources, { color: false }));
  return { models, warnings, text, path };
}

/** The names of the well-known models, as users write them. */
export function wellKnownModels(): string[] {
  return readdirSync(packagePath(wellKnown))
    .filter(file => file.endsWith('.mal'))
    .map(file => basename(file, '.mal').replaceAll('_', '-'))
    .sort();
}

function parseSource(path: string, text: string): SyntaxFile {
  const { syntax, diagnostics } = parse(text, path);
  if (diagnostics.length > 0) throw new SourceError(diagnostics, new Map([[path, text]]));
  return syntax;
}

function findSource(pathOrName: string): FoundSource {
  if (existsSync(pathOrName)) return readSource(pathOrName);
  const name = pathOrName
    .replace(/^well-known\//, '')
    .replace(/\.mal$/, '')
    .replaceAll('_', '-');
  const known = wellKnownModels();
  if (known.includes(name)) return readSource(join(packagePath(wellKnown), `${name.replaceAll('-', '_')}.mal`));
  const near = nearest(name, known);
  const help = near ? `did you mean \`${near}\`?` : `the well-known models are ${known.join(', ')}`;
  throw new UserError(`there is no file and no well-known model \`${pathOrName}\`\nhelp: ${help}`);
}

function readSource(path: string): FoundSource {
  if (statSync(path).isDirectory()) throw new UserError(`${path} is a folder, and a .mal file is needed`);
  return { path, text: readFileSync(path, 'utf8') };
}
