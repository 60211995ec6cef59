// Which parameters a run leaves as they are: the lowest layers, and what regular expressions find by name.
import { buildProgram, parametersOf } from '../../compiler/build/program.ts';
import type { Model } from '../../compiler/check/model.ts';
import { formulaLibrary } from '../../compiler/check/standard-library.ts';
import { nearest, UserError } from '../../compiler/diagnostic.ts';
import type { Settings } from './settings.ts';

/**
 * The names of the frozen parameters, as checkpoints have them. The lowest layers come with all that lies below them, the
 * embedding, as hermes-llm has it.
 *
 * @throws UserError where there are fewer layers, an expression finds nothing or is none, or nothing is left to train.
 */
export function frozenParameters(model: Model, settings: Pick<Settings, 'freeze-layers' | 'freeze'>): string[] {
  const { 'freeze-layers': layers, freeze: patterns } = settings;
  if (layers === 0 && patterns.length === 0) return [];
  if (layers > model.layers.length)
    throw new UserError(`--freeze-layers is ${layers}; ${model.name} has ${model.layers.length} layers`);
  const program = buildProgram(model, formulaLibrary(model));
  const parameters = parametersOf(program);
  const names = parameters.map(({ name }) => name);
  const below = new Set(layers > 0 ? program.embedding.parameters.map(({ name }) => name) : []);
  const isBelow = (name: string) => {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    return below.has(name) || (layer !== undefined && Number(layer) < layers);
  };
  const expressions = patterns.map(pattern => expressionOf(pattern, names));
  const frozen = names.filter(name => isBelow(name) || expressions.some(expression => expression.test(name)));
  // Biases that balance experts move by what these get: alone, they learn nothing.
  const learning = parameters.filter(({ balance_rate }) => balance_rate === null);
  if (learning.every(({ name }) => frozen.includes(name)))
    throw new UserError(`nothing is left to train: ${said(settings)} freezes all ${learning.length} parameters`);
  return frozen;
}

function said({ 'freeze-layers': layers, freeze }: Pick<Settings, 'freeze-layers' | 'freeze'>): string {
  return [...(layers > 0 ? [`--freeze-layers ${layers}`] : []), ...freeze.map(each => `--freeze ${each}`)].join(
    ' and ',
  );
}

/** A regular expression that finds one of the names at least. */
function expressionOf(pattern: string, names: readonly string[]): RegExp {
  let expression: RegExp;
  try {
    expression = new RegExp(pattern);
  } catch (error) {
    throw new UserError(`--freeze ${pattern} is no regular expression: ${(error as Error).message}`);
  }
  if (names.some(name => expression.test(name))) return expression;
  throw new UserError(`--freeze ${pattern} finds no parameter; ${meant(pattern, names)}`);
}

/** What a pattern that finds nothing may mean: each of its words that no name has, by the nearest one. */
function meant(pattern: string, names: readonly string[]): string {
  const parts = new Set(names.flatMap(name => name.split('.')).filter(part => /[a-z]/.test(part)));
  const unknown = (pattern.match(/[a-z_]{3,}/gi) ?? []).filter(word => !names.some(name => name.includes(word)));
  const near = [...new Set(unknown.flatMap(word => nearest(word, parts) ?? []))];
  const examples = near.map(part => names.find(name => name.split('.').includes(part))!);
  if (near.length > 0) return `did you mean ${near.join(' and ')}, as in ${[...new Set(examples)].join(' and ')}?`;
  return `they are called ${names.slice(0, 3).join(', ')} and the like`;
}
