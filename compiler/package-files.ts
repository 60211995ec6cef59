// Where the files that ship with the package are: the grammar, the standard library, the well-known models, templates.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let root: string | null = null;

/** The nearest folder above this code, run from source or from the bundle, that holds malc's own package.json. */
function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'malc') return folder;
    if (folder === dirname(folder)) throw new Error(`no package.json of malc above ${fileURLToPath(import.meta.url)}`);
  }
}

/** The absolute path of a file or folder of the package, such as `mal/mal.ohm`. */
export function packagePath(relative: string): string {
  root ??= packageRoot();
  return join(root, relative);
}

/** The text of a file of the package. Throws as readFileSync does. */
export function readPackageFile(relative: string): string {
  return readFileSync(packagePath(relative), 'utf8');
}
