// Makes a Model of a model definition: its blocks in the order of their layers, its embeddings and its output.
import { basename } from 'node:path';
import type { Diagnostic } from '../diagnostic.ts';
import { positionOf } from '../diagnostic.ts';
import * as dimensionErrors from '../dimension-errors.ts';
import * as errors from '../errors.ts';
import type { Span, SyntaxFile } from '../syntax/syntax.ts';
import { type BlockContext, numberPlaced } from './block-context.ts';
import { countParameters } from './count.ts';
import type { Definitions } from './definitions.ts';
import type { Block, Model, MultiTokenPrediction, Norm } from './model.ts';
import type { Read, Use } from './properties.ts';
import { resolveBlock } from './resolve-block.ts';

/** What resolving a model needs of its file and those that it imports. */
interface FileContext {
  readonly files: readonly SyntaxFile[];
  readonly definitions: Definitions;
  report(diagnostic: Diagnostic): void;
}

/** The model, or null where something is at fault, which has been reported. */
export function resolveModel(read: Read<'model'>, file: FileContext): Model | null {
  const { settings } = read;
  const cycle = resolveCycle(read, file);
  if (!read.sound || cycle === null) return null;

  const depth = depthOf(read);
  const kinds = [...new Set(cycle.slice(0, depth))];
  const kindOf = new Map(kinds.map((kind, index) => [kind, index]));
  const period = cycle.map(kind => kindOf.get(kind)!);
  const layers: number[] = [];
  while (layers.length < depth) layers.push(...period.slice(0, depth - layers.length));
  const positions = learnedPositions(kinds, file);
  if (positions === undefined) return null;
  const mtp = modulesAhead(read, file);
  if (mtp === undefined) return null;
  const { embeddings, output, init } = settings;
  const outputNorm = output.value.norm.property ? output.value.norm.value : kinds[0]!.block.norm;
  const formulas = file.definitions.useFormulas(formulasOf(kinds, [embeddings.value.norm.value, outputNorm]));
  if (formulas === null) return null;
  const model: Model = {
    name: read.name!,
    description: settings.description.value,
    vocab_size: settings.vocab_size.value,
    max_seq_len: settings.max_seq_len.value,
    hidden_size: settings.hidden_size.value,
    embeddings: {
      tie_weights: embeddings.value.tie_weights.value,
      scale: embeddings.value.scale.value,
      dropout: embeddings.value.dropout.value,
      untrained_token: null,
      role_embeddings: embeddings.value.role_embeddings.value,
      learned_positions: positions,
      sinusoidal_positions: kinds.some(({ block }) => block.attention?.position_encoding.kind === 'sinusoidal'),
      norm: embeddings.value.norm.value,
    },
    blocks: kinds.map(kind => kind.block),
    layers,
    output: {
      bias: output.value.bias.value,
      norm: outputNorm,
      softcap: output.value.softcap.value,
      scale: output.value.scale.value,
    },
    init: { std: init.value.std.value, residual_scale: init.value.residual_scale.value },
    mtp,
    formulas: formulas.map(formula => formula.text),
  };
  const { total } = countParameters(model);
  if (Number.isSafeInteger(total)) return model;
  const where = `model \`${model.name}\``;
  file.report(dimensionErrors.overflow(read.span, where, 'the number of parameters', total, Number.MAX_SAFE_INTEGER));
  return null;
}

/** The names of the formulas that blocks and their surroundings use. */
function formulasOf(kinds: readonly BlockKind[], outer: readonly (Norm | null)[]): string[] {
  const blocks = kinds.map(kind => kind.block);
  const inner = blocks.flatMap(({ norm, attention }) => [norm, attention?.qk_norm, attention?.latent?.norm]);
  const others = blocks.flatMap(({ attention, ffn }) => [ffn?.activation, attention?.score, attention?.mask]);
  return [...others, ...[...inner, ...outer].map(norm => norm?.name)].flatMap(name => name ?? []);
}

const depthOf = ({ settings }: Read<'model'>): number => settings.layers.value?.length ?? settings.num_layers.value;

/** A block as one model uses it. */
interface BlockKind {
  readonly read: Read<'block'>;
  readonly block: Block;
  readonly where: string;
}

/** The blocks of one cycle of the layers, each definition resolved once; null where one is at fault. */
function resolveCycle(read: Read<'model'>, file: FileContext): BlockKind[] | null {
  const depth = depthOf(read);
  const used = blocksUsed(read, file);
  if (used === null) return null;
  const found = used.map(use => file.definitions.find('block', use));
  const placesOf = new Map<Read<'block'>, number[]>();
  for (const [place, definition] of found.entries()) {
    const places = definition && placesOf.get(definition);
    if (places) places.push(place);
    else if (definition) placesOf.set(definition, [place]);
  }
  const kinds = new Map<Read<'block'>, BlockKind | null>();
  for (const [definition, places] of placesOf) {
    const where = `${describeBlock(definition)}${describeLayers(places, found.length, depth)} of model \`${read.name}\``;
    const block = resolveBlock(definition, contextOf(read, where, file));
    kinds.set(definition, block && { read: definition, block, where });
  }
  const cycle = found.flatMap(definition => (definition && kinds.get(definition)) ?? []);
  return cycle.length === found.length ? cycle : null;
}

/** What the model names as the blocks of one cycle; null where it names them in two ways. */
function blocksUsed(read: Read<'model'>, { report }: FileContext): Use<'block'>[] | null {
  const { block, pattern, layers, num_layers } = read.settings;
  const list = pattern.property ?? layers.property;
  if (list === null) return [block.value];
  if (block.property) report(errors.blockBesideList(block.property.span, list.name));
  if (pattern.property && layers.property) {
    report(errors.exclusive(layers.property.nameSpan, 'layers', { name: 'pattern', span: pattern.property.nameSpan }));
    return null;
  }
  const listed = layers.value?.length ?? num_layers.value;
  if (num_layers.property && listed !== num_layers.value) {
    const given = { value: num_layers.value, span: num_layers.property.span };
    report(errors.layersDisagree(layers.property!.nameSpan, listed, given));
    return null;
  }
  const unreached = pattern.value?.[num_layers.value];
  if (unreached)
    report(errors.patternNotReached(unreached.span, unreached.word, num_layers.value, pattern.value!.length));
  return (pattern.value ?? layers.value ?? []).map(({ word, span }) => ({ name: word, span }));
}

function contextOf(read: Read<'model'>, where: string, { files, definitions, report }: FileContext): BlockContext {
  const { hidden_size, max_seq_len } = read.settings;
  // Without the folder: the generated source, which quotes it, is the same wherever the file lies.
  const origin = (span: Span | null) => {
    const text = files.find(({ file }) => file === span?.file)?.text;
    return span && text !== undefined ? `${basename(span.file)}:${positionOf(text, span.start).line}` : '';
  };
  // What is wrong with a default has no place of its own: the model is where it came from.
  const placed = (diagnostic: Diagnostic) => report({ ...diagnostic, span: diagnostic.span ?? read.span });
  return { definitions, hidden_size, max_seq_len, sound: read.sound, where, origin, report: placed };
}

/** Null where there are none; undefined where the model is too short for them. */
function modulesAhead(
  { name, settings }: Read<'model'>,
  { report }: FileContext,
): MultiTokenPrediction | null | undefined {
  if (settings.mtp.value === null) return null;
  const { depth, weight } = settings.mtp.value;
  if (depth.value < settings.max_seq_len.value) return { depth: depth.value, weight: weight.value };
  const length = numberPlaced(settings.max_seq_len);
  report(dimensionErrors.moduleTooFarAhead(depth.property!.value.span, `model \`${name}\``, depth.value, length));
  return undefined;
}

const describeBlock = (block: Read<'block'>) =>
  block.name !== null ? `block \`${block.name}\`` : block.span ? 'the block' : 'the default block';

/** ` (layer 3)`, ` (layers 0 to 11)`, ` (layers 0, 3, 6, ...)`. */
function describeLayers(places: readonly number[], period: number, depth: number): string {
  if (period === 1) return depth === 1 ? ' (layer 0)' : ` (layers 0 to ${depth - 1})`;
  const layers: number[] = [];
  for (let start = 0; start < depth && layers.length < 4; start += period)
    layers.push(...places.map(place => start + place).filter(layer => layer < depth));
  if (layers.length === 0) return '';
  if (layers.length === 1) return ` (layer ${layers[0]})`;
  return ` (layers ${layers.slice(0, 3).join(', ')}${layers.length > 3 ? ', ...' : ''})`;
}

/** Rows of the model's one table of learned positions, null for none; undefined where blocks disagree. */
function learnedPositions(kinds: readonly BlockKind[], file: FileContext): number | null | undefined {
  const learned = kinds.flatMap(({ where, block, read }) => {
    const encoding = block.attention?.position_encoding;
    if (encoding?.kind !== 'learned') return [];
    const attention = file.definitions.find('attention', read.settings.attention.value);
    const span = attention?.settings.position_encoding.property?.span ?? null;
    return [{ where, positions: encoding.max_positions, span }];
  });
  const [first, ...others] = learned;
  const different = others.find(other => other.positions !== first!.positions);
  if (!different) return first?.positions ?? null;
  file.report(dimensionErrors.positionsDisagree(first!, different));
  return undefined;
}
