// What nvcc says of attention's kernels at usual sizes: no warning, no spill, for each architecture.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { backwardSource, decodingSource, forwardSource } from '../compiler/targets/cuda/attention-source.ts';
import type { CudaProductType } from '../compiler/targets/cuda/kernel-source.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';

const test = suite('cuda attention, nvcc');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** The kernels of causal attention of heads as wide as said, four to a key head. */
function kernelsOf(dtype: CudaProductType, width: number) {
  const element = dtype === 'bf16' ? '__nv_bfloat16' : 'float';
  const sizes = { heads: 16, kvHeads: 4, headDim: width, valueWidth: width };
  const shape = {
    ...{ scale: width ** -0.5, causal: true, window: 0, score: null, mask: null },
    ...{ value_dim: width, dropout: 0, extras: [] },
  };
  const vectors = { query: element, key: element, value: element };
  const gradients = { query_gradient: element, key_gradient: element, value_gradient: element };
  const name = `${dtype}_${width}`;
  const cache = { query: element, key: 'float', value: 'float', output: element };
  return [
    ...(width === 128 ? [decodingSource(`${name}_decoding`, name, sizes, shape, dtype, cache)] : []),
    forwardSource(name, name, sizes, shape, dtype, { ...vectors, output: element }),
    backwardSource(`${name}_gradient`, name, sizes, shape, false, dtype, {
      ...{ ...vectors, ...gradients, output_gradient: element },
    }),
  ];
}

const all = [64, 128, 256].flatMap(width => (['f32', 'bf16'] as const).flatMap(dtype => kernelsOf(dtype, width)));
const headers = [
  'bf16_backward',
  'bf16_forward',
  'f32_backward',
  'f32_forward',
  'sm90_backward',
  'sm90_forward',
  'sm90_gradient',
].map(name => `#include "attention_${name}.h"\n`);
const names = all.flatMap(({ launches, hopper }) =>
  [...launches, ...(hopper?.launches ?? [])].map(each => each.kernel),
);
const source = join(folder, 'attention.cu');
writeFileSync(
  source,
  `#include "launch.h"
${headers.join('')}${all.map(({ text }) => text).join('\n')}
const void *const kernels[] = {${names.map(name => `reinterpret_cast<const void *>(${name})`).join(', ')}};
const void *kernel(int n) { return kernels[n]; }
`,
);

for (const architecture of await architectures())
  test(`sm_${architecture}: no warning, no spill`, async () => {
    const kernels = await registersOf(source, architecture);
    assert.is(kernels.length, names.length);
  });

test.run();
