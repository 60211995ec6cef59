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
  const maps = [
    mapOf('query', queries, frame),
    mapOf('key', keys, frame),
    mapOf('value', values, frame),
    mapOf('output', outputs, frame),
  ];
  return { maps, launches: [launch(`${name}_sm90`, frame, 'forward', sizes.heads, maps)] };
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
  const given = [
    mapOf('query', queries, frame),
    mapOf('key', keys, frame),
    mapOf('value', values, frame),
    mapOf('output_gradient', outputs, frame),
  ];
  const byKey = [mapOf('key_gradient', keys, frame), mapOf('value_gradient', values, frame)];
  const byQuery = [mapOf('query_gradient', queries, frame)];
  return {
    maps: [...given, ...byKey, ...byQuery],
    launches: [
      launch(`${name}_sm90`, frame, 'key_gradient', sizes.kvHeads, [...given, ...byKey]),
      launch(`${name}_query_sm90`, frame, 'query_gradient', sizes.heads, [...given, ...byQuery]),
      ...further.map(each => ({ ...each, maps: [] })),
    ],
  };
}

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

/** Vectors [batch][time][heads][width], in boxes of 64 elements of some vectors of a head. */
const mapOf = (base: string, { heads, width }: Vectors, frame: string): TensorMap => ({
  name: `${base}_map`,
  base,
  sizes: [`${width}`, 'time', `${heads}`, 'batch'],
  strides: [`${heads * width}`, `${width}`, `time * ${heads * width}`],
  box: { columns: 64, rows: `${frame}::box` },
});

/** Blocks own vectors of one of `heads`. */
const launch = (
  kernel: string,
  frame: string,
  pass: 'forward' | 'query_gradient' | 'key_gradient',
  heads: number,
  maps: readonly TensorMap[],
): HopperLaunch => ({
  kernel,
  grid: `${frame}::${pass}::grid(batch, time, ${heads})`,
  block: `${frame}::${pass}::threads`,
  shared: `${frame}::${pass}_shared`,
  maps: maps.map(({ name }) => name),
});
