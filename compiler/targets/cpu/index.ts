// The CPU target: a program as C source, one file for the model beside the headers that it includes.
import type { Cache } from '../../build/decoding.ts';
import type { Parameter } from '../../build/parameters.ts';
import { graphsOf, type Program } from '../../build/program.ts';
import { type SharedInput, sharedInputs } from '../../build/site.ts';
import type { BlockStage, HeadStage, JoinStage, Stage } from '../../build/stage.ts';
import type { Dimension } from '../../graph/dimension.ts';
import type { Graph } from '../../graph/graph.ts';
import { readPackageFile } from '../../package-files.ts';
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { storedExtent } from '../../plan/storage.ts';
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
import { countText, times } from './index-text.ts';
import { elementType, type ProductType } from './kernel-source.ts';
import { formName, type Prepared, PreparedWeights, ways } from './prepared.ts';
import { stepLaunches } from './profile.ts';
import { floatLiteral } from './scalar.ts';
import type { ScheduleOf } from './schedule.ts';

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
  /** How products of float32 are divided into tasks. */
  readonly scheduleOf: ScheduleOf;
}

/**
 * Emits the program.
 * @param lowered each of the program's graphs, by name
 */
export function emitCpu(program: Program, lowered: Lowered, options: CpuOptions): CpuSource {
  const { dtype, profile, scheduleOf } = options;
  const { embedding, blocks, head, modules } = program;
  const kernels = new KernelLibrary(
    graphsOf(program).map(graph => graph.name),
    profile,
  );
  const prepared = new PreparedWeights();
  const stored = new Set<string>();
  const emitter = (need: 'always' | 'training') => (graph: Graph, stage: Stage, parameters: string, homes: Homes) => {
    const isParameter = (label: string) => stage.parameters.some(({ name }) => name === label);
    const own = lowered.get(graph.name)!;
    const source = emitFunction(own, stage.name, parameters, homes, kernels, dtype, isParameter, scheduleOf);
    for (const label of source.stored) stored.add(parameterKey(program, stage, label.slice('gradient.'.length)));
    for (const form of source.prepared) prepared.add(parameterKey(program, stage, form.parameter), form, need);
    return source;
  };
  const emit = emitter('always');
  const emitTraining = emitter('training');
  const reads = (stage: Stage) => `const malc_run *run, const ${stage.name}_parameters *p`;
  const writes = (stage: Stage) => `${reads(stage)}, const ${stage.name}_parameters *g`;

  const train = (stage: HeadStage) =>
    emitTraining(stage.train, stage, `${writes(stage)}, const float *x, float *x_gradient`, homes(stage));
  const backOf = (stage: BlockStage | JoinStage) =>
    emitTraining(
      stage.backward,
      stage,
      `${writes(stage)}, const ${stage.name}_saved *s, const float *x, const float *y_gradient, float *x_gradient`,
      homes(stage),
    );
  const forthOf = (stage: BlockStage | JoinStage, emit: ReturnType<typeof emitter>) =>
    emit(stage.forward, stage, `${reads(stage)}, const ${stage.name}_saved *s, const float *x, float *y`, homes(stage));
  const forward = [
    emit(embedding.forward, embedding, `${reads(embedding)}, float *y`, homes(embedding)),
    ...blocks.flatMap(block => [
      forthOf(block, emit),
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
  const trains = dtype !== 'int8';
  const emitBackward = () => [
    train(head),
    ...(modules ? [forthOf(modules.join, emitTraining), train(modules.head), backOf(modules.join)] : []),
    ...blocks.map(backOf),
    emitTraining(embedding.backward, embedding, `${writes(embedding)}, const float *y_gradient`, homes(embedding)),
  ];
  const backward = trains ? emitBackward() : [];
  const functions = [...forward, ...backward];
  const step = stepLaunches(program, kernels);
  const inParts = functionsInParts(program);
  const grouped = kernels.reports.some(({ kind }) => groupedKinds.has(kind));
  const attends = kernels.reports.some(({ kind }) => kind === 'attention' || kind === 'attention-gradient');
  const fields = {
    ...modelFields(program, lowered, prepared, program.modules ? new Set() : stored),
    trains,
    grouped,
    attends,
    bf16: dtype === 'bf16',
    int8: dtype === 'int8',
    prepared: !prepared.isEmpty,
    kernels: kernels.toString(),
    functions: functions.map(({ text }) => unusedParameters(text)).join('\n'),
    training: needs(functions, lowered, inParts),
    inference: needs(forward, lowered, inParts),
    head_tokens: headTokens(program),
    profile: profile ? { ...step, names: kernels.launches.map(({ name }) => name) } : null,
    launch_count: kernels.launches.length,
  };
  const names = ['model', 'memory', ...(modules && trains ? ['modules'] : []), 'weights', 'interface', 'profile'];
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
      'sequences.h': header('sequences.h'),
      ...(grouped ? { 'grouped.h': header('grouped.h') } : {}),
      ...(attends ? { 'attention.h': header('attention.h') } : {}),
      ...Object.fromEntries(headersOf[dtype].map(name => [name, header(name)])),
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

/** Headers that products of other numbers than float32 need. */
const headersOf: Readonly<Record<ProductType, readonly string[]>> = {
  f32: [],
  bf16: ['matmul_bf16.h', 'bf16_packing.h', 'bf16_pairs.h', 'bf16_tiles.h', 'matmul_few.h'],
  int8: ['bf16_packing.h', 'matmul_few.h', 'matmul_int8.h'],
};

/** Tells a parameter from those of other stages; what a stage borrows bears its owner's name. */
function parameterKey({ embedding, head }: Program, stage: Stage, name: string): string {
  const isShared = [...embedding.parameters, ...head.parameters].some(parameter => parameter.name === name);
  return isShared ? name : `${stage.name}: ${name}`;
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

function modelFields(program: Program, lowered: Lowered, prepared: PreparedWeights, stored: ReadonlySet<string>) {
  const { model, embedding, blocks, head, modules } = program;
  const known: Known = {
    lowered,
    preparedOf: (stage, name) => prepared.get(parameterKey(program, stage, name)),
    isStored: (stage, name) => stored.has(parameterKey(program, stage, name)),
  };
  const first = fieldsOf(embedding, [], 'The embedding of tokens and positions.', '1', known);
  const outer = fieldsOf(head, embedding.parameters, 'The output norm and the language-model head.', '1', known);
  const shared = [...embedding.parameters, ...head.parameters];
  const title = (name: string) => `${name} of a module that predicts a token further ahead.`;
  const moduleFields = modules && {
    depth: model.mtp!.depth,
    weight: floatLiteral(model.mtp!.weight / model.mtp!.depth),
    block: blocks[model.layers.at(-1)!]!.name,
    join: fieldsOf(modules.join, shared, title('What makes the input'), 'MODULES', known),
    head: fieldsOf(modules.head, shared, title('The head'), 'MODULES', known),
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
      ...blocks.map((block, n) => fieldsOf(block, [], blockTitle(model.blocks[n]!), 'BLOCKS', known)),
      ...(moduleFields ? [moduleFields.join, moduleFields.head] : []),
      outer,
    ],
    has_states: blocks.some(block => block.caches.some(cache => cache.isState)),
    has_roles: model.embeddings.role_embeddings !== null,
    roles: model.embeddings.role_embeddings ?? 1,
    kinds: blocks.map(block => ({
      name: block.name,
      count: block.parameters.length,
      saved: savedFields(block, lowered),
      caches: cacheFields(block),
      states: block.caches.filter(cache => cache.isState).map(cache => cache.name),
      clears: block.caches.filter(cache => cache.isState).map(stateFields),
    })),
    shared: embedding.forward.outputs
      .filter(output => output.name.startsWith('rotary_'))
      .map(({ name, node }) => ({
        name,
        shape: shapeText(node.dimensions),
        size: countText(node.dimensions).replace('time', 'positions'),
      })),
  };
}

/** @param shared parameters of other stages, which this one may read too: a tied head multiplies by the embedding */
function fieldsOf(
  stage: Stage,
  shared: readonly Parameter[],
  title: string,
  instances: string,
  { lowered, preparedOf, isStored }: Known,
) {
  const isOwn = (parameter: Parameter) => !shared.some(other => other.name === parameter.name);
  const own = stage.parameters.filter(isOwn);
  const borrowed = stage.parameters.filter(parameter => !isOwn(parameter));
  const block = 'forward' in stage && 'backward' in stage ? (stage as JoinStage) : null;
  const keeps = block !== null && stage.name !== 'embedding';
  const fields = (parameter: Parameter) => ({
    ...parameterFields(stage, parameter, preparedOf(stage, parameter.name)),
    cleared: !isStored(stage, parameter.name),
  });
  const from = ({ name }: Parameter) => (name.startsWith('model.embed') ? 'embedding' : 'head');
  return {
    name: stage.name,
    title,
    instances,
    // Its own ones are the leading pointers of its struct, and their forms follow.
    own: own.map(fields),
    own_count: own.length,
    borrowed: borrowed.map(parameter => ({ ...fields(parameter), from: from(parameter) })),
    cycles: own.flatMap(parameter => cycleFields(stage, parameter)),
    has_saved: keeps,
    saved: keeps ? savedFields(block, lowered) : [],
    caches: 'caches' in stage ? cacheFields(stage as BlockStage) : [],
    has_caches: 'caches' in stage,
  };
}

const blockTitle = ({ name, origin }: { name: string; origin: string }) =>
  `A block${name === '' ? '' : ` "${name}"`}${origin === '' ? '' : `, ${origin}`}.`;

const shapeText = (dims: readonly Dimension[]) =>
  dims.map(dim => (dim.size === null ? dim.name : `${dim.name} ${dim.size}`)).join('][');

function parameterFields(
  { name: stage }: Stage,
  { name, shape, initial, balance_rate }: Parameter,
  prepared: Prepared | undefined,
) {
  const identifier = shortName(name);
  const needs = ways.map(way => prepared?.needs[way] ?? 'never');
  const values = initial.kind === 'cycle' ? initial.values : [];
  return {
    name,
    identifier,
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
    rows: prepared?.rows ?? 0,
    needs: needs.map(need => need.toUpperCase()).join(', '),
    forms: ways.filter((_, n) => needs[n] !== 'never').map(way => ({ identifier: formName(identifier, way), way })),
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

type Lowered = ReadonlyMap<string, LoweredFunction>;

/** What is known of the program's functions once they are emitted. */
interface Known {
  readonly lowered: Lowered;
  /** The forms in which products read a parameter of a stage. */
  readonly preparedOf: (stage: Stage, name: string) => Prepared | undefined;
  /** Whether a step's first micro-batch stores a parameter's gradient, so that it need not be cleared before. */
  readonly isStored: (stage: Stage, name: string) => boolean;
}

function savedFields(block: JoinStage, lowered: Lowered) {
  const { graph, storage } = lowered.get(block.forward.name)!;
  return graph.outputs
    .filter(output => output.name.startsWith('saved.'))
    .map(({ name, node }) => {
      const type = elementType(node, storage(node));
      const { runtime, count } = storedExtent(node, storage(node));
      return {
        identifier: name.slice('saved.'.length),
        type,
        cast: type === 'float' ? '' : `(${type} *)`,
        shape_text: shapeText(node.dimensions),
        size: countsText(countsOf([{ runtime, count }], 'tokens')),
      };
    });
}

const cacheFields = ({ caches }: Pick<BlockStage, 'caches'>) =>
  caches.flatMap(({ name, dimensions, isState }) =>
    (isState ? [name, `next_${name}`] : [name]).map(identifier => ({
      identifier,
      shape_text: shapeText(dimensions),
      size: countText(dimensions),
    })),
  );

/** A state, and how large that of one text is. */
const stateFields = ({ name, dimensions }: Cache) => ({ identifier: name, size: countText(dimensions.slice(1)) });

/**
 * Positions that the head takes at once: enough that adding to its gradients is little work beside the products, and no
 * more, as it holds the logits of so many.
 */
const headTokens = ({ model }: Program) => (model.vocab_size > 65536 ? 256 : 512);

/** The functions that are called for a part of the positions at a time. */
const functionsInParts = ({ head, modules }: Program): ReadonlySet<string> =>
  new Set([head.loss, head.train, ...(modules ? [modules.head.train] : [])].map(graph => graph.name));

/** The memory that a set of functions needs while one of them runs. */
function needs(functions: readonly FunctionSource[], lowered: Lowered, inParts: ReadonlySet<string>) {
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
  [...counts].map(([growth, count]) => times(growth === '' ? '1' : growth, String(count))).join(' + ');

const inRowsOf = <T>(width: number, items: readonly T[]): T[][] =>
  items.length <= width ? [[...items]] : [items.slice(0, width), ...inRowsOf(width, items.slice(width))];
