// A primitive's case, made ready: its inputs as a graph's and as random tensors, and its node.
import { Builder } from '../compiler/graph/builder.ts';
import type { Node, Primitive, PrimitiveCase } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { randomNumbers } from './random-numbers.ts';

/** Primitives of decoding, of backward passes and of choices, which are not differentiated. */
const withoutGradient: ReadonlySet<string> = new Set([
  'append',
  'recent',
  'contract-each',
  'top-k',
  'attention-gradient',
  'scan-gradient',
  'convolution-gradient',
  'grouped-gradient',
]);

/** Whether the primitive has a gradient where it is as the case says. */
export const isDifferentiated = (primitive: Primitive, given: PrimitiveCase<unknown>): boolean =>
  !withoutGradient.has(primitive.name) && !given.decoding;

export interface PreparedCase {
  readonly builder: Builder;
  /** Goes on where the inputs' numbers end. */
  readonly random: () => number;
  readonly sizes: Readonly<Record<string, number>>;
  readonly inputs: readonly Node[];
  /** By label, `input 0` and so on. The numbers are float32 ones. */
  readonly values: Map<string, Tensor>;
  readonly node: Node;
}

/** Draws the inputs from the case's ranges: integers with both ends, other numbers within. */
export function prepareCase(primitive: Primitive, given: PrimitiveCase<unknown>, seed: number): PreparedCase {
  const builder = new Builder();
  const random = randomNumbers(seed);
  const sizes = given.sizes ?? {};
  const inputs = given.inputs.map((type, n) => builder.input(`input ${n}`, type.dimensions, type.dtype));
  const values = new Map<string, Tensor>();
  given.inputs.forEach((type, n) => {
    const [low, high] = type.range ?? [-1, 1];
    const tensor = zeros(type.dimensions, sizes);
    if (type.values) tensor.data.set(type.values);
    else
      for (let i = 0; i < tensor.data.length; i++)
        tensor.data[i] =
          type.dtype === 'i32'
            ? low + Math.floor(random() * (high - low + 1))
            : Math.fround(low + (high - low) * random());
    values.set(`input ${n}`, tensor);
  });
  const node = builder.apply(primitive, inputs, given.attributes);
  return { builder, random, sizes, inputs, values, node };
}
