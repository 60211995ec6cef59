// The house rules, held: which part may import which, one door to each library, and the form of a file.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const repository = dirname(dirname(fileURLToPath(import.meta.url)));

const toTargets = 'template.ts emission plan kernels passes build ops graph scalar';

/** A part is a folder or a file, and may import itself and what its row lists. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  'cli.ts': ['runtime/commands', 'runtime', 'compiler'],
  'runtime/commands': ['runtime', 'compiler'],
  runtime: ['compiler'],

  'compiler/index.ts': ['compiler'],
  'compiler/diagnostic.ts': inCompiler('syntax'),
  'compiler/dimension-errors.ts': inCompiler('syntax'),
  'compiler/errors.ts': inCompiler('syntax'),
  'compiler/formula-errors.ts': inCompiler('syntax'),
  'compiler/message.ts': inCompiler('syntax'),
  'compiler/package-files.ts': [],
  'compiler/standalone.ts': inCompiler('check template.ts targets/names.ts'),
  'compiler/template.ts': [],
  'compiler/syntax': [],
  'compiler/scalar': [],
  'compiler/check': inCompiler('syntax scalar'),
  'compiler/graph': inCompiler('scalar'),
  'compiler/ops': inCompiler('graph scalar'),
  'compiler/grad': inCompiler('ops graph scalar'),
  'compiler/build': inCompiler('grad ops graph scalar check syntax'),
  'compiler/passes': inCompiler('ops graph scalar'),
  'compiler/kernels': inCompiler('passes ops graph scalar'),
  'compiler/plan': inCompiler('kernels ops graph scalar'),
  'compiler/emission': inCompiler('plan kernels build ops graph scalar'),
  'compiler/targets/names.ts': [],
  // A target is a vertical slice: none is in another's row.
  'compiler/targets/cpu': inCompiler(toTargets),
  'compiler/targets/cuda': inCompiler(toTargets),
  'compiler/targets/metal': inCompiler(toTargets),
};

function inCompiler(parts: string): string[] {
  return parts.split(' ').map(part => `compiler/${part}`);
}

/** What every part may import. */
const sharedByAll = ['diagnostic', 'dimension-errors', 'errors', 'formula-errors', 'message', 'package-files'].map(
  name => `compiler/${name}.ts`,
);

/** The only files that may import each library. Any other package is refused everywhere outside the tests. */
const doors: Readonly<Record<string, RegExp>> = {
  koffi: /^runtime\/ffi\.ts$/,
  'ohm-js': /^compiler\/syntax\/parse\.ts$/,
  handlebars: /\/template\.ts$/,
  yargs: /^cli\.ts$/,
  fzstd: /\/documents\/bytes\.ts$/,
  hyparquet: /\/documents\/parquet\.ts$/,
  'hyparquet-compressors': /\/documents\/parquet\.ts$/,
};

const sourceFiles = filesBelow('compiler', 'runtime').concat('cli.ts');
const allFiles = sourceFiles.concat(filesBelow('test', 'bench'));

function filesBelow(...folders: readonly string[]): string[] {
  return folders
    .flatMap(folder =>
      readdirSync(join(repository, folder), { recursive: true, encoding: 'utf8' }).map(name => join(folder, name)),
    )
    .filter(name => name.endsWith('.ts'))
    .sort();
}

function read(file: string): string {
  return readFileSync(join(repository, file), 'utf8');
}

/** What a source text imports, statically or when it runs, as written. */
function importsOf(text: string): string[] {
  const pattern =
    /^\s*(?:(?:import|export)\s[^'"]*?\sfrom|import)\s+['"]([^'"\s]+)['"]|\bimport\(\s*['"]([^'"\s]+)['"]/gm;
  return [...text.matchAll(pattern)].map(match => match[1] ?? match[2]!);
}

function lies(path: string, part: string): boolean {
  return path === part || path.startsWith(`${part}/`);
}

function partOf(path: string): string | undefined {
  return Object.keys(mayImport)
    .filter(part => lies(path, part))
    .sort((a, b) => b.length - a.length)[0];
}

/** Why `file` may not import `specifier`, or null where it may. */
function violation(file: string, specifier: string): string | null {
  if (specifier.startsWith('node:')) return null;
  if (!specifier.startsWith('.')) {
    const library = specifier.split('/')[0]!;
    if (doors[library]?.test(file)) return null;
    return `${file} imports ${specifier}, which has no door there`;
  }
  const target = normalize(join(dirname(file), specifier));
  if (sharedByAll.includes(target) || target === 'package.json') return null;
  const from = partOf(file);
  const to = partOf(target);
  if (from === undefined) return `${file} lies in no part that this test knows`;
  if (to === undefined) return `${file} imports ${target}, which lies in no part that this test knows`;
  // `compiler` in a row stands for all of it; any other name stands for that part alone.
  const permitted =
    to === from || mayImport[from]!.some(part => part === to || (part === 'compiler' && lies(to, part)));
  return permitted ? null : `${file} imports ${target}: ${from} may not know ${to}`;
}

function violationsIn(file: string): string[] {
  return importsOf(read(file)).flatMap(specifier => violation(file, specifier) ?? []);
}

const architecture = suite('architecture');

architecture('imports run one way, and each library has one door', () => {
  assert.equal(sourceFiles.flatMap(violationsIn), []);
});

architecture('the check above sees a wrong arrow', () => {
  const wrong = [
    violation('compiler/ops/add.ts', '../targets/cpu/printer.ts'),
    violation('compiler/targets/cuda/printer.ts', '../cpu/facts.ts'),
    violation('compiler/check/check.ts', '../graph/graph.ts'),
    violation('compiler/index.ts', '../runtime/cache.ts'),
    violation('runtime/train/loop.ts', '../commands/train.ts'),
    violation('runtime/build.ts', 'koffi'),
    violation('runtime/build.ts', 'chalk'),
  ];
  assert.not.ok(wrong.includes(null), JSON.stringify(wrong, null, 2));
  const right = [
    violation('compiler/ops/add.ts', '../graph/graph.ts'),
    violation('compiler/targets/cuda/printer.ts', '../../kernels/kernel.ts'),
    violation('compiler/targets/cuda/printer.ts', '../../diagnostic.ts'),
    violation('compiler/index.ts', './targets/cpu/index.ts'),
    violation('runtime/commands/train.ts', '../train/loop.ts'),
    violation('runtime/ffi.ts', 'koffi'),
  ];
  assert.equal(right.filter(Boolean), []);
});

architecture('imports are found however they are written', () => {
  const text = `// x
import './a.ts';
import type { A } from './b.ts';
import {
  B,
} from './c.ts';
export { C } from './d.ts';
const e = await import('./e.ts');
`;
  assert.equal(importsOf(text).sort(), ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts']);
});

architecture('only the command line exits the process', () => {
  const exits = sourceFiles.filter(file => file !== 'cli.ts' && /\bprocess\.(exit|abort)\(/.test(read(file)));
  assert.equal(exits, []);
});

architecture('every file says what it is on its first line', () => {
  assert.equal(
    allFiles.filter(file => !/^(\/\/ \S|\/\*\* \S)/.test(read(file))),
    [],
  );
});

architecture('no file is over 450 lines', () => {
  const long = allFiles.map(file => `${file}: ${read(file).split('\n').length - 1}`);
  assert.equal(
    long.filter(line => Number(line.split(': ')[1]) > 450),
    [],
  );
});

architecture('nothing is named utils or helpers', () => {
  const named = allFiles.filter(file => /(^|[/.-])(utils?|helpers?)([/.-]|$)/i.test(file));
  assert.equal(named, []);
});

architecture('every suite of every test file is run', () => {
  const forgotten = allFiles.flatMap(file => {
    const text = read(file);
    const names = [...text.matchAll(/^const (\w+) = suite[(<]/gm)].map(([, name]) => name!);
    // `name.run()`, or `for (const each of [name, ...]) each.run()`.
    const isRun = (name: string) =>
      new RegExp(`^${name}\\.run\\(\\)|of \\[[^\\]]*\\b${name}\\b[^\\]]*\\]\\) \\w+\\.run\\(\\)`, 'm').test(text);
    return names.filter(name => !isRun(name)).map(name => `${file}: ${name}`);
  });
  assert.equal(forgotten, ['test/fixtures/runner/never-run.ts: forgotten']);
});

architecture.run();
