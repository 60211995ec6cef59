// Float64 tensors of the reference evaluation, with named dimensions of known size.
import { type Dimension, product, type Sizes, sizeOf } from './dimension.ts';

export interface Tensor {
  readonly names: readonly string[];
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** A tensor of zeros with these dimensions. */
export function zeros(dims: readonly Dimension[], sizes: Sizes): Tensor {
  const shape = dims.map(dim => sizeOf(dim, sizes));
  return { names: dims.map(dim => dim.name), shape, data: new Float64Array(product(shape)) };
}

/** Row-major strides. */
export function strides(shape: readonly number[]): number[] {
  const result = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--) result[axis] = result[axis + 1]! * shape[axis + 1]!;
  return result;
}

/** For each of `names`, how far one step along it moves in `tensor`: 0 where the tensor lacks the dimension. */
export function stridesAlong(tensor: Tensor, names: readonly string[]): number[] {
  const own = strides(tensor.shape);
  return names.map(name => {
    const axis = tensor.names.indexOf(name);
    return axis < 0 ? 0 : own[axis]!;
  });
}

/** Calls `visit` with each position of `shape`, in row-major order. The array is reused. */
export function forEachIndex(shape: readonly number[], visit: (index: number[], linear: number) => void): void {
  const index = shape.map(() => 0);
  const count = product(shape);
  for (let linear = 0; linear < count; linear++) {
    visit(index, linear);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++index[axis]! < shape[axis]!) break;
      index[axis] = 0;
    }
  }
}

/** The place of `index` under `steps`. */
export function dot(index: readonly number[], steps: readonly number[]): number {
  let sum = 0;
  for (let axis = 0; axis < index.length; axis++) sum += index[axis]! * steps[axis]!;
  return sum;
}
