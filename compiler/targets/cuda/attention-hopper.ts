// Attention on Hopper GPUs: which shapes templates/cuda/attention_sm90.h takes, and how its kernels are launched.
import type { AttentionSizes } from '../../emission/attention-kernel.ts';
import type { AttentionShape } from '../../ops/attention.ts';
import type { HopperLaunch, HopperSource, Launch, TensorMap } from './kernel-source.ts';

/** The widest vectors and values whose sums fit in registers: attention_sm90 of templates/cuda/attention_sm90.h. */
const widest = { vector: 192, value: 128 };

/**
 * Whether a shape's kernels have a form for Hopper GPUs. All vectors must be stored as bfloat16, which says that products
 * are of it too, and be multiples of 16 bytes, as TMA has it.
 * @param storage the C++ types of all vectors
 */
export function onHopper(
  { headDim, valueWidth }: AttentionSizes,
  { value_dim: valueDim }: AttentionShape,
  storage: Readonly<Record<string, string>>,
): boolean {
  return (
    Object.values(storage).every(type => type === '__nv_bfloat16') &&
    headDim % 8 === 0 &&
    headDim <= widest.vector &&
    valueDim % 8 === 0 &&
    valueDim <= widest.value &&
    valueWidth === valueDim
  );
}

/** The forward launch of a shape that is `onHopper`. */
export function forwardOnHopper(name: string, sizes: AttentionSizes, shape: AttentionShape): HopperSource {
  const frame = `${name}_sm90_frame`;
  const { queries, keys, values, outputs } = vectorsOf(sizes, shape);
  const passing = `${frame}::forward_columns`;
  return {
    maps: [
      mapOf('query_map', 'query', queries, own),
      mapOf('key_map', 'key', keys, passing),
      mapOf('value_map', 'value', values, passing),
      mapOf('output_map', 'output', outputs, own),
    ],
    launches: [
      launch(`${name}_sm90`, frame, 'forward', sizes.heads, ['query_map', 'key_map', 'value_map', 'output_map']),
    ],
  };
}

/**
 * The backward launches of a shape that is `onHopper`.
 * @param further those after them, as on every GPU
 */
export function backwardOnHopper(
  name: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  further: readonly Launch[],
): HopperSource {
  const frame = `${name}_sm90_frame`;
  const { queries, keys, values, outputs } = vectorsOf(sizes, shape);
  const [rows, columns] = [`${frame}::key_gradient_columns`, `${frame}::query_gradient_columns`];
  const byKey = ['query_map', 'output_gradient_map', 'own_key_map', 'own_value_map'];
  const byQuery = ['own_query_map', 'own_output_gradient_map', 'key_map', 'value_map', 'query_gradient_map'];
  return {
    maps: [
      mapOf('query_map', 'query', queries, rows),
      mapOf('output_gradient_map', 'output_gradient', outputs, rows),
      mapOf('own_key_map', 'key', keys, own),
      mapOf('own_value_map', 'value', values, own),
      mapOf('key_gradient_map', 'key_gradient', keys, own),
      mapOf('value_gradient_map', 'value_gradient', values, own),
      mapOf('own_query_map', 'query', queries, own),
      mapOf('own_output_gradient_map', 'output_gradient', outputs, own),
      mapOf('key_map', 'key', keys, columns),
      mapOf('value_map', 'value', values, columns),
      mapOf('query_gradient_map', 'query_gradient', queries, own),
    ],
    launches: [
      launch(`${name}_sm90`, frame, 'key_gradient', sizes.kvHeads, [
        ...byKey,
        'key_gradient_map',
        'value_gradient_map',
      ]),
      launch(`${name}_query_sm90`, frame, 'query_gradient', sizes.heads, byQuery),
      ...further.map(each => ({ ...each, maps: [] })),
    ],
  };
}

/** Vectors of a warpgroup. */
const own = 'attention_sm90_own';

interface Vectors {
  readonly heads: number;
  readonly width: number;
}

const vectorsOf = ({ heads, kvHeads, headDim, valueWidth }: AttentionSizes, { value_dim }: AttentionShape) => ({
  queries: { heads, width: headDim },
  keys: { heads: kvHeads, width: headDim },
  values: { heads: kvHeads, width: valueWidth },
  outputs: { heads, width: value_dim },
});

/** Vectors [batch][time][heads][width], in boxes of 64 elements of `rows` vectors of a head. */
const mapOf = (name: string, base: string, { heads, width }: Vectors, rows: string): TensorMap => ({
  name,
  base,
  sizes: [`${width}`, 'time', `${heads}`, 'batch'],
  strides: [`${heads * width}`, `${width}`, `time * ${heads * width}`],
  box: { columns: 64, rows },
});

/** A block owns vectors of one of `heads`. */
const launch = (
  kernel: string,
  frame: string,
  pass: 'forward' | 'query_gradient' | 'key_gradient',
  heads: number,
  maps: readonly string[],
): HopperLaunch => ({
  kernel,
  grid: `${frame}::${pass}::grid(batch, time, ${heads})`,
  block: `${frame}::${pass}::threads`,
  shared: `${frame}::${pass}_shared`,
  maps,
});
