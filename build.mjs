// Bundles the command line into one file, dist/malc.js. Only koffi stays outside: it carries native code.
import { chmodSync } from 'node:fs';
import { build } from 'esbuild';

await build({
  entryPoints: ['cli.ts'],
  outfile: 'dist/malc.js',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: ['koffi'],
  // Some packages inside are CommonJS and ask for require, which an ES module does not have.
  banner: {
    js: "#!/usr/bin/env node\nimport { createRequire as malcCreateRequire } from 'node:module';\nconst require = malcCreateRequire(import.meta.url);",
  },
  legalComments: 'none',
  logLevel: 'warning',
});
chmodSync('dist/malc.js', 0o755);
