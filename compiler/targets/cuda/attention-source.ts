// The kernels of attention, from the frames in templates/cuda: what a shape is made of becomes a struct, over which
// attention_f32.h and attention_bf16.h are compiled.
import type { AttentionGradientStorage, AttentionSizes, AttentionStorage } from '../../emission/attention-kernel.ts';
import {
  type PairFunction,
  type PairFunctions,
  type PairPlace,
  pairFunctions,
} from '../../emission/attention-pairs.ts';
import { floatLiteral } from '../../emission/scalar.ts';
import type { AttentionShape } from '../../ops/attention.ts';
import type { Extent } from '../../plan/extent.ts';
import { renderTemplate } from '../../template.ts';
import {
  type AttentionSchedule,
  attentionSchedules,
  backwardOnHopper,
  forwardOnHopper,
  onHopper,
} from './hopper-attention.ts';
import type { CudaProductType, KernelSource, Launch } from './kernel-source.ts';

/** A kernel's functions, and how they are launched. */
export type AttentionSource = Pick<KernelSource, 'text' | 'launches' | 'hopper'>;

/** The widest vectors that tensor cores multiply: attention_bf16_widest of templates/cuda/attention_bf16.h. */
const widestOfTensorCores = 256;
/** Parts that the keys of a text with few queries are divided into: attention_few_splits of attention_f32.h. */
const splits = 16;

/**
 * Floats of a text's parts: of each key head, split and row, the sum of values, the maximum and the total. As many
 * rows as `few` of attention_f32.h, which the kernel asserts.
 */
export function partsOf({ heads, kvHeads }: AttentionSizes, { value_dim: valueDim }: AttentionShape): number {
  const group = heads / kvHeads;
  const rows = [8, 16, 32].find(rows => group <= rows) ?? Math.ceil(group / 64) * 64;
  return kvHeads * splits * rows * (valueDim + 2);
}

/**
 * The forward kernel of whole texts.
 * @param origin what the comment above it says
 */
export function forwardSource(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  dtype: CudaProductType,
  storage: AttentionStorage,
): AttentionSource {
  const fields = frameFields(name, origin, sizes, shape, [], dtype);
  const vectors = vectorParameters(storage);
  const hopper = onHopper(sizes, shape, storage);
  const parameters = ['int64_t batch', 'int64_t time', ...vectors, ...fields.extras];
  return {
    text: renderTemplate('cuda/attention_forward.cu.hbs', {
      ...fields,
      hopper,
      types: forwardTypes(storage),
      parameters: list(parameters, 8),
      overlapping_parameters: list(parameters.map(overlapping), 8),
      given: list(['batch', 'time', 'time', 'nullptr', 'nullptr', ...forwardGiven, fields.given_extras, 'nullptr'], 6),
    }),
    launches: [launch(name, `${name}_frame`, 'forward_grid(batch, time)', 'forward_shared')],
    ...(hopper ? { hopper: forwardOnHopper(name, sizes, shape) } : {}),
  };
}

/** The forward kernels of texts that are gone on with: of those with many queries, and of those with few. */
export function decodingSource(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  dtype: CudaProductType,
  storage: AttentionStorage,
): AttentionSource {
  const fields = frameFields(name, origin, sizes, shape, [], dtype);
  const runtime = ['batch', 'time', 'sequences', 'context'].map(size => `int64_t ${size}`);
  const texts = ['const int32_t *__restrict__ starts', 'const int32_t *__restrict__ ends'];
  const all = [...runtime, ...texts, ...vectorParameters(storage), ...fields.extras, 'float *__restrict__ workspace'];
  const given = ['sequences', 'batch * time', 'context', 'starts', 'ends'];
  const few = `${name}_few_frame`;
  return {
    text: renderTemplate('cuda/attention_decoding.cu.hbs', {
      ...fields,
      types: forwardTypes(storage),
      parts: partsOf(sizes, shape),
      parameters: list(all, 8),
      given: list([...given, ...forwardGiven, fields.given_extras, 'workspace'], 6),
    }),
    launches: [
      launch(name, `${name}_frame`, 'texts_grid(batch * time, sequences)', 'forward_shared'),
      launch(`${name}_few`, few, 'few_grid(sequences)', 'few_shared'),
      { kernel: `${name}_join`, grid: `${few}::join_grid(sequences)`, block: '32', shared: '0' },
    ],
  };
}

/** The backward kernels, and the floats that they need of memory. */
export interface AttentionGradientSource extends AttentionSource {
  readonly workspace: readonly Extent[];
}

/**
 * The backward kernels.
 * @param shape without sinks, which the log-sum-exp holds
 * @param slopeGradient whether they compute the slopes' gradient too
 * @param schedule how they run on Hopper GPUs, where they do
 */
export function backwardSource(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  slopeGradient: boolean,
  dtype: CudaProductType,
  storage: AttentionGradientStorage,
  schedule: AttentionSchedule = attentionSchedules(sizes, shape)[0],
): AttentionGradientSource {
  const derivatives = slopeGradient ? (['product', 'slope'] as const) : (['product'] as const);
  const fields = frameFields(name, origin, sizes, shape, derivatives, dtype);
  const read = (vectors: 'query' | 'key' | 'value' | 'output_gradient') =>
    `const ${storage[vectors]} *__restrict__ ${vectors}`;
  const gradients = ['query_gradient', 'key_gradient', 'value_gradient'] as const;
  const frame = `${name}_frame`;
  const sumOfSlopes: Launch[] = slopeGradient
    ? [{ kernel: `${name}_slopes`, grid: `dim3(${sizes.heads}, (unsigned)batch)`, block: '32', shared: '0' }]
    : [];
  const isHopper = onHopper(sizes, shape, storage);
  const needsWorkspace = slopeGradient || (isHopper && schedule.queryGradient !== 'second-pass');
  const all = [
    ...['int64_t batch', 'int64_t time', read('query'), read('key'), read('value')],
    ...['const float *__restrict__ log_sum_exp', read('output_gradient'), 'const float *__restrict__ delta'],
    ...fields.extras,
    ...gradients.map(gradient => `${storage[gradient]} *__restrict__ ${gradient}`),
    ...(slopeGradient ? ['float *__restrict__ slope_gradient'] : []),
    ...(needsWorkspace ? ['float *__restrict__ workspace'] : []),
  ];
  const given = [
    ...['batch', 'time', 'query', 'key', 'value', 'log_sum_exp', 'output_gradient', 'delta', fields.given_extras],
    ...[...gradients, slopeGradient ? 'slope_gradient' : 'nullptr', needsWorkspace ? 'workspace' : 'nullptr'],
  ];
  const types = (['query', 'key', 'value', 'output_gradient', ...gradients] as const).map(each => storage[each]);
  const common = {
    ...fields,
    types: list(types, 6),
    parameters: list(all, 8),
    overlapping_parameters: list(all.map(overlapping), 8),
    given: list(given, 6),
  };
  const hopper = isHopper ? backwardOnHopper(name, sizes, shape, schedule, common, sumOfSlopes) : null;
  const slopeParts = "[batch][time][heads], each query's part of its slope's gradient";
  return {
    text: renderTemplate('cuda/attention_backward.cu.hbs', {
      ...common,
      slopes: slopeGradient,
      workspace: hopper?.workspace?.purpose ?? (slopeGradient ? slopeParts : ''),
      hopper: hopper?.text.trimEnd() ?? '',
    }),
    launches: [
      launch(name, frame, 'key_gradient_grid(batch, time)', 'backward_shared'),
      launch(`${name}_query`, frame, 'query_gradient_grid(batch, time)', 'backward_shared'),
      ...sumOfSlopes,
    ],
    ...(hopper ? { hopper: hopper.hopper } : {}),
    workspace:
      hopper?.workspace?.extents ?? (slopeGradient ? [{ runtime: ['batch', 'time'], count: sizes.heads }] : []),
  };
}

const launch = (kernel: string, frame: string, grid: string, shared: string): Launch => ({
  kernel,
  grid: `${frame}::${grid}`,
  block: 'attention_threads',
  shared: `${frame}::${shared}`,
});

const vectorParameters = ({ query, key, value, output }: AttentionStorage): string[] => [
  `const ${query} *__restrict__ query`,
  `const ${key} *__restrict__ key`,
  `const ${value} *__restrict__ value`,
  `${output} *__restrict__ output`,
  'float *__restrict__ log_sum_exp',
];

/**
 * Parameters of a kernel whose launches overlap the one before: see overlappingParameterList of kernel-source.ts. Some
 * write the workspace, and others read it.
 */
const overlapping = (parameter: string): string =>
  parameter.startsWith('const ') || parameter.endsWith(' workspace')
    ? parameter.replace('__restrict__ ', '')
    : parameter;

const forwardTypes = ({ query, key, value, output }: AttentionStorage) => [query, key, value, output].join(', ');
const forwardGiven = ['query', 'key', 'value', 'output', 'log_sum_exp'];

/** Joins parameters or values in lines, which go on so many columns in. */
function list(parts: readonly string[], indent: number): string {
  const lines = [''];
  for (const [n, part] of parts.entries()) {
    const text = n < parts.length - 1 ? `${part},` : part;
    const last = lines.at(-1)!;
    if (last === '') lines[lines.length - 1] = text;
    else if (last.length + 1 + text.length <= 118 - indent) lines[lines.length - 1] = `${last} ${text}`;
    else lines.push(text);
  }
  return lines.join(`\n${' '.repeat(indent)}`);
}

/** How the members of a shape's struct spell what the functions of a pair read. */
const place: PairPlace = {
  score: 'product',
  slope: 'pair.slope',
  query: 'pair.query',
  key: 'pair.key',
  head: 'pair.head',
  noise: 'pair.noise',
  sequence: 'pair.sequence',
};

/** What all frames are rendered with. */
function frameFields(
  name: string,
  origin: string,
  sizes: AttentionSizes,
  shape: AttentionShape,
  derivatives: readonly ('product' | 'slope')[],
  dtype: CudaProductType,
) {
  const { heads, kvHeads, headDim, valueWidth } = sizes;
  const { value_dim: valueDim, extras } = shape;
  const has = (extra: 'sinks' | 'slopes' | 'noise' | 'documents') => extras.includes(extra);
  const functions = pairFunctions(name, shape, derivatives);
  const all = (Object.values(functions) as (PairFunction | null)[]).filter(each => each !== null);
  const perHead = (['sinks', 'slopes'] as const).filter(has);
  const narrow = dtype === 'bf16' && Math.max(headDim, valueDim) <= widestOfTensorCores;
  const suffix = narrow ? 'bf16' : 'f32';
  const notes = [
    ...(perHead.length > 0 ? [`${perHead.join(', ')}: [${heads}].`] : []),
    ...(has('noise') ? ['noise: what dropout draws by; it does where training is not 0.'] : []),
  ];
  const ofDocuments = 'documents: [batch][time][2], where the document of each position begins and ends.';
  const noise = has('noise') ? '*training == 0.0f ? nullptr : noise' : 'nullptr';
  const given = [
    ...[has('sinks') ? 'sinks' : 'nullptr', has('slopes') ? 'slopes' : 'nullptr', noise],
    ...(has('documents') ? ['documents'] : []),
  ];
  return {
    name,
    comment: origin,
    title: `${heads} query heads of ${headDim} elements over ${kvHeads} key heads${
      valueDim === headDim ? '' : `, values of ${valueDim}`
    }`,
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    value_dim: valueDim,
    value_width: valueWidth,
    engine: `attention_${suffix}`,
    kernels: {
      forward: `attention_forward_${suffix}`,
      key_gradient: `attention_key_gradient_${suffix}`,
      query_gradient: `attention_query_gradient_${suffix}`,
    },
    functions: all.length > 0 ? `\n${all.map(({ text }) => text).join('\n')}` : '',
    shape: structMembers(sizes, shape, functions).join('\n'),
    notes: [...(notes.length > 0 ? [notes.join(' ')] : []), ...(has('documents') ? [ofDocuments] : [])].join('\n * '),
    extras: [
      ...perHead.map(extra => `const float *__restrict__ ${extra}`),
      ...(has('noise') ? ['const int32_t *__restrict__ noise', 'const float *__restrict__ training'] : []),
      ...(has('documents') ? ['const int32_t *__restrict__ documents'] : []),
    ],
    given_extras: `{${given.join(', ')}}`,
  };
}

/** What of attention_shape a shape defines. */
function structMembers(
  { heads, kvHeads, headDim, valueWidth }: AttentionSizes,
  { scale, causal, window, value_dim: valueDim, extras }: AttentionShape,
  { score, byProduct, bySlope, sees, kept }: PairFunctions,
): string[] {
  const numbers = { heads, kv_heads: kvHeads, dim: headDim, value_dim: valueDim, value_width: valueWidth, window };
  const flags = {
    causal,
    sinks: extras.includes('sinks'),
    slopes: extras.includes('slopes'),
    scored: score !== null,
    masked: sees !== null,
    drops: kept !== null,
    tilts: bySlope !== null,
    documents: extras.includes('documents'),
  };
  const constants = (of: object) =>
    Object.entries(of)
      .map(([key, value]) => `${key} = ${value}`)
      .join(', ');
  const set = Object.fromEntries(Object.entries(flags).filter(([, isSet]) => isSet));
  const member = (type: string, called: string, takesProduct: boolean, pair: PairFunction | null) => {
    if (!pair) return [];
    const product = takesProduct ? [`float${pair.reads.includes('score') ? ' product' : ''}`] : [];
    const other = pair.reads.some(parameter => parameter !== 'score') ? ' &pair' : ' &';
    const parameters = [...product, `const attention_pair${other}`].join(', ');
    return [`DEVICE static ${type} ${called}(${parameters}) { return ${pair.call(place)}; }`];
  };
  return [
    `static constexpr int ${constants(numbers)};`,
    `static constexpr float scale = ${floatLiteral(scale)};`,
    ...(Object.keys(set).length > 0 ? [`static constexpr bool ${constants(set)};`] : []),
    ...member('float', 'score', true, score),
    ...member('float', 'by_product', true, byProduct),
    ...member('float', 'by_slope', true, bySlope),
    ...member('bool', 'sees', false, sees),
    ...member('float', 'kept', false, kept),
  ].map(line => `  ${line}`);
}
