// Attention on Hopper GPUs: which shapes templates/cuda/attention_sm90.h takes, and how its kernels are launched.
import type { AttentionSizes } from '../../emission/attention-kernel.ts';
import type { AttentionShape } from '../../ops/attention.ts';
import type { Extent } from '../../plan/extent.ts';
import { renderTemplate } from '../../template.ts';
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
    mapOf('query', queries, `${frame}::box`),
    mapOf('key', keys, `${frame}::box`),
    mapOf('value', values, `${frame}::box`),
    mapOf('output', outputs, `${frame}::box`),
  ];
  return {
    maps,
    launches: [
      {
        kernel: `${name}_sm90`,
        grid: `${frame}::forward_grid(batch, time)`,
        block: `${frame}::forward::threads`,
        shared: `${frame}::forward_shared`,
        overlaps: true,
        maps: maps.map(({ name }) => name),
      },
    ],
  };
}

/**
 * How the gradient of queries is summed over the blocks of keys, in which the others are computed:
 * - `in-turn`: one kernel of five products; each block of keys adds its part to float32 sums in memory, the last keys'
 *   first. The same bits in any order of blocks.
 * - `as-they-come`: the same, but nobody waits, and the last bits differ from run to run.
 * - `second-pass`: a kernel of its own computes scores again, by blocks of queries: seven products in all. The same bits in
 *   any order too.
 */
export type QueryGradient = 'in-turn' | 'as-they-come' | 'second-pass';

const inWords: Readonly<Record<QueryGradient, string>> = {
  'in-turn': 'five products at once, dQ added up in turn',
  'as-they-come': 'five products at once, dQ added up as it comes',
  'second-pass': 'seven products, dQ by a pass of its own',
};

/** How a backward pass runs on Hopper GPUs. */
export interface AttentionSchedule {
  readonly queryGradient: QueryGradient;
}

/** A schedule in words. */
export const describeAttentionSchedule = ({ queryGradient }: AttentionSchedule): string => inWords[queryGradient];

/**
 * The schedules that serve a backward pass, the one of the least cost first. They give the same bits whenever it runs, but
 * for `as-they-come`, which is among them where any order will do.
 *
 * The cost is reckoned, not measured. For vectors of 64 elements, 128 queries by 128 keys take 512 cycles of tensor cores for
 * each product and 1024 of exponentials. The one kernel has 2560 and 1024 of them, and sends 32 KB to sums in the second-level
 * cache, at 46 bytes a cycle 700 that run beside; two kernels have 3584 and 2048. Sums cost 4 bytes of memory for each element
 * of a query beside, as far as they leave that cache: for 12 heads and 65536 tokens 0.05 ms at 4.3 TB/s. The products saved are
 * 0.15 ms at 790 TFLOP/s in texts of 1024 tokens, and 0.56 ms in texts of 4096. With `as-they-come`, the zeros that sums begin
 * with and the launch that rounds them cost 4 bytes more each.
 */
export function attentionSchedules(
  { headDim }: AttentionSizes,
  { value_dim: valueDim, causal, score, mask, dropout, extras }: AttentionShape,
  anyOrder = false,
): readonly [AttentionSchedule, ...AttentionSchedule[]] {
  const chunks = chunksOf(headDim);
  // Sums of wider vectors, or formulas, do not fit in registers beside scores and their gradients.
  const plain = score === null && mask === null && dropout === 0;
  // Turns are counted from the last key that queries see, which must be told by their position.
  const isCounted = causal || !extras.includes('documents');
  const fits = chunks <= 2 && chunks === chunksOf(valueDim) && plain && isCounted;
  const twice: AttentionSchedule = { queryGradient: 'second-pass' };
  if (!fits) return [twice];
  return [{ queryGradient: 'in-turn' }, twice, ...(anyOrder ? [{ queryGradient: 'as-they-come' } as const] : [])];
}

/** What a backward pass has on Hopper GPUs. */
export interface HopperBackward {
  /** Its kernels. */
  readonly text: string;
  readonly hopper: HopperSource;
  /** What they need of memory, in floats, and what for. */
  readonly workspace: { readonly extents: readonly Extent[]; readonly purpose: string } | null;
}

/**
 * The backward pass of a shape that is `onHopper`.
 * @param fields what its template is rendered with, beside what is said here
 * @param further launches after those, as on every GPU
 */
export function backwardOnHopper(
  name: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  { queryGradient }: AttentionSchedule,
  fields: object,
  further: readonly Launch[],
): HopperBackward {
  const frame = `${name}_sm90_frame`;
  const { queries, keys, values, outputs } = vectorsOf(sizes, shape);
  const isOnce = queryGradient !== 'second-pass';
  const map = (base: string, vectors: Vectors) => mapOf(base, vectors, isOnce ? '64' : `${frame}::box`);
  const given = [map('query', queries), map('key', keys), map('value', values), map('output_gradient', outputs)];
  const byKey = [map('key_gradient', keys), map('value_gradient', values)];
  const after = further.map(each => ({ ...each, maps: [] }));
  if (!isOnce) {
    const byQuery = [map('query_gradient', queries)];
    return {
      text: renderTemplate('cuda/attention_backward_twice_sm90.cu.hbs', fields),
      hopper: {
        maps: [...given, ...byKey, ...byQuery],
        launches: [
          launch(`${name}_sm90`, frame, 'key_gradient', sizes.kvHeads, [...given, ...byKey]),
          launch(`${name}_query_sm90`, frame, 'query_gradient', sizes.heads, [...given, ...byQuery]),
          ...after,
        ],
      },
      workspace: null,
    };
  }
  const maps = [...given, map('query_gradient', queries), ...byKey];
  const inTurn = queryGradient === 'in-turn';
  const pointwise = { block: '256', shared: '0', overlaps: true, maps: [] };
  const begin = { kernel: `${name}_begin_sm90`, grid: `${frame}::begin_grid(batch, time)`, ...pointwise };
  const round = { kernel: `${name}_round_sm90`, grid: `${frame}::round_grid(batch, time)`, ...pointwise };
  return {
    text: renderTemplate('cuda/attention_backward_once_sm90.cu.hbs', {
      ...fields,
      in_turn: inTurn,
      order: inTurn ? 'in turn' : 'as it comes',
    }),
    hopper: {
      maps,
      launches: [
        begin,
        {
          kernel: `${name}_sm90`,
          grid: `${frame}::grid(batch, time)`,
          block: `${frame}::block::threads`,
          shared: `${frame}::shared`,
          overlaps: true,
          maps: maps.map(({ name }) => name),
        },
        ...(inTurn ? [] : [round]),
        ...after,
      ],
    },
    workspace: {
      extents: querySums(sizes),
      purpose: 'sums of query_gradient, and turns, as attention_query_sums has them',
    },
  };
}

const chunksOf = (width: number): number => Math.ceil(width / 64);

/** What attention_query_sums of templates/cuda/attention_sm90_sums.h takes. */
function querySums({ heads, headDim }: AttentionSizes): Extent[] {
  const chunks = chunksOf(headDim);
  const columns = 128 / chunks;
  const width = chunks === 1 ? Math.ceil(headDim / 32) * 32 : 128;
  return [
    { runtime: ['batch', 'time'], count: heads * width + Math.ceil(heads / columns) },
    // The last block of a text's queries may be filled by one.
    { runtime: ['batch'], count: heads * (columns * width + 1) },
    { runtime: [], count: 1 },
  ];
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
const mapOf = (base: string, { heads, width }: Vectors, rows: string): TensorMap => ({
  name: `${base}_map`,
  base,
  sizes: [`${width}`, 'time', `${heads}`, 'batch'],
  strides: [`${heads * width}`, `${width}`, `time * ${heads * width}`],
  box: { columns: 64, rows },
});

/** Blocks own vectors of one of `heads`. */
const launch = (
  kernel: string,
  frame: string,
  pass: 'query_gradient' | 'key_gradient',
  heads: number,
  maps: readonly TensorMap[],
): HopperLaunch => ({
  kernel,
  grid: `${frame}::${pass}::grid(batch, time, ${heads})`,
  block: `${frame}::${pass}::threads`,
  shared: `${frame}::${pass}_shared`,
  overlaps: true,
  maps: maps.map(({ name }) => name),
});
