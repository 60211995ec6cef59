// random: uniform numbers in [0, 1), each a function of the step's key and its own place alone: dropout.
import { batch, type Dimension, dimension, showDimensions } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import { forEachIndex, zeros } from '../graph/tensor.ts';
import { uniform } from '../scalar/philox.ts';

export interface RandomAttributes {
  /** The batch first: an element's number is its number within its sequence. */
  readonly dimensions: readonly Dimension[];
  /** Which of the model's places draws: no two of a block share one. */
  readonly site: number;
}

const time = dimension('time', 3);
const hidden = dimension('hidden', 5);

/** What `noise`, its input, holds: two words of key, the step's first sequence of this call, the layer. */
export const noiseWords: Dimension = dimension('noise', 4);

export const random: Primitive<RandomAttributes> = {
  name: 'random',
  doc: 'Uniform numbers in [0, 1), the same for the same key, sequence and place.',
  kernel: 'inline',
  type([noise], { dimensions }) {
    if (noise!.dtype !== 'i32' || noise!.dimensions[0]?.size !== noiseWords.size || dimensions[0]?.name !== batch.name)
      throw new Error(`random: ${showDimensions(dimensions)} by ${noise!.dtype}${showDimensions(noise!.dimensions)}`);
    return { dimensions, dtype: 'f32' };
  },
  gradient: () => [null],
  reference([noise], { site }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const each = output.data.length / output.shape[0]!;
    forEachIndex(output.shape, ([sequence], linear) => {
      const element = linear % each;
      output.data[linear] = uniform(noise!.data, sequence!, site, element % 2 ** 32, Math.floor(element / 2 ** 32));
    });
    return output;
  },
  cases: [
    {
      inputs: [{ dimensions: [noiseWords], dtype: 'i32', range: [-100, 100] }],
      attributes: { dimensions: [batch, time, hidden], site: 3 },
      sizes: { batch: 2 },
    },
  ],
};
