// Values between the tensors of a file and the parameters that they hold, both ways. Values are only moved, never changed.
import type { NativeFloats } from '../native.ts';
import type { FileTensor, Part } from './layout.ts';

/** Copies out of the tensor's values what it holds of each parameter for which `targets` gives an array of its size. */
export function unpack(
  tensor: FileTensor,
  values: Float32Array,
  targets: (parameter: string) => Float32Array | null,
): void {
  for (const { part, inParameter, inFile, step, length } of runsOf(tensor)) {
    const target = targets(part.name);
    if (!target) continue;
    if (step === 1) target.set(values.subarray(inFile, inFile + length), inParameter);
    else for (let i = 0; i < length; i++) target[inParameter + i] = values[inFile + i * step]!;
  }
}

/** The tensor's values out of those of its parameters. */
export function pack(tensor: FileTensor, sources: (parameter: string) => NativeFloats): Float32Array {
  const values = new Float32Array(tensor.shape.reduce((a, b) => a * b, 1));
  for (const { part, inParameter, inFile, step, length } of runsOf(tensor)) {
    const source = sources(part.name);
    if (step === 1) values.set(source.slice(inParameter, inParameter + length), inFile);
    else for (let i = 0; i < length; i++) values[inFile + i * step] = source[inParameter + i]!;
  }
  return values;
}

/** Elements that are neighbours in a parameter, and `step` apart in the file. */
interface Run {
  readonly part: Part;
  readonly inParameter: number;
  readonly inFile: number;
  readonly step: number;
  readonly length: number;
}

function* runsOf({ holds, groups, padding, transposed }: FileTensor): Generator<Run> {
  const { columns } = holds[0]!;
  const rows = holds.reduce((sum, part) => sum + part.rows, padding) / groups;
  for (let group = 0; group < groups; group++) {
    let row = 0;
    for (const part of holds) {
      const count = part.rows / groups;
      const width = part.shape.length > 1 ? part.shape.at(-1)! : 1;
      // Whole rows that follow one another are one run.
      const together = !transposed && width === columns ? count : 1;
      for (let r = 0; r < count; r += together) {
        yield {
          part,
          inParameter: (part.row + group * count + r) * width + part.column,
          inFile: group * rows * columns + (transposed ? row + r : (row + r) * columns),
          step: transposed ? rows : 1,
          length: together * columns,
        };
      }
      row += count;
    }
  }
}
