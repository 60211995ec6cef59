// Bundles the command line into one file: dist/malc.js, or the path given; beside it, what its threads run. With --gpu
// also what `npm run gpu` runs: dist/gpu.js and the tests of CUDA's kernels. Only koffi stays outside, for it carries
// native code.
import { chmodSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { grammar } from 'ohm-js';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { gpu: { type: 'boolean' } } });
const [outfile = 'dist/malc.js'] = positionals;

/** An import of an external package would run whenever malc starts. koffi is needed only where a model runs. */
const loadKoffiLate = {
  name: 'load koffi late',
  setup: ({ onResolve, onLoad }) => {
    onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'late' }));
    onLoad({ filter: /.*/, namespace: 'late' }, () => ({ contents: "export default malcRequire('koffi');" }));
  },
};

const common = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  plugins: [loadKoffiLate],
  // Read by compiler/syntax/parse.ts, which otherwise makes the grammar out of its text at every start.
  define: { grammarRecipe: grammar(readFileSync('mal/mal.ohm', 'utf8')).toRecipe() },
  // Some packages inside are CommonJS and ask for require, which an ES module does not have.
  banner: {
    js: `#!/usr/bin/env node
import { createRequire as malcCreateRequire } from 'node:module';
const malcRequire = malcCreateRequire(import.meta.url);
const require = malcRequire;`,
  },
  legalComments: 'none',
  logLevel: 'warning',
};

await build({ ...common, entryPoints: ['cli.ts'], outfile });
chmodSync(outfile, 0o755);
// The command line starts threads with it; it is looked for in the same folder.
await build({
  ...common,
  entryPoints: ['runtime/tokenizer/worker.ts'],
  outfile: join(dirname(outfile), 'tokenizer-worker.js'),
});

if (values.gpu) {
  await build({ ...common, entryPoints: ['bench/gpu/run.ts'], outfile: 'dist/gpu.js' });
  // They share most of their code: chunks of it keep the archive small.
  const tests = readdirSync('test').filter(name => /^cuda-.*\.test\.ts$/.test(name));
  rmSync('dist/tests', { recursive: true, force: true });
  await build({ ...common, entryPoints: tests.map(name => `test/${name}`), outdir: 'dist/tests', splitting: true });
}
