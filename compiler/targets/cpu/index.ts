// The CPU target: a program as C source, one file for the model beside the headers that it includes.
import type { Parameter } from '../../build/parameters.ts';
import { graphsOf, type Program } from '../../build/program.ts';
import { type SharedInput, sharedInputs } from '../../build/site.ts';
import type { BlockStage, HeadStage, JoinStage, Stage } from '../../build/stage.ts';
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
  type LaunchReport,
  shortName,
} from './functions.ts';
import { countText } from './index-text.ts';
import { elementType, type ProductType } from './kernel-source.ts';
import { stepLaunches } from './profile.ts';
import { floatLiteral } from './scalar.ts';

export interface CpuSource {
  /** File names and texts, to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly functions: readonly FunctionSource[];
  readonly kernels: readonly KernelReport[];
  /** In the order of the profile of a program that has one. */
  readonly launches: readonly ProgramLaunch[];
}

/** A launch of the program. The function `step` stands for what a step does besides calling functions. */
export interface ProgramLaunch extends LaunchReport {
  /** Positions that one run of the function takes at most; null where it takes all of the call. */
  readonly part: number | null;
}

export interface CpuOptions {
  /** What products multiply. */
  readonly dtype: ProductType;
  /** Whether the program takes the time of its launches. */
  readonly profile: boolean;
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs, by name
 */
export function emitCpu(
  program: Program,
  lowered: ReadonlyMap<string, LoweredFunction>,
  { dtype, profile }: CpuOptions,
): CpuSource {
  const { embedding, blocks, head, modules } = program;
  const kernels = new KernelLibrary(
    graphsOf(program).map(graph => graph.name),
    profile,
  );
  const emit = (graph: Graph, stage: Stage, parameters: string, homes: Homes) =>
    emitFunction(lowered.get(graph.name)!, stage.name, parameters, homes, kernels, dtype);
  const reads = (stage: Stage) => `const malc_run *run, const ${stage.name}_parameters *p`;
  const writes = (stage: Stage) => `${reads(stage)}, const ${stage.name}_parameters *g`;

  const train = (stage: HeadStage) =>
    emit(stage.train, stage, `${writes(stage)}, const float *x, float *x_gradient`, homes(stage));
  const backOf = (stage: BlockStage | JoinStage) =>
    emit(
      stage.backward,
      stage,
      `${writes(stage)}, const ${stage.name}_saved *s, const float *x, const float *y_gradient, float *x_gradient`,
      homes(stage),
    );
  const forthOf = (stage: BlockStage | JoinStage) =>
    emit(stage.forward, stage, `${reads(stage)}, const ${stage.name}_saved *s, const float *x, float *y`, homes(stage));
  const forward = [
    emit(embedding.forward, embedding, `${reads(embedding)}, float *y`, homes(embedding)),
    ...blocks.flatMap(block => [
      forthOf(block),
      emit(
        block.decode,
        block,
        `${reads(block)}, const ${block.name}_cache *c, const float *x, float *y`,
        homes(block),
      ),
    ]),
    emit(head.logits, head, `${reads(head)}, const float *x, float *logits`, homes(head)),
    emit(head.loss, head, `${reads(head)}, const float *x`, homes(head)),
  ];
  const backward = [
    train(head),
    ...(modules ? [forthOf(modules.join), train(modules.head), backOf(modules.join)] : []),
    ...blocks.map(backOf),
    emit(embedding.backward, embedding, `${writes(embedding)}, const float *y_gradient`, homes(embedding)),
  ];
  const functions = [...forward, ...backward];
  const step = stepLaunches(program, kernels);
  const inParts = functionsInParts(program);
  const grouped = kernels.reports.some(({ kind }) => groupedKinds.has(kind));
  const fields = {
    ...modelFields(program),
    grouped,
    bf16: dtype === 'bf16',
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: needs(functions, lowered, inParts),
    inference: needs(forward, lowered, inParts),
    head_tokens: headTokens(program),
    profile: profile ? { ...step, names: kernels.launches.map(({ name }) => name) } : null,
    launch_count: kernels.launches.length,
  };
  const names = ['model', 'memory', ...(modules ? ['modules'] : []), 'interface', 'profile'];
  const parts = names.map(part => renderTemplate(`cpu/${part}.c.hbs`, fields));

  const header = (file: string) => readPackageFile(`templates/cpu/${file}`);
  return {
    files: {
      'model.c': parts.join(''),
      'malc.h': header('malc.h'),
      'malc_math.h': header('math.h'),
      'matmul.h': header('matmul.h'),
      'random.h': header('random.h'),
      'runtime.h': header('runtime.h'),
      ...(grouped ? { 'grouped.h': header('grouped.h') } : {}),
      ...(dtype === 'bf16' ? { 'matmul_bf16.h': header('matmul_bf16.h') } : {}),
      ...(profile ? { 'profile.h': header('profile.h') } : {}),
    },
    functions,
    kernels: kernels.reports,
    launches: kernels.launches.map(launch => ({
      ...launch,
      part: inParts.has(launch.function) ? headTokens(program) : null,
    })),
  };
}

/** Kernels that call functions of grouped.h. */
const groupedKinds: ReadonlySet<string> = new Set(['top-k', 'grouped', 'grouped-gradient', 'contract-each']);

/** Where a stage's functions find what a label names (build/stage.ts and build/site.ts list the labels). */
const homes =
  (stage: Stage): Homes =>
  (label, isOutput) => {
    if (label === 'x') return 'x';
    if (label === 'y' || label === 'logits') return label;
    if (label === 'gradient.x') return 'x_gradient';
    if (label === 'gradient.y') return 'y_gradient';
    if (isOutput && (label === 'loss' || label === 'auxiliary')) return `run->${label}`;
    if (label.startsWith('rotary_')) return `run->${label}`;
    // Of what all stages share, malc_run points at tensors and holds single numbers.
    if (label in sharedInputs)
      return `${sharedInputs[label as SharedInput].dimensions.length > 0 ? '' : '&'}run->${label}`;
    if (label.startsWith('cache.')) return `c->${label.slice('cache.'.length)}`;
    if (label.startsWith('next.')) return `c->next_${label.slice('next.'.length)}`;
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

function modelFields({ model, embedding, blocks, head, modules }: Program) {
  const first = fieldsOf(embedding, [], 'The embedding of tokens and positions.', '1');
  const outer = fieldsOf(head, embedding.parameters, 'The output norm and the language-model head.', '1');
  const shared = [...embedding.parameters, ...head.parameters];
  const title = (name: string) => `${name} of a module that predicts a token further ahead.`;
  const moduleFields = modules && {
    depth: model.mtp!.depth,
    weight: floatLiteral(model.mtp!.weight / model.mtp!.depth),
    block: blocks[model.layers.at(-1)!]!.name,
    join: fieldsOf(modules.join, shared, title('What makes the input'), 'MODULES'),
    head: fieldsOf(modules.head, shared, title('The head'), 'MODULES'),
  };
  const kinds = [...model.layers, ...Array.from({ length: model.mtp?.depth ?? 0 }, () => model.layers.at(-1)!)];
  const own = (kind: number) => blocks[kind]!.parameters.length;
  const perLayer = kinds.map(own).reduce((a, b) => a + b, 0);
  const perModule = moduleFields ? moduleFields.join.own_count + moduleFields.head.own_count : 0;
  return {
    name: model.name.replace(/[^A-Za-z0-9_.-]/g, '_'),
    description: model.description === '' ? [] : model.description.replaceAll('*/', '* /').split('\n'),
    layer_count: model.layers.length,
    module_count: model.mtp?.depth ?? 0,
    hidden: model.hidden_size,
    vocabulary: model.vocab_size,
    max_positions: Math.min(model.max_seq_len, model.embeddings.learned_positions ?? model.max_seq_len),
    parameter_count: first.own_count + perLayer + perModule * (model.mtp?.depth ?? 0) + outer.own_count,
    embedding: first,
    head: outer,
    modules: moduleFields,
    layer_kinds: inRowsOf(32, kinds).map(row => row.join(', ')),
    stages: [
      first,
      ...blocks.map((block, n) => fieldsOf(block, [], blockTitle(model.blocks[n]!), 'BLOCKS')),
      ...(moduleFields ? [moduleFields.join, moduleFields.head] : []),
      outer,
    ],
    has_states: blocks.some(block => block.caches.some(cache => cache.isState)),
    has_roles: model.embeddings.role_embeddings !== null,
    roles: model.embeddings.role_embeddings ?? 1,
    kinds: blocks.map(block => ({
      name: block.name,
      count: block.parameters.length,
      saved: savedFields(block),
      caches: cacheFields(block),
      states: block.caches.filter(cache => cache.isState).map(cache => cache.name),
      clears: cacheFields({ ...block, caches: block.caches.filter(cache => cache.isState) }),
    })),
    shared: embedding.forward.outputs
      .filter(output => output.name.startsWith('rotary_'))
      .map(({ name, node }) => ({ name, shape: shapeText(node.dimensions), size: countText(node.dimensions) })),
  };
}

/** @param shared parameters of other stages, which this one may read too: a tied head multiplies by the embedding */
function fieldsOf(stage: Stage, shared: readonly Parameter[], title: string, instances: string) {
  const isOwn = (parameter: Parameter) => !shared.some(other => other.name === parameter.name);
  const own = stage.parameters.filter(isOwn);
  const borrowed = stage.parameters.filter(parameter => !isOwn(parameter));
  const block = 'forward' in stage && 'backward' in stage ? (stage as JoinStage) : null;
  const keeps = block !== null && stage.name !== 'embedding';
  return {
    name: stage.name,
    title,
    instances,
    // Its own ones are the leading pointers of its struct.
    parameters: [...own, ...borrowed].map(parameter => parameterFields(stage, parameter)),
    own: own.map(parameter => parameterFields(stage, parameter)),
    own_count: own.length,
    borrowed: borrowed.map(parameter => ({
      identifier: shortName(parameter.name),
      from: parameter.name.startsWith('model.embed') ? 'embedding' : 'head',
    })),
    cycles: own.flatMap(parameter => cycleFields(stage, parameter)),
    has_saved: keeps,
    saved: keeps ? savedFields(block) : [],
    caches: 'caches' in stage ? cacheFields(stage as BlockStage) : [],
    has_caches: 'caches' in stage,
  };
}

const blockTitle = ({ name, origin }: { name: string; origin: string }) =>
  `A block${name === '' ? '' : ` "${name}"`}${origin === '' ? '' : `, ${origin}`}.`;

const shapeText = (dims: readonly Dimension[]) =>
  dims.map(dim => (dim.size === null ? dim.name : `${dim.name} ${dim.size}`)).join('][');

function parameterFields({ name: stage }: Stage, { name, shape, initial, balance_rate }: Parameter) {
  const values = initial.kind === 'cycle' ? initial.values : [];
  return {
    name,
    identifier: shortName(name),
    rank: shape.length,
    shape: [...shape, 1, 1].slice(0, 3).join(', '),
    shape_text: shape.join(']['),
    deviation: floatLiteral(initial.kind === 'normal' ? initial.deviation : 0),
    count: values.length,
    values:
      values.length === 0
        ? 'NULL'
        : values.length === 1
          ? `(const float[]){ ${floatLiteral(values[0]!)} }`
          : `${stage}_${shortName(name)}_start`,
    rate: floatLiteral(balance_rate ?? -1),
  };
}

/** The initial values of a parameter that has several, in rows. */
function cycleFields({ name: stage }: Stage, { name, initial }: Parameter) {
  if (initial.kind !== 'cycle' || initial.values.length < 2) return [];
  return [
    {
      identifier: `${stage}_${shortName(name)}`,
      rows: inRowsOf(8, initial.values.map(floatLiteral)).map(row => row.join(', ')),
    },
  ];
}

const savedFields = (block: JoinStage) =>
  block.forward.outputs
    .filter(output => output.name.startsWith('saved.'))
    .map(({ name, node }) => ({
      identifier: name.slice('saved.'.length),
      type: elementType(node),
      cast: node.dtype === 'i32' ? '(int32_t *)' : '',
      shape_text: shapeText(node.dimensions),
      size: countText(node.dimensions).replace('batch * time', 'tokens'),
    }));

const cacheFields = ({ caches }: Pick<BlockStage, 'caches'>) =>
  caches.flatMap(({ name, dimensions, isState }) =>
    (isState ? [name, `next_${name}`] : [name]).map(identifier => ({
      identifier,
      shape_text: shapeText(dimensions),
      size: countText(dimensions),
    })),
  );

/**
 * Positions that the head takes at once: enough that adding to its gradients is little work beside the products, and no
 * more, as it holds the logits of so many.
 */
const headTokens = ({ model }: Program) => (model.vocab_size > 65536 ? 256 : 512);

/** The functions that are called for a part of the positions at a time. */
const functionsInParts = ({ head, modules }: Program): ReadonlySet<string> =>
  new Set([head.loss, head.train, ...(modules ? [modules.head.train] : [])].map(graph => graph.name));

/** The memory that a set of functions needs while one of them runs. */
function needs(
  functions: readonly FunctionSource[],
  lowered: ReadonlyMap<string, LoweredFunction>,
  inParts: ReadonlySet<string>,
) {
  const most = (growth: string, among = functions) =>
    Math.max(0, ...among.map(({ name }) => lowered.get(name)!.plan.totals.get(growth) ?? 0));
  const parts = functions.filter(({ name }) => inParts.has(name));
  const whole = functions.filter(({ name }) => !inParts.has(name));
  const workspaces = (among: readonly FunctionSource[], tokens: string) =>
    workspaceTexts(
      among.flatMap(source => source.workspaces),
      tokens,
    );
  return {
    fixed: most(''),
    per_sequence: most('batch'),
    per_position: most('time'),
    per_token: most('batch*time', whole),
    per_head_token: most('batch*time', parts),
    workspaces: [...workspaces(whole, 'tokens'), ...workspaces(parts, 'head_tokens')],
    scratch: Math.max(0, ...functions.map(source => source.scratch)),
  };
}

/**
 * Sizes of workspaces as C text, without those that another is at least as large as whatever the run-time sizes.
 * @param tokens what the positions of a call are called
 */
function workspaceTexts(workspaces: readonly (readonly Extent[])[], tokens: string): string[] {
  const sizes = new Map(
    workspaces.map(extents => {
      const counts = countsOf(extents, tokens);
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

function countsOf(extents: readonly Extent[], tokens: string): Counts {
  const counts = new Map<string, number>();
  for (const { runtime, count } of extents) {
    const growth = runtime.join(' * ').replace('batch * time', tokens);
    counts.set(growth, (counts.get(growth) ?? 0) + count);
  }
  return counts;
}

const countsText = (counts: Counts): string =>
  [...counts].map(([growth, count]) => (growth === '' ? String(count) : `${growth} * ${count}`)).join(' + ');

const inRowsOf = <T>(width: number, items: readonly T[]): T[][] =>
  items.length <= width ? [[...items]] : [items.slice(0, width), ...inRowsOf(width, items.slice(width))];
