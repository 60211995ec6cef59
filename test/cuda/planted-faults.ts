// Faults as the kernels of templates/cuda could have them, each a change of a few words, and what the emulator or a wrong
// result says of it. On a GPU most go unnoticed until a result is wrong, now and then.

export interface PlantedFault {
  /** What is wrong with it. */
  readonly title: string;
  /** The file of templates/cuda that gets it. */
  readonly file: string;
  /** Words that the file has once, and what it has in their place. */
  readonly words: string;
  readonly become: string;
  /** What is said of it. */
  readonly caught: RegExp;
}

const wrongResult = /relative error|: output |: log-sum-exp |: query |: key |: value /;
const noBarrier = /with no barrier in between/;
const noFence = /its fence_async is missing/;
const unwritten = /which nobody has written/;
const tooEarly = /(before|without) grid_dependency_wait/;
const tooManyArrivals = /arrivals of this phase have come to/;

const product = 'product_sm90.h';
const finish = 'product_sm90_finish.h';
/** Products on Hopper GPUs. */
export const inHopperProducts: readonly PlantedFault[] = [
  {
    title: 'who has TMA bring operands does not wait for earlier launches',
    file: product,
    words: 'grid_dependency_wait();',
    become: 'if (threadIdx.x > 0) grid_dependency_wait();',
    caught: /TMA reads global memory before grid_dependency_wait/,
  },
  {
    title: 'a stage is released while the wgmmas of it are under way',
    file: product,
    words: 'wgmma_wait<1>();',
    become: '',
    caught: noBarrier,
  },
  {
    title: 'who multiplies does not wait for a stage to be full',
    file: product,
    words: 'mbarrier_wait(stages.full(), stages.parity);',
    become: '',
    caught: unwritten,
  },
  {
    title: 'who copies does not wait for a stage to be empty',
    file: product,
    words: 'mbarrier_wait(stages.empty(), stages.parity ^ 1);\n      mbarrier_arrive_expect',
    become: 'mbarrier_arrive_expect',
    caught: tooManyArrivals,
  },
  {
    title: 'a left operand that is MN-major is gone along as if it were K-major',
    file: product,
    words: 'left_step = Left::transposed ? 128 : 2',
    become: 'left_step = 2',
    caught: /starts in the middle of a chunk/,
  },
  {
    title: 'the leading dimension of a right operand that is MN-major is that of one that is K-major',
    file: product,
    words: 'wgmma_descriptor(stages.right(), Shape::box_bytes, 1024)',
    become: 'wgmma_descriptor(stages.right(), 16, 1024)',
    caught: wrongResult,
  },
  {
    title: 'fewer bytes are expected than are copied',
    file: product,
    words: 'mbarrier_arrive_expect(stages.full(), Shape::stage_bytes);',
    become: 'mbarrier_arrive_expect(stages.full(), Shape::left_boxes * Shape::box_bytes);',
    caught: unwritten,
  },
  {
    title: 'a stage is empty when the warpgroups of one block of the cluster say so',
    file: product,
    words: '2 * Shape::cluster);',
    become: '2);',
    caught: tooManyArrivals,
  },
  {
    title: 'the result is left without the swizzle that TMA undoes',
    file: finish,
    words: '((n ^ row % 8) << 4)',
    become: '(n << 4)',
    caught: wrongResult,
  },
  {
    title: 'the rows of stmatrix are given by the wrong lanes',
    file: finish,
    words: 'const int row = first_row + lane % 16;',
    become: 'const int row = first_row + lane / 2;',
    caught: noBarrier,
  },
  {
    title: 'TMA stores what was written without a fence for it',
    file: product,
    words: 'fence_async();\n        barrier_sync(1 + warpgroup, 128);\n        if (first) {',
    become: 'barrier_sync(1 + warpgroup, 128);\n        if (first) {',
    caught: noFence,
  },
  {
    title: 'TMA brings to a slot what it has not yet stored from there',
    file: product,
    words: 'bulk_wait_read<0>();\n            bring<',
    become: 'bring<',
    caught: noBarrier,
  },
  {
    title: 'sums are finished before the last wgmmas are',
    file: product,
    words: 'wgmma_wait<0>();',
    become: '',
    caught: noBarrier,
  },
];

const statistics = 'statistics.h';
/** What norms ask of the rows that products make on Hopper GPUs. */
export const inHopperStatistics: readonly PlantedFault[] = [
  {
    title: 'what is left from boxes that all slots share is written while TMA stores from there',
    file: product,
    words: 'if constexpr (Slots::apart > 0) barrier_sync(1 + warpgroup, 128);',
    become: '',
    caught: noBarrier,
  },
  {
    title: 'all tiles of a row leave their parts at one place',
    file: statistics,
    words: ' + at.column / tile_columns)',
    become: ')',
    caught: wrongResult,
  },
  {
    title: 'the last tile of a row counts as if it were as wide as the others',
    file: statistics,
    words: 'min(tile_columns, columns - column)',
    become: 'tile_columns',
    caught: wrongResult,
  },
  {
    title: 'what lies beyond the columns is taken too',
    file: statistics,
    words: 'if (inside) of_row.take',
    become: 'if (inside || !inside) of_row.take',
    caught: wrongResult,
  },
  {
    title: 'distances of other threads are taken from where their own are',
    file: statistics,
    words: 'const float shift = other.first - first;',
    become: 'const float shift = 0.0f;',
    caught: wrongResult,
  },
];

const gathered = 'grouped_sm90.h';
/** Products of experts on Hopper GPUs, whose rows are gathered. */
export const inHopperExperts: readonly PlantedFault[] = [
  {
    title: 'tiles are counted before the launch that sorts slots has ended',
    file: gathered,
    words:
      'malc_begin_jobs<Shape, Gatherer>(right.map);\n  const int tiles = malc_tiles_of_all<Experts>(slots.bounds, rows, across);',
    become:
      'const int tiles = malc_tiles_of_all<Experts>(slots.bounds, rows, across);\n  malc_begin_jobs<Shape, Gatherer>(right.map);',
    caught: tooEarly,
  },
  {
    title: 'wgmma reads what cp.async wrote without a fence for it',
    file: gathered,
    words: 'fence_async();\n    __syncwarp();',
    become: '__syncwarp();',
    caught: /asynchronously, which .* wrote with ordinary instructions/,
  },
  {
    title: 'a stage is said to be full while it is copied',
    file: gathered,
    words: 'cp_async_wait<ahead>();',
    become: '',
    caught: /is still copying/,
  },
  {
    title: 'who gathers does not wait for a stage to be empty',
    file: gathered,
    words: 'mbarrier_wait(stages.empty(), stages.parity ^ 1);\n      if (threadIdx.x == 0) load',
    become: 'if (threadIdx.x == 0) load',
    caught: tooManyArrivals,
  },
];

const attention = 'attention_sm90.h';
/** Attention on Hopper GPUs, forward. */
export const inHopperAttention: readonly PlantedFault[] = [
  {
    title: 'nobody waits for earlier launches',
    file: attention,
    words: 'grid_dependency_wait();',
    become: '',
    caught: tooEarly,
  },
  {
    title: 'TMA stores what was written without a fence for it',
    file: attention,
    words: 'fence_async(); // by every writer',
    become: '// by every writer',
    caught: noFence,
  },
  {
    title: 'the kernel ends while TMA reads its shared memory',
    file: 'attention_sm90_forward.h',
    words: 'bulk_wait_read<0>();\n      }\n      bulk_wait<0>();',
    become: '}',
    caught: /bulk_wait is missing/,
  },
  {
    title: 'a warpgroup never passes its turn on',
    file: 'attention_sm90_forward.h',
    words: 'barrier_arrive(next_turn, 256);\n      wgmma_wait<1>();',
    become: 'wgmma_wait<1>();',
    caught: /deadlock/,
  },
  {
    title: 'weights are overwritten while the wgmmas with them are under way',
    file: 'attention_sm90_forward.h',
    words: 'wgmma_wait<0>();\n      attention_release_sm90(memory.values_empty[before]);',
    become: 'attention_release_sm90(memory.values_empty[before]);',
    caught: noBarrier,
  },
  {
    title: 'both rows of a thread are rescaled by the change of one',
    file: 'attention_sm90_forward.h',
    words: 'sum[e] *= change[e / 2 % 2];',
    become: 'sum[e] *= change[0];',
    caught: wrongResult,
  },
];

const gradient = 'attention_sm90_gradient.h';
/** And backward. */
export const inHopperGradients: readonly PlantedFault[] = [
  {
    title: 'the sums of dQ are begun before earlier launches have ended',
    file: 'launch.h',
    words: 'grid_dependency_launch();\n  grid_dependency_wait();',
    become: '',
    caught: tooEarly,
  },
  {
    title: 'weights are read while the wgmmas with them are under way',
    file: gradient,
    words:
      'wgmma_copy(by_product, weights);\n      wgmma_fence();\n      attention_accumulate_sm90(value_sum, weights, memory.outputs[stage]);',
    become:
      'wgmma_fence();\n      attention_accumulate_sm90(value_sum, weights, memory.outputs[stage]);\n      wgmma_copy(by_product, weights);',
    caught: wrongResult,
  },
  {
    title: 'scores are read before both warpgroups have written theirs',
    file: gradient,
    words: 'barrier_sync(1, 128 * groups);\n      float part',
    become: 'float part',
    caught: noBarrier,
  },
  {
    title: 'queries are released while the wgmmas of them are under way',
    file: gradient,
    words: 'wgmma_wait<0>();\n      attention_release_sm90',
    become: 'attention_release_sm90',
    caught: noBarrier,
  },
  {
    title: 'a part of the sums is overwritten while TMA adds it up',
    file: gradient,
    words: 'mbarrier_wait(part_empty, step % 2 ^ 1);',
    become: '',
    caught: noBarrier,
  },
  {
    title: 'statistics of queries are read before those who bring them have arrived',
    file: gradient,
    words: 'memory.empty, 1 + 32, 4 * groups);',
    become: 'memory.empty, 1, 4 * groups);',
    caught: tooManyArrivals,
  },
  {
    title: 'who adds to the sums of a block of queries does not pass the turn on',
    file: gradient,
    words: 'turn_pass(sums.turn(index));',
    become: '',
    caught: /waits for turn 1 where turn 0 is/,
  },
  {
    title: 'dQ is left where others of the warpgroup still read the sum',
    file: gradient,
    words: 'barrier_sync(2 + group, 128); // all',
    become: '// all',
    caught: noBarrier,
  },
];

const tile = 'product_bf16.h';
/** Products on all GPUs. */
export const inProducts: readonly PlantedFault[] = [
  {
    title: 'a slice is multiplied while it is copied',
    file: tile,
    words: 'cp_async_wait<Stages - 2>();',
    become: 'cp_async_wait<Stages - 1>();',
    caught: /is still copying/,
  },
  {
    title: 'a slice is multiplied before all threads have their copies of it',
    file: tile,
    words: 'cp_async_wait<Stages - 2>();\n      __syncthreads();',
    become: 'cp_async_wait<Stages - 2>();',
    caught: noBarrier,
  },
  {
    title: 'the lanes of ldmatrix give the rows of the right operand in the order of the left one',
    file: tile,
    words: 'RightSlice::offset(column + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2)',
    become: 'RightSlice::offset(column + lane % 16, k / 8 + lane / 16)',
    caught: wrongResult,
  },
];
