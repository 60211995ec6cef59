// How the tensors of a file and the parameters of a model relate: other names, transposed matrices, several parameters in
// one tensor, one parameter in several tensors.
import { buildProgram } from '../../compiler/build/program.ts';
import type { Model } from '../../compiler/check/model.ts';
import { standardLibrary } from '../../compiler/check/standard-library.ts';
import type { TensorContent, TensorLayout, TensorTable } from './architecture.ts';

/** A parameter as malc has it: [out, in] for matrices, those of all experts one after the other. */
export interface ParameterShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Rows and columns of a parameter, seen as a matrix whose columns are its last dimension; a vector is one column. */
export interface Part extends ParameterShape {
  readonly row: number;
  readonly rows: number;
  readonly column: number;
  readonly columns: number;
}

/** A tensor of a file: one matrix or several that follow one another. Their rows are, in turn, those of the parts. */
export interface FileTensor extends ParameterShape {
  readonly holds: readonly Part[];
  /** The file has each matrix with its rows as columns. */
  readonly transposed: boolean;
  /** The rows come in so many groups, each with its share of every part in turn. 1: one whole part after another. */
  readonly groups: number;
  /** Rows of zeros after all parts. */
  readonly padding: number;
  /** Whether a gradient trains it. */
  readonly trained: boolean;
}

/**
 * Every tensor that a file has for this model, in the order of malc's parameters.
 *
 * @param has whether a file has a tensor; without it the tensors are those that malc writes
 */
export function layoutOf(table: TensorTable, model: Model, has: (name: string) => boolean = () => false): FileTensor[] {
  const parameters = parameterShapes(model);
  const tensors = expand(table.tensors ?? {}, model, parameters);
  const alternatives = expand(table.alternatives ?? {}, model, parameters).filter(({ name }) => has(name));
  const elsewhere = new Set(alternatives.flatMap(({ holds }) => holds.map(({ name }) => name)));
  const holding = new Map<string, FileTensor[]>();
  for (const tensor of [...alternatives, ...tensors.filter(({ holds }) => !elsewhere.has(holds[0]!.name))])
    for (const { name } of tensor.holds) holding.set(name, [...(holding.get(name) ?? []), tensor]);
  const own = (parameter: ParameterShape) => [fileTensor(parameter.name, [whole(parameter)], { holds: [] }, 1)];
  return [...new Set([...parameters.values()].flatMap(each => holding.get(each.name) ?? own(each)))];
}

type Parameters = ReadonlyMap<string, ParameterShape>;

/** The tensors of a table for every layer and every expert, without those of which the model has no parameter. */
function expand(table: Readonly<Record<string, TensorContent>>, model: Model, parameters: Parameters): FileTensor[] {
  return Object.entries(table).flatMap(([name, content]) => {
    const layout = layoutFrom(content);
    const layers = name.includes('{layer}') ? [...model.layers.keys()] : [0];
    return layers.flatMap(layer => inLayer(name.replace('{layer}', String(layer)), layout, layer, model, parameters));
  });
}

function layoutFrom(content: TensorContent): TensorLayout {
  if (typeof content === 'string') return { holds: [content] };
  return 'holds' in content ? content : { holds: content };
}

function inLayer(
  name: string,
  layout: TensorLayout,
  layer: number,
  model: Model,
  parameters: Parameters,
): FileTensor[] {
  const holds = layout.holds.flatMap(each => parameters.get(each.replace('{layer}', String(layer))) ?? []);
  // A bias, for instance, that this model does not have.
  if (holds.length === 0) return [];
  const { attention, ffn } = model.blocks[model.layers[layer]!]!;
  const experts = ffn?.moe?.experts ?? 1;
  const groups = { head: attention?.num_heads ?? 1, expert: experts, all: 1 }[layout.each ?? 'all'];
  const counts = { '{expert}': experts, '{shared_expert}': ffn?.moe?.shared_experts ?? 1 };
  const split = Object.entries(counts).find(([mark]) => name.includes(mark));
  if (!split) return [fileTensor(name, holds.map(whole), layout, groups)];
  const [mark, count] = split;
  return Array.from({ length: count }, (_, index) => {
    const parts = holds.map(parameter => share(whole(parameter), index, count, layout.takes ?? 'rows'));
    return fileTensor(name.replace(mark, String(index)), parts, layout, groups);
  });
}

function whole({ name, shape }: ParameterShape): Part {
  const columns = shape.length > 1 ? shape.at(-1)! : 1;
  return { name, shape, row: 0, rows: shape.reduce((a, b) => a * b, 1) / columns, column: 0, columns };
}

/** One of `count` equal pieces of a parameter. */
function share(part: Part, index: number, count: number, takes: 'rows' | 'columns'): Part {
  const [rows, columns] = [part.rows / count, part.columns / count];
  return takes === 'rows' ? { ...part, row: index * rows, rows } : { ...part, column: index * columns, columns };
}

function fileTensor(name: string, holds: readonly Part[], layout: TensorLayout, groups: number): FileTensor {
  const { transposed = false, unit_dimension, padded_to = 1, trained = true, each } = layout;
  const used = holds.reduce((sum, { rows }) => sum + rows, 0);
  const padding = Math.ceil(used / padded_to) * padded_to - used;
  const [first] = holds as readonly [Part, ...Part[]];
  const isWhole = holds.length === 1 && first.rows * first.columns === first.shape.reduce((a, b) => a * b, 1);
  const stacked = each === 'expert' ? [groups] : [];
  const rows = (used + padding) / (each === 'expert' ? groups : 1);
  const matrix = first.shape.length === 1 ? [rows] : [rows, first.columns];
  const shape =
    isWhole && padding === 0 && !transposed && each === undefined
      ? [...first.shape]
      : [...stacked, ...(transposed ? matrix.toReversed() : matrix)];
  if (unit_dimension !== undefined) shape.splice(unit_dimension, 0, 1);
  return { name, shape, holds, transposed, groups, padding, trained };
}

/** All parameters of a model by name, as its native program will have them. */
function parameterShapes(model: Model): Parameters {
  const { embedding, blocks, head } = buildProgram(model, standardLibrary());
  const named = (prefix: string, parameters: readonly ParameterShape[]) =>
    parameters.map(({ name, shape }) => ({ name: `${prefix}${name}`, shape }));
  const all = [
    ...named('', embedding.parameters),
    ...model.layers.flatMap((kind, layer) => named(`model.layers.${layer}.`, blocks[kind]!.parameters)),
    // A tied head has the embedding's matrix under the embedding's name.
    ...named('', head.parameters),
  ];
  return new Map(all.map(parameter => [parameter.name, parameter]));
}
