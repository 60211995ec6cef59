// The models of fixtures/edges.mal: at the edges of what may be written, where random ones do not come.
import { readFileSync } from 'node:fs';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';

const { syntax } = parse(readFileSync(packagePath('test/fixtures/edges.mal'), 'utf8'), 'edges.mal');

/** One of them. */
export function edgeModel(name: string): Model {
  const { model } = check(syntax, { model: name });
  if (!model) throw new Error(`edges.mal: ${name} does not compile`);
  return model;
}
