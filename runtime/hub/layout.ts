// How the tensors of a file and the parameters of a model relate: other names, transposed matrices, several parameters in
// one tensor. Both directions; values are only moved, never changed.
import { buildProgram } from '../../compiler/build/program.ts';
import type { Model } from '../../compiler/check/model.ts';
import { standardLibrary } from '../../compiler/check/standard-library.ts';
import type { Architecture, TensorContent, TensorLayout } from './architecture.ts';

/** A parameter as malc has it: [out, in] for matrices. */
export interface ParameterShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** A tensor of a file. Its rows, after any transposition, are the rows of the parameters that it holds. */
export interface FileTensor extends ParameterShape {
  readonly holds: readonly ParameterShape[];
  readonly transposed: boolean;
  /** The rows come in so many groups, each with its share of every parameter in turn. 1: one whole parameter after another. */
  readonly groups: number;
}

/** Every tensor that a file of this architecture has for this model, in the file's order. */
export function layoutOf(architecture: Architecture, model: Model): FileTensor[] {
  const parameters = parameterShapes(model);
  if (!architecture.tensors)
    return [...parameters.values()].map(parameter => fileTensor(parameter.name, [parameter], {}, 1));
  const heads = model.blocks[0]!.attention.num_heads;
  const held = new Set<string>();
  const tensors = Object.entries(architecture.tensors).flatMap(([name, content]) => {
    const layout = layoutFrom(content);
    const layers = name.includes('{layer}') ? model.layers.keys() : [0];
    return [...layers].flatMap(layer => {
      const holds = layout.holds.flatMap(each => parameters.get(atLayer(each, layer)) ?? []);
      // A bias, for instance, that this model does not have.
      if (holds.length === 0) return [];
      for (const parameter of holds) held.add(parameter.name);
      return [fileTensor(atLayer(name, layer), holds, layout, layout.each_head ? heads : 1)];
    });
  });
  const lost = [...parameters.keys()].find(name => !held.has(name));
  if (lost !== undefined) throw new Error(`no tensor of ${architecture.model_type} holds ${lost}`);
  return tensors;
}

/** Puts a layer's number into a name. */
export const atLayer = (name: string, layer: number): string => name.replace('{layer}', String(layer));

function layoutFrom(content: TensorContent): TensorLayout {
  if (typeof content === 'string') return { holds: [content] };
  return 'holds' in content ? content : { holds: content };
}

function fileTensor(
  name: string,
  holds: readonly ParameterShape[],
  { transposed = false }: Partial<TensorLayout>,
  groups: number,
): FileTensor {
  const rows = holds.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const shape = [rows, ...holds[0]!.shape.slice(1)];
  return { name, shape: transposed ? shape.toReversed() : shape, holds, transposed, groups };
}

/** All parameters of a model by name, as its native program will have them. */
function parameterShapes(model: Model): ReadonlyMap<string, ParameterShape> {
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

/** The parameters' values, in the order of `tensor.holds`, out of the tensor's into arrays of their sizes. */
export function unpack(tensor: FileTensor, values: Float32Array, into: readonly Float32Array[]): void {
  forEachRun(tensor, (fileRow, count, part, row) => {
    const { columns, rows, transposed } = geometry(tensor);
    const target = into[part]!;
    if (!transposed) target.set(values.subarray(fileRow * columns, (fileRow + count) * columns), row * columns);
    else
      for (let r = 0; r < count; r++)
        for (let c = 0; c < columns; c++) target[(row + r) * columns + c] = values[c * rows + fileRow + r]!;
  });
}

/** The tensor's values out of its parameters', in the order of `tensor.holds`. */
export function pack(tensor: FileTensor, parts: readonly Float32Array[]): Float32Array {
  const { columns, rows, transposed } = geometry(tensor);
  const values = new Float32Array(rows * columns);
  forEachRun(tensor, (fileRow, count, part, row) => {
    const source = parts[part]!;
    if (!transposed) values.set(source.subarray(row * columns, (row + count) * columns), fileRow * columns);
    else
      for (let r = 0; r < count; r++)
        for (let c = 0; c < columns; c++) values[c * rows + fileRow + r] = source[(row + r) * columns + c]!;
  });
  return values;
}

function geometry({ holds, transposed }: FileTensor) {
  const rows = holds.reduce((sum, { shape }) => sum + shape[0]!, 0);
  return { rows, columns: holds[0]!.shape[1] ?? 1, transposed };
}

/** Visits the runs of rows that are neighbours both in the file and in a parameter. */
function forEachRun(
  { holds, groups }: FileTensor,
  visit: (fileRow: number, count: number, part: number, row: number) => void,
): void {
  let fileRow = 0;
  for (let group = 0; group < groups; group++) {
    holds.forEach(({ shape }, part) => {
      const count = shape[0]! / groups;
      visit(fileRow, count, part, group * count);
      fileRow += count;
    });
  }
}
