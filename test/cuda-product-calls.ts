// Kernels of products, as those of test/cuda-product-cases.ts, as programs of their own: emitted, called with small numbers, and held against
// the float64 evaluation of their graphs.
import * as assert from 'uvu/assert';
import { Names, withName } from '../compiler/emission/writer.ts';
import { product as productOf, type Sizes, sizeOf } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import type { Node } from '../compiler/graph/graph.ts';
import type { Tensor } from '../compiler/graph/tensor.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import type { Kernel } from '../compiler/kernels/kernel.ts';
import { storedDimensions } from '../compiler/plan/storage.ts';
import { emitGrouped, groupedSchedules } from '../compiler/targets/cuda/grouped.ts';
import type { HopperSchedule } from '../compiler/targets/cuda/hopper-schedule.ts';
import type { CudaProductType, KernelSource, Surroundings } from '../compiler/targets/cuda/kernel-source.ts';
import { launcherName } from '../compiler/targets/cuda/launcher.ts';
import { emitMatmul, hopperSchedules } from '../compiler/targets/cuda/matmul.ts';
import { type QueuedKernel, queuedKernel } from '../compiler/targets/cuda/queued-kernel.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import type { ProductCase } from './cuda-product-cases.ts';
import { randomNumbers } from './random-numbers.ts';

/** A case as it is compiled for one dtype. */
export interface EmittedCase {
  readonly case: ProductCase;
  readonly dtype: CudaProductType;
  readonly name: string;
  readonly kernel: Kernel;
  readonly source: KernelSource;
  readonly queued: QueuedKernel;
  readonly isNarrow: (node: Node) => boolean;
}

/** How a case is emitted for Hopper GPUs. */
export interface Ways {
  /** Which schedules serve, the best of them, and how the function's name ends then; the best of all where nothing is said. */
  readonly schedules?: { readonly suffix: string; takes(schedule: HopperSchedule): boolean };
  /** Whether cuBLASLt multiplies, where the program finds it. */
  readonly library?: boolean;
}

export function emitCase(
  each: ProductCase,
  dtype: CudaProductType,
  { schedules, library = false }: Ways = {},
): EmittedCase {
  const { kernels } = fuse(each.graph, { fuse: true, totals: true, statistics: true });
  assert.is(kernels.length, 1, `${each.name} is one kernel`);
  const [kernel] = kernels as [Kernel];
  const isNarrow = (node: Node) => dtype === 'bf16' && each.narrow.includes(node.label);
  const storageOf = (node: Node) => (isNarrow(node) ? 'bf16' : 'f32');
  const isGradient = (node: Node) => node.label.startsWith('gradient.');
  const hasCopy = (node: Node) => dtype === 'bf16' && node.primitive === null && node.label.endsWith('weight');
  const names = new Names();
  const named = new Map([...kernel.inputs, ...kernel.outputs, ...kernel.members].map(node => [node, node.label]));
  for (const node of named.keys()) named.set(node, names.unique(node.label));
  const surroundings: Surroundings = {
    nameOf: node => named.get(node) ?? node.label,
    accumulates: isGradient,
    isGradient,
    comment: [each.name],
    dtype,
    hasCopy,
    storageOf,
  };
  const { emit, ranked } = emitterOf(kernel, library);
  const taken = schedules && ranked(surroundings).find(({ schedule }) => schedules.takes(schedule))?.schedule;
  const source = emit(surroundings, taken);
  const name = `${each.name}_${dtype}${taken ? `_${schedules!.suffix}` : ''}`;
  return { case: each, dtype, name, kernel, source, queued: queuedKernel(source, storageOf), isNarrow };
}

/** What emits a kernel of products, and ranks its schedules on Hopper GPUs. */
function emitterOf(kernel: Kernel, library: boolean) {
  if (kernel.kind === 'matmul')
    return {
      emit: (surroundings: Surroundings, schedule?: HopperSchedule) =>
        emitMatmul(kernel, surroundings, schedule, library),
      ranked: (surroundings: Surroundings) => hopperSchedules(kernel, surroundings),
    };
  if (kernel.kind === 'grouped' || kernel.kind === 'grouped-gradient')
    return {
      emit: (surroundings: Surroundings, schedule?: HopperSchedule) => emitGrouped(kernel, surroundings, schedule),
      ranked: (surroundings: Surroundings) => groupedSchedules(kernel, surroundings),
    };
  throw new Error(`${kernel.kind} is no product`);
}

/** A function that runs the kernel once: buffer n is `memory` from starts[n] to ends[n]. */
function runnerOf({ name, queued }: EmittedCase): string {
  let buffer = 0;
  const list = queued.arguments.map(argument => {
    if (argument.kind === 'input' || argument.kind === 'output' || argument.kind === 'copy')
      return `device.at(starts[${buffer++}])`;
    return argument.kind === 'size' ? argument.name : argument.kind;
  });
  const extents = queued.arguments.flatMap(argument => (argument.kind === 'workspace' ? argument.extents : []));
  const floats = extents.map(({ runtime, count }) => [...runtime, String(count)].join(' * ')).join(' + ') || '0';
  return `
extern "C" const char *run_${name}(unsigned char *memory, const int64_t *starts, const int64_t *ends,
                                   int64_t batch, int64_t time, bool adds) {
  (void)batch, (void)time, (void)adds;
  device_memory device(memory, starts, ends, ${buffer}, ${floats});
  float *const workspace = device.workspace;
  (void)workspace;
  device.error = ${launcherName(name)}(${['nullptr', ...list].join(', ')});
  return device.finish();
}
`;
}

const frame = `#include <string>
#include "launch.h"
#include "scalars.h"
#include "random.h"
#include "product_bf16.h"
#include "product_sm90.h"
#include "product_f32.h"
#include "totals.h"
#include "statistics.h"
#include "grouped_sm90.h"
#include "cublas.h"

/* An address, whatever is there. */
struct address {
  void *there;
  template <class T>
  operator T *() const { return static_cast<T *>(there); }
};

extern "C" bool on_hopper() { return malc_on_hopper(); }

/* The order in which threads run: any number has its own. A GPU's is never the same. */
extern "C" void schedule(uint32_t seed) {
#ifdef MALC_SIMT
  simt::schedule(seed);
#else
  (void)seed;
#endif
}

/* A copy of all buffers on the device; no kernel may touch what lies between them. */
struct device_memory {
  unsigned char *start = nullptr, *host;
  float *workspace = nullptr;
  int64_t bytes;
  cudaError_t error = cudaSuccess;
  device_memory(unsigned char *host, const int64_t *starts, const int64_t *ends, int count, int64_t floats)
      : host(host), bytes(starts[count]) {
    cudaMalloc(reinterpret_cast<void **>(&start), bytes);
    if (floats > 0) cudaMalloc(reinterpret_cast<void **>(&workspace), floats * 4);
    cudaMemcpy(start, host, bytes, cudaMemcpyHostToDevice);
    for (int n = 0; n < count; n++) malc_guard(start + ends[n], starts[n + 1] - ends[n]);
  }
  address at(int64_t offset) const { return {start + offset}; }
  const char *finish() {
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error == cudaSuccess) cudaMemcpy(host, start, bytes, cudaMemcpyDeviceToHost);
    cudaFree(start);
    if (workspace) cudaFree(workspace);
    if (error == cudaSuccess) return nullptr;
    static std::string report;
    report = cudaGetErrorString(error);
    cudaDeviceReset(); // the next call begins anew
    return report.c_str();
  }
};
`;

// One float32 as a number and as its bits.
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The bfloat16 that is nearest, ties to even. */
function rounded(value: number): number {
  float[0] = value;
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

/** Inputs: small numbers, as they are stored. */
function inputsOf({ case: { graph, integer }, isNarrow }: EmittedCase, sizes: Sizes): Map<string, Tensor> {
  const random = randomNumbers(11);
  const value = (node: Node) => {
    if (node.dtype === 'i32') return integer(random());
    const number = Math.fround(2 * random() - 1);
    return isNarrow(node) ? rounded(number) : number;
  };
  const tensor = (node: Node): Tensor => {
    const shape = node.dimensions.map(dim => sizeOf(dim, sizes));
    return {
      names: node.dimensions.map(dim => dim.name),
      shape,
      data: Float64Array.from({ length: productOf(shape) }, () => value(node)),
    };
  };
  return new Map(graph.inputs.map(node => [node.label, tensor(node)]));
}

/** Rows that lie `stride` apart, with what must make no difference between them. */
function padded(given: Float64Array, width: number, stride: number): Float64Array {
  const rows = given.length / width;
  const lying = new Float64Array(rows * stride).fill(Number.NaN);
  for (let row = 0; row < rows; row++) lying.set(given.subarray(row * width, (row + 1) * width), row * stride);
  return lying;
}

/** Runs a kernel; resolves to its outputs by label. Outputs begin as ones. */
function launch(
  each: EmittedCase,
  native: (...values: unknown[]) => unknown,
  inputs: ReadonlyMap<string, Tensor>,
  sizes: Sizes,
  adds: boolean,
) {
  const buffers = each.source.arguments.flatMap(argument => {
    if (argument.kind !== 'input' && argument.kind !== 'output' && argument.kind !== 'copy') return [];
    const { node } = argument;
    const length = productOf(node.dimensions.map(dim => sizeOf(dim, sizes)));
    const given = inputs.get(node.label)?.data ?? new Float64Array(length).fill(1);
    const isNarrow = argument.kind === 'copy' || each.isNarrow(node);
    const row = storedDimensions(node, each.isNarrow(node) ? 'bf16' : 'f32').at(-1)!.size;
    if (argument.kind === 'copy')
      return [{ node, given: padded(given, length / argument.copy.rows, argument.copy.stride), isNarrow }];
    return [{ node, given: row ? padded(given, node.dimensions.at(-1)!.size!, row) : given, isNarrow }];
  });
  const nodes = buffers.map(({ node }) => node);
  const lengths = buffers.map(({ given }) => given.length);
  const starts = [0];
  const ends = buffers.map(({ given, isNarrow }, n) => {
    const end = starts[n]! + given.length * (isNarrow ? 2 : 4);
    starts.push(Math.ceil(end / 64) * 64 + 64);
    return end;
  });
  const memory = new Uint8Array(starts.at(-1)!);
  buffers.forEach(({ node, given, isNarrow }, n) => {
    if (node.dtype === 'i32') new Int32Array(memory.buffer, starts[n], lengths[n]).set(given);
    else if (!isNarrow) new Float32Array(memory.buffer, starts[n], lengths[n]).set(given);
    else {
      const words = new Uint32Array(Float32Array.from(given, rounded).buffer);
      new Uint16Array(memory.buffer, starts[n], lengths[n]).set(words.map(word => word >>> 16));
    }
  });
  const places = [BigInt64Array.from(starts.map(BigInt)), BigInt64Array.from(ends.map(BigInt))];
  const error = native(memory, ...places, sizes.batch, sizes.time, adds);
  assert.is(error, null, `${each.name}: ${error}`);
  return new Map(
    each.kernel.outputs.map(node => {
      const n = nodes.indexOf(node);
      const narrow = () =>
        new Float32Array(
          Uint32Array.from(new Uint16Array(memory.buffer, starts[n], lengths[n]), half => half * 65536).buffer,
        );
      const values = each.isNarrow(node) ? narrow() : new Float32Array(memory.buffer, starts[n], lengths[n]);
      const width = node.dimensions.at(-1)!.size;
      if (width === null) return [node.label, values] as const;
      const stride = storedDimensions(node, each.isNarrow(node) ? 'bf16' : 'f32').at(-1)!.size!;
      return [node.label, values.filter((_, i) => i % stride < width)] as const;
    }),
  );
}

/** The source of a library of these cases, for openCases. */
export const libraryOf = (all: readonly EmittedCase[]): string =>
  [frame, ...all.map(each => `${withName(each.queued.text, each.name)}${runnerOf(each)}`)].join('\n');

const callOf = 'uint8_t *memory, int64_t *starts, int64_t *ends, int64_t batch, int64_t time, bool adds';

/**
 * Opens a library of cases; the function runs all calls of one, in an order of threads that a number stands for, and
 * checks the results.
 * @param onHopper whether it must be the kernels for Hopper GPUs that run
 * @param limit how far float32 results of bfloat16 products may be off, by their L2 norm: less where no operand is rounded
 */
export function openCases(
  library: string,
  all: readonly EmittedCase[],
  { onHopper = false, limit = 6e-3 } = {},
): (each: EmittedCase, schedule?: number) => void {
  const native = loadLibrary(
    library,
    Object.fromEntries([
      ...all.map(({ name }) => [`run_${name}`, `const char *run_${name}(${callOf})`]),
      ['on_hopper', 'bool on_hopper()'],
      ['schedule', 'void schedule(uint32_t seed)'],
    ]),
  );
  if (onHopper) assert.ok(native.on_hopper!(), 'the GPU is a Hopper GPU');
  return (each, schedule = 0) => {
    native.schedule!(schedule);
    for (const { sizes, inputs, expected } of evaluated(each)) {
      const accumulates = each.source.arguments.some(({ kind }) => kind === 'adds');
      for (const adds of accumulates ? [false, true] : [false]) {
        const results = launch(each, native[`run_${each.name}`]!, inputs, sizes, adds);
        for (const [label, result] of results) {
          const before = adds && label.startsWith('gradient.') ? 1 : 0;
          const wanted = expected.get(label)!.data;
          const squares = result.reduce((sum, value, n) => sum + (value - before - wanted[n]!) ** 2, 0);
          const error = Math.sqrt(squares / wanted.reduce((sum, value) => sum + value * value, 0));
          const narrow = each.kernel.outputs.some(node => node.label === label && each.isNarrow(node)) ? 6e-3 : limit;
          assert.ok(error < (each.dtype === 'f32' ? 1e-6 : narrow), `${label}: relative error ${error}`);
        }
      }
    }
  };
}

interface EvaluatedCall {
  readonly sizes: Sizes;
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly expected: ReadonlyMap<string, Tensor>;
}

const known = new WeakMap<EmittedCase, readonly EvaluatedCall[]>();

/** The calls of a case, with what they should result in. */
function evaluated(each: EmittedCase): readonly EvaluatedCall[] {
  const calls =
    known.get(each) ??
    each.case.calls.map(sizes => {
      const inputs = inputsOf(each, sizes);
      return { sizes, inputs, expected: evaluate(each.case.graph, inputs, sizes) };
    });
  known.set(each, calls);
  return calls;
}
