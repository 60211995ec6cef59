// The CPU target: a program as C source, one file for the model beside the headers that it includes.
import type { Parameter } from '../../build/parameters.ts';
import { graphsOf, type Program } from '../../build/program.ts';
import type { BlockStage, Stage } from '../../build/stage.ts';
import type { Dimension } from '../../graph/dimension.ts';
import type { Graph } from '../../graph/graph.ts';
import { readPackageFile } from '../../package-files.ts';
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { renderTemplate } from '../../template.ts';
import {
  emitFunction,
  type FunctionSource,
  type Homes,
  KernelLibrary,
  type KernelReport,
  shortName,
} from './functions.ts';
import { countText } from './index-text.ts';
import { floatLiteral } from './scalar.ts';

export interface CpuSource {
  /** File names and texts, to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs, by name
 */
export function emitCpu(program: Program, lowered: ReadonlyMap<string, LoweredFunction>): CpuSource {
  const { embedding, blocks, head } = program;
  const kernels = new KernelLibrary(graphsOf(program).map(graph => graph.name));
  const emit = (graph: Graph, stage: Stage, parameters: string, homes: Homes) =>
    emitFunction(lowered.get(graph.name)!, stage.name, parameters, homes, kernels);
  const reads = (stage: Stage) => `const malc_run *run, const ${stage.name}_parameters *p`;
  const writes = (stage: Stage) => `${reads(stage)}, const ${stage.name}_parameters *g`;

  const forward = [
    emit(embedding.forward, embedding, `${reads(embedding)}, float *y`, homes(embedding)),
    ...blocks.flatMap(block => [
      emit(
        block.forward,
        block,
        `${reads(block)}, const ${block.name}_saved *s, const float *x, float *y`,
        homes(block),
      ),
      emit(block.decode, block, `${reads(block)}, const malc_cache *c, const float *x, float *y`, homes(block)),
    ]),
    emit(head.logits, head, `${reads(head)}, const float *x, float *logits`, homes(head)),
    emit(head.loss, head, `${reads(head)}, const float *x`, homes(head)),
  ];
  const backward = [
    emit(head.train, head, `${writes(head)}, const float *x, float *x_gradient`, homes(head)),
    ...blocks.map(block =>
      emit(
        block.backward,
        block,
        `${writes(block)}, const ${block.name}_saved *s, const float *x, const float *y_gradient, float *x_gradient`,
        homes(block),
      ),
    ),
    emit(embedding.backward, embedding, `${writes(embedding)}, const float *y_gradient`, homes(embedding)),
  ];
  const functions = [...forward, ...backward];
  const fields = {
    ...modelFields(program),
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: needs(functions, lowered),
    inference: needs(forward, lowered),
  };
  const parts = ['model', 'memory', 'interface'].map(part => renderTemplate(`cpu/${part}.c.hbs`, fields));

  const header = (file: string) => readPackageFile(`templates/cpu/${file}`);
  return {
    files: {
      'model.c': parts.join(''),
      'malc.h': header('malc.h'),
      'malc_math.h': header('math.h'),
      'matmul.h': header('matmul.h'),
      'runtime.h': header('runtime.h'),
    },
    functions,
    kernels: kernels.reports,
  };
}

/** Where a stage's functions find what a label names (build/program.ts lists the labels). */
const homes =
  (stage: Stage): Homes =>
  (label, isOutput) => {
    if (label === 'x') return 'x';
    if (label === 'y' || label === 'logits') return label;
    if (label === 'gradient.x') return 'x_gradient';
    if (label === 'gradient.y') return 'y_gradient';
    if (label === 'loss' && isOutput) return 'run->loss';
    if (label === 'start' || label === 'loss_scale') return `&run->${label}`;
    if (label === 'key_cache') return 'c->key';
    if (label === 'value_cache') return 'c->value';
    if (['tokens', 'labels', 'positions'].includes(label) || label.startsWith('rotary_')) return `run->${label}`;
    if (label.startsWith('saved.')) return `s->${label.slice('saved.'.length)}`;
    if (label.startsWith('gradient.')) return `g->${shortName(label.slice('gradient.'.length))}`;
    return stage.parameters.some(parameter => parameter.name === label) ? `p->${shortName(label)}` : null;
  };

/** Names each parameter that a function has by its stage's convention and does not use. */
function unusedParameters(text: string): string {
  const head = text.slice(0, text.indexOf('{'));
  const body = text.slice(head.length);
  const declared = [...head.matchAll(/\*?(\w+)(?=[,)])/g)].map(match => match[1]!);
  const unused = declared.filter(name => !new RegExp(`\\b${name}\\b`).test(body));
  return unused.length === 0 ? text : text.replace('{\n', `{\n  ${unused.map(name => `(void)${name};`).join(' ')}\n`);
}

function modelFields({ model, embedding, blocks, head }: Program) {
  const own = head.parameters.filter(parameter => !embedding.parameters.some(other => other.name === parameter.name));
  const tied = head.parameters.find(parameter => !own.includes(parameter));
  // Tied parameters come last, so that the head's own ones are the leading pointers of its struct.
  const headStage = { ...head, parameters: [...own, ...(tied ? [tied] : [])] };
  const stage = (value: Stage, title: string, instances: string) => ({
    name: value.name,
    title,
    instances,
    parameters: value.parameters.map(parameterFields),
    // Without those that are another stage's.
    own: value.parameters.filter(parameter => parameter !== tied).map(parameterFields),
    has_saved: 'decode' in value,
    saved: 'decode' in value ? savedFields(value as BlockStage) : [],
  });
  const perLayer = model.layers.map(kind => blocks[kind]!.parameters.length).reduce((a, b) => a + b, 0);
  return {
    name: model.name.replace(/[^A-Za-z0-9_.-]/g, '_'),
    description: model.description === '' ? [] : model.description.replaceAll('*/', '* /').split('\n'),
    layer_count: model.layers.length,
    hidden: model.hidden_size,
    vocabulary: model.vocab_size,
    max_positions: Math.min(model.max_seq_len, model.embeddings.learned_positions ?? model.max_seq_len),
    parameter_count: embedding.parameters.length + perLayer + own.length,
    embedding_count: embedding.parameters.length,
    head_count: own.length,
    head_has_own: own.length > 0,
    tied: tied ? shortName(tied.name) : '',
    layer_kinds: inRowsOf(32, model.layers).map(row => row.join(', ')),
    stages: [
      stage(embedding, 'The embedding of tokens and positions.', '1'),
      ...blocks.map((block, n) => stage(block, blockTitle(model.blocks[n]!), 'LAYERS')),
      stage(headStage, 'The output norm and the language-model head.', '1'),
    ],
    kinds: blocks.map((block, n) => ({
      name: block.name,
      count: block.parameters.length,
      saved: savedFields(block),
      cache: model.blocks[n]!.attention.num_kv_heads * model.blocks[n]!.attention.head_dim,
    })),
    shared: embedding.forward.outputs
      .filter(output => output.name.startsWith('rotary_'))
      .map(({ name, node }) => ({ name, shape: shapeText(node.dimensions), size: countText(node.dimensions) })),
  };
}

const blockTitle = ({ name, origin }: { name: string; origin: string }) =>
  `A block${name === '' ? '' : ` "${name}"`}${origin === '' ? '' : `, ${origin}`}.`;

const shapeText = (dims: readonly Dimension[]) =>
  dims.map(dim => (dim.size === null ? dim.name : `${dim.name} ${dim.size}`)).join('][');

function parameterFields({ name, shape, initial }: Parameter) {
  return {
    name,
    identifier: shortName(name),
    rank: shape.length,
    shape: shape.length === 1 ? `${shape[0]}, 1` : shape.join(', '),
    shape_text: shape.join(']['),
    deviation: floatLiteral(initial.kind === 'normal' ? initial.deviation : 0),
    value: floatLiteral(initial.kind === 'constant' ? initial.value : 0),
  };
}

const savedFields = (block: BlockStage) =>
  block.forward.outputs
    .filter(output => output.name.startsWith('saved.'))
    .map(({ name, node }) => ({
      identifier: name.slice('saved.'.length),
      shape_text: shapeText(node.dimensions),
      size: countText(node.dimensions).replace('batch * time', 'tokens'),
    }));

/** The memory that a set of functions needs while one of them runs. */
function needs(functions: readonly FunctionSource[], lowered: ReadonlyMap<string, LoweredFunction>) {
  const most = (growth: string) =>
    Math.max(0, ...functions.map(({ name }) => lowered.get(name)!.plan.totals.get(growth) ?? 0));
  return {
    fixed: most(''),
    per_sequence: most('batch'),
    per_position: most('time'),
    per_token: most('batch*time'),
    workspaces: workspaceTexts(functions.flatMap(source => source.workspaces)),
    scratch: Math.max(0, ...functions.map(source => source.scratch)),
  };
}

/** Sizes of workspaces as C text, without those that another is at least as large as whatever the run-time sizes. */
function workspaceTexts(workspaces: readonly (readonly Extent[])[]): string[] {
  const sizes = new Map(
    workspaces.map(extents => {
      const counts = countsOf(extents);
      return [countsText(counts), counts] as const;
    }),
  );
  const covers = (a: Counts, b: Counts) => [...b].every(([growth, count]) => count <= (a.get(growth) ?? 0));
  return [...sizes]
    .filter(([text, counts]) => ![...sizes].some(([other, larger]) => other !== text && covers(larger, counts)))
    .map(([text]) => text);
}

/** Floats for each combination of run-time positions, by what they grow with. */
type Counts = ReadonlyMap<string, number>;

function countsOf(extents: readonly Extent[]): Counts {
  const counts = new Map<string, number>();
  for (const { runtime, count } of extents) {
    const growth = runtime.join(' * ').replace('batch * time', 'tokens');
    counts.set(growth, (counts.get(growth) ?? 0) + count);
  }
  return counts;
}

const countsText = (counts: Counts): string =>
  [...counts].map(([growth, count]) => (growth === '' ? String(count) : `${growth} * ${count}`)).join(' + ');

const inRowsOf = <T>(width: number, items: readonly T[]): T[][] =>
  items.length <= width ? [[...items]] : [items.slice(0, width), ...inRowsOf(width, items.slice(width))];
