// `malc fmt`: lays .mal files out in the canonical way.
import type { Diagnostic } from '../../compiler/diagnostic.ts';
import type { Command } from './command.ts';

/** One file, or standard input. */
interface Formatted {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

const standardInput = '-';

export const fmt: Command = {
  name: 'fmt',
  describe: 'Lay .mal files out in the canonical way, comments kept',
  positionals: [{ name: 'file', describe: '.mal files; - is the standard input', required: true, array: true }],
  options: {
    check: {
      type: 'boolean',
      describe: 'Write nothing, list the files that would change, and exit with 1 where there are any',
      default: false,
    },
    stdout: { type: 'boolean', describe: 'Print the result and leave the files as they are', default: false },
  },
  examples: [
    ['malc fmt blocks.mal model.mal', 'rewrites both files and names those that changed'],
    ['malc fmt --check *.mal', 'fails where a file is not laid out'],
  ],
  async run(args) {
    const { SourceError, UserError } = await import('../../compiler/diagnostic.ts');
    const { format } = await import('../../compiler/syntax/format.ts');
    const { writeFileAtomic } = await import('../atomic-file.ts');
    if (args.check && args.stdout)
      throw new UserError('--check prints no layout, so --stdout cannot go with it; drop one');

    // Every file is laid out before the first is written: a syntax error in one leaves all as they are.
    const files: Formatted[] = [];
    const diagnostics: Diagnostic[] = [];
    const sources = new Map<string, string>();
    for (const path of new Set(args.file as string[])) {
      const before = await readText(path);
      try {
        files.push({ path, before, after: format(before, nameOf(path)) });
      } catch (error) {
        if (!(error instanceof SourceError)) throw error;
        diagnostics.push(...error.diagnostics);
        for (const [file, text] of error.sources) sources.set(file, text);
      }
    }
    if (diagnostics.length > 0) throw new SourceError(diagnostics, sources);

    for (const { path, before, after } of files) {
      if (args.check) {
        if (after === before) continue;
        console.log(nameOf(path));
        process.exitCode = 1;
      } else if (args.stdout || path === standardInput) {
        process.stdout.write(after);
      } else if (after !== before) {
        writeFileAtomic(path, after);
        console.log(path);
      }
    }
  },
};

const nameOf = (path: string) => (path === standardInput ? 'standard input' : path);

/** The text of a file, with the byte-order mark that it may have. */
async function readText(path: string): Promise<string> {
  const { readFileSync } = await import('node:fs');
  const { UserError } = await import('../../compiler/diagnostic.ts');
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path === standardInput ? 0 : path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new UserError(`there is no file ${path}; give the path of a .mal file`);
    if (code === 'EISDIR') throw new UserError(`${path} is a folder; name the .mal files in it`);
    throw new UserError(`cannot read ${nameOf(path)}: ${message}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new UserError(`${nameOf(path)} is not UTF-8 text, and would not be the same after; save it as UTF-8`);
  }
}
