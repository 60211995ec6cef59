// Shapes of attention as CUDA kernels in the emulator, each behind a C function that copies what it is given to the
// device, launches, and copies back.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packagePath } from '../compiler/package-files.ts';
import type { Extent } from '../compiler/plan/extent.ts';
import {
  type AttentionSource,
  backwardSource,
  decodingSource,
  forwardSource,
  partsOf,
} from '../compiler/targets/cuda/attention-source.ts';
import type { AttentionSchedule } from '../compiler/targets/cuda/hopper-attention.ts';
import type { Launch } from '../compiler/targets/cuda/kernel-source.ts';
import { encodeText } from '../compiler/targets/cuda/launcher.ts';
import { loadLibrary, type NativeFunction } from '../runtime/ffi.ts';
import type { AttentionShape } from './cpu/attention-reference.ts';
import { compiledShape, isNarrow, type Program } from './cpu/attention-shapes.ts';
import { buildEmulated } from './simt/build.ts';

const vectors = 'const void *query, const void *key, const void *value';
const further = 'const void *sinks, const void *slopes, const void *noise, const void *training, const void *documents';
const forwardParameters = `int64_t batch, int64_t time, ${vectors}, void *output, void *log_sum_exp, ${further}`;
const decodingParameters =
  `int64_t time, int64_t sequences, int64_t context, const void *starts, const void *ends, ${vectors}, ` +
  `void *output, ${further}`;
const backwardParameters =
  `int64_t batch, int64_t time, ${vectors}, const void *log_sum_exp, const void *output_gradient, const void *delta, ` +
  `${further}, void *query_gradient, void *key_gradient, void *value_gradient, void *slope_gradient`;

/** A shape in a program, and what the functions of its kernels are called after. */
export interface Compiled {
  readonly name: string;
  readonly shape: AttentionShape;
  readonly program: Program;
  /** How the backward pass runs on Hopper GPUs, where that is not as usual. */
  readonly schedule?: AttentionSchedule;
}

/**
 * Compiles shapes for the emulator, with all its checks, in a folder.
 * @param templates folders whose headers come before those of templates/cuda
 */
export async function buildShapes(
  folder: string,
  all: readonly Compiled[],
  templates: readonly string[] = [],
): Promise<Record<string, NativeFunction>> {
  const source = join(folder, 'attention.cu');
  writeFileSync(source, `#include "cuda-attention.h"\n${all.map(sourceOf).join('\n')}`);
  const output = join(folder, 'attention.so');
  await buildEmulated({ sources: [source], output, library: true, include: [...templates, packagePath('test')] });
  const declared = all.flatMap(called =>
    [
      ['forward', forwardParameters],
      ['decoding', decodingParameters],
      ['backward', backwardParameters],
    ].map(([kind, parameters]) => {
      const name = `${kind}_${called.name}`;
      return [name, `const char *${name}(${parameters})`];
    }),
  );
  const common = { schedule: 'void schedule(uint32_t seed)', on_hopper: 'int on_hopper()' };
  return loadLibrary(output, { ...common, ...Object.fromEntries(declared) });
}

/** The source of one shape's functions. */
function sourceOf({ name, shape, program, schedule }: Compiled): string {
  const { heads, kvHeads, dim, valueDim, valueWidth } = shape;
  const sizes = { heads, kvHeads, headDim: dim, valueWidth };
  const compiled = compiledShape(shape);
  const withoutSinks = { ...compiled, extras: compiled.extras.filter(extra => extra !== 'sinks') };
  const dtype = program === 'f32' ? 'f32' : 'bf16';
  const [own, shared] = [isNarrow(program, true), isNarrow(program, false)].map(isShort =>
    isShort ? '__nv_bfloat16' : 'float',
  ) as [string, string];
  const operands = { query: own, key: shared, value: shared };
  const gradients = { output_gradient: own, query_gradient: own, key_gradient: shared, value_gradient: shared };
  const title = `${name} of the test.`;
  const learned = compiled.extras.includes('slopes');
  const forward = forwardSource(`${name}_attention`, title, sizes, compiled, dtype, { ...operands, output: own });
  const decoded = { ...compiled, extras: compiled.extras.filter(extra => extra !== 'documents') };
  const decoding = decodingSource(`${name}_decoding`, title, sizes, decoded, dtype, { ...operands, output: own });
  const all = { ...operands, ...gradients };
  const backward = backwardSource(`${name}_gradient`, title, sizes, withoutSinks, learned, dtype, all, schedule);
  const extras = (all: 'forward' | 'decoding' | 'backward') => [
    ...(shape.sinks && all !== 'backward' ? ['sinks_'] : []),
    ...(learned ? ['slopes_'] : []),
    ...(shape.dropout > 0 ? ['noise_', 'training_'] : []),
    ...(shape.documents && all !== 'decoding' ? ['documents_'] : []),
  ];
  const copies = (tokens: string, keys: string) => `
  const int64_t tokens = ${tokens}, keys = ${keys};
  const Device<${own}> query_(query, tokens * ${heads * dim});
  const Device<${shared}> key_(key, keys * ${kvHeads * dim}), value_(value, keys * ${kvHeads * valueWidth});
  const Device<float> sinks_(sinks, ${heads}), slopes_(slopes, ${heads}), training_(training, 1);
  const Device<int32_t> noise_(noise, 4);`;
  return `${forward.text}
${decoding.text}
${backward.text}
extern "C" const char *forward_${name}(${forwardParameters}) {
  static std::string report;
  {${copies('batch * time', 'batch * time')}
  const Device<${own}> output_(tokens * ${heads * valueDim});
  const Device<float> log_sum_exp_(tokens * ${heads});
  const Device<int32_t> documents_(documents, 2 * tokens);
  ${launches(forward, ['batch', 'time', 'query_', 'key_', 'value_', 'output_', 'log_sum_exp_', ...extras('forward')])}
  output_.read(output);
  log_sum_exp_.read(log_sum_exp);
  }
  return finish(report);
}
extern "C" const char *decoding_${name}(${decodingParameters}) {
  (void)documents;
  static std::string report;
  const int64_t batch = 1;
  {${copies('time', 'sequences * context')}
  const Device<int32_t> starts_(starts, sequences), ends_(ends, sequences);
  const Device<${own}> output_(tokens * ${heads * valueDim});
  const Device<float> workspace_(sequences * ${partsOf(sizes, compiled)});
  ${launches(decoding, [
    ...['batch', 'time', 'sequences', 'context', 'starts_', 'ends_', 'query_', 'key_', 'value_', 'output_'],
    ...['static_cast<float *>(nullptr)', ...extras('decoding'), 'workspace_'],
  ])}
  output_.read(output);
  }
  return finish(report);
}
extern "C" const char *backward_${name}(${backwardParameters}) {
  (void)sinks;
  static std::string report;
  {${copies('batch * time', 'batch * time')}
  const Device<${own}> output_gradient_(output_gradient, tokens * ${heads * valueDim});
  const Device<float> log_sum_exp_(log_sum_exp, tokens * ${heads}), delta_(delta, tokens * ${heads});
  const Device<${own}> query_gradient_(tokens * ${heads * dim});
  const Device<${shared}> key_gradient_(keys * ${kvHeads * dim}), value_gradient_(keys * ${kvHeads * valueWidth});
  const Device<int32_t> documents_(documents, 2 * tokens);
  const Device<float> slope_gradient_(batch * ${heads}), workspace_(${floatsText(backward.workspace)});
  ${launches(backward, [
    ...[
      'batch',
      'time',
      'query_',
      'key_',
      'value_',
      'log_sum_exp_',
      'output_gradient_',
      'delta_',
      ...extras('backward'),
    ],
    ...['query_gradient_', 'key_gradient_', 'value_gradient_', ...(learned ? ['slope_gradient_'] : [])],
    ...(backward.workspace.length > 0 ? ['workspace_'] : []),
  ])}
  query_gradient_.read(query_gradient);
  key_gradient_.read(key_gradient);
  value_gradient_.read(value_gradient);
  ${learned ? 'slope_gradient_.read(slope_gradient);' : '(void)slope_gradient;'}
  }
  return finish(report);
}
`;
}

/** A number of floats in C++. */
const floatsText = (extents: readonly Extent[]): string =>
  ['0', ...extents.map(({ runtime, count }) => [...runtime, count].join(' * '))].join(' + ');

function launches({ launches, hopper }: AttentionSource, given: readonly string[]): string {
  const call = ({ kernel, grid, block, shared, overlaps }: Launch, maps: readonly string[] = []) => {
    const blocks = overlaps ? `malc_grid(${grid}).overlapping()` : grid;
    return `check(malc_launch(${[kernel, blocks, block, shared, 'nullptr', ...maps, ...given].join(', ')}));`;
  };
  const usual = launches.map(launch => call(launch)).join('\n  ');
  if (!hopper) return usual;
  return `if (malc_on_hopper()) {
    CUtensorMap ${hopper.maps.map(({ name }) => name).join(', ')};
    ${hopper.maps.map(map => `check(${encodeText(map, `${map.base}_.get()`)});`).join('\n    ')}
    ${hopper.launches.map(launch => call(launch, launch.maps)).join('\n    ')}
  } else {
    ${usual}
  }`;
}
