// Bundles the command line into one file: dist/malc.js, or the path given. Only koffi stays outside, for it carries native code.
import { chmodSync, readFileSync } from 'node:fs';
import { build } from 'esbuild';
import { grammar } from 'ohm-js';

/** An import of an external package would run whenever malc starts. koffi is needed only where a model runs. */
const loadKoffiLate = {
  name: 'load koffi late',
  setup: ({ onResolve, onLoad }) => {
    onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'late' }));
    onLoad({ filter: /.*/, namespace: 'late' }, () => ({ contents: "export default malcRequire('koffi');" }));
  },
};

const outfile = process.argv[2] ?? 'dist/malc.js';
await build({
  entryPoints: ['cli.ts'],
  outfile,
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
});
chmodSync(outfile, 0o755);
