// What the frames of a program say of its model: sizes, parameters, and what each stage keeps.
import type { Cache } from '../build/decoding.ts';
import type { Parameter } from '../build/parameters.ts';
import { blockKinds, type Program } from '../build/program.ts';
import type { BlockStage, JoinStage, Stage } from '../build/stage.ts';
import type { Dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { againName } from '../plan/recompute.ts';
import { type ElementStorage, storedExtent } from '../plan/storage.ts';
import { countText } from './index-text.ts';
import { extentText, type Lowered } from './memory-needs.ts';
import { shortName } from './naming.ts';
import { floatLiteral } from './scalar.ts';

/** What differs from target to target. */
export interface TargetFields {
  /** The forms in which products read a parameter of a stage. */
  preparedFields(stage: Stage, parameter: Parameter): object & { readonly forms: readonly object[] };
  /** Whether a step's first micro-batch stores a parameter's gradient, so that it need not be cleared before. */
  isStored(stage: Stage, name: string): boolean;
  /** How many moments the optimizer keeps of a parameter. */
  moments(parameter: Parameter): number;
  /** The type of a value's elements. */
  elementType(node: Node, storage: ElementStorage): string;
  /** An array of one number where it is needed; null where the language has none, and such arrays have names. */
  readonly literalArray: ((number: string) => string) | null;
}

/**
 * What the frames say of a model: its sizes, its parameters, and what each stage keeps.
 * @param recomputed how many blocks, from the lowest that is trained on, run their forward pass again
 */
export function modelFields(program: Program, lowered: Lowered, recomputed: number, target: TargetFields) {
  const { model, embedding, blocks, head, modules } = program;
  const first = fieldsOf(embedding, [], 'The embedding of tokens and positions.', '1', lowered, target);
  const outer = fieldsOf(
    head,
    embedding.parameters,
    'The output norm and the language-model head.',
    '1',
    lowered,
    target,
  );
  const shared = [...embedding.parameters, ...head.parameters];
  const title = (name: string) => `${name} of a module that predicts a token further ahead.`;
  const moduleFields = modules && {
    depth: model.mtp!.depth,
    weight: floatLiteral(model.mtp!.weight / model.mtp!.depth),
    block: blocks[modules.kind]!.name,
    /** Whether the block of any runs again. */
    again: program.lowest + recomputed > model.layers.length,
    join: fieldsOf(modules.join, shared, title('What makes the input'), 'MODULES', lowered, target),
    head: fieldsOf(modules.head, shared, title('The head'), 'MODULES', lowered, target),
  };
  const kinds = blockKinds(program);
  const own = (kind: number) => blocks[kind]!.parameters.length;
  const perLayer = kinds.map(own).reduce((a, b) => a + b, 0);
  const perModule = moduleFields ? moduleFields.join.own_count + moduleFields.head.own_count : 0;
  return {
    name: model.name.replace(/[^A-Za-z0-9_.-]/g, '_'),
    description: model.description === '' ? [] : model.description.replaceAll('*/', '* /').split('\n'),
    layer_count: model.layers.length,
    lowest: program.lowest,
    layers_train: program.lowest < model.layers.length,
    module_count: model.mtp?.depth ?? 0,
    hidden: model.hidden_size,
    vocabulary: model.vocab_size,
    max_positions: Math.min(model.max_seq_len, model.embeddings.learned_positions ?? model.max_seq_len),
    parameter_count: first.own_count + perLayer + perModule * (model.mtp?.depth ?? 0) + outer.own_count,
    embedding: { ...first, trains: embedding.backward !== null },
    head: outer,
    modules: moduleFields,
    layer_kinds: inRowsOf(32, kinds).map(row => row.join(', ')),
    recomputed: recomputed === 0 ? null : recomputedFields(program, lowered, recomputed),
    keeps: blocks.some(block => block.backward !== null),
    several_kinds: blocks.length > 1,
    stages: [
      first,
      ...blocks.map((block, n) => fieldsOf(block, [], blockTitle(model.blocks[n]!), 'BLOCKS', lowered, target)),
      ...(moduleFields ? [moduleFields.join, moduleFields.head] : []),
      outer,
    ],
    masks_documents: program.masksDocuments,
    has_states: blocks.some(block => block.caches.some(cache => cache.isState)),
    has_roles: model.embeddings.role_embeddings !== null,
    roles: model.embeddings.role_embeddings ?? 1,
    kinds: blocks.map(block => ({
      name: block.name,
      trains: block.backward !== null,
      count: block.parameters.length,
      saved: savedFields(block, lowered, target),
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

/** The kinds of blocks that run again. */
const recomputedFields = ({ blocks, lowest }: Program, lowered: Lowered, count: number) => ({
  end: lowest + count,
  kinds: blocks.flatMap(({ name }, index) => {
    const again = againName(name);
    return lowered.has(again) ? [{ index, name, again }] : [];
  }),
});

/** @param shared parameters of other stages, which this one may read too: a tied head multiplies by the embedding */
function fieldsOf(
  stage: Stage,
  shared: readonly Parameter[],
  title: string,
  instances: string,
  lowered: Lowered,
  target: TargetFields,
) {
  const isOwn = (parameter: Parameter) => !shared.some(other => other.name === parameter.name);
  const own = stage.parameters.filter(isOwn);
  const borrowed = stage.parameters.filter(parameter => !isOwn(parameter));
  const block = 'backward' in stage && stage.backward && stage.name !== 'embedding' ? (stage as JoinStage) : null;
  const fields = (parameter: Parameter) => ({
    ...parameterFields(stage, parameter, target),
    ...target.preparedFields(stage, parameter),
    cleared: !parameter.frozen && !target.isStored(stage, parameter.name),
    moments: target.moments(parameter),
    frozen: parameter.frozen,
  });
  const from = ({ name }: Parameter) => (name.startsWith('model.embed') ? 'embedding' : 'head');
  return {
    name: stage.name,
    title: title.replace(/\.$/, frozenShare(own)),
    instances,
    // Its own ones are the leading pointers of its struct, and their forms follow.
    own: own.map(fields),
    own_count: own.length,
    borrowed: borrowed.map(parameter => ({ ...fields(parameter), from: from(parameter) })),
    cycles: own.flatMap(parameter => cycleFields(stage, parameter, target)),
    has_saved: block !== null,
    saved: block ? savedFields(block, lowered, target) : [],
    caches: 'caches' in stage ? cacheFields(stage as BlockStage) : [],
    has_caches: 'caches' in stage,
  };
}

/** How the sentence on a stage with these parameters ends. */
function frozenShare(own: readonly Parameter[]): string {
  const frozen = own.filter(parameter => parameter.frozen);
  if (frozen.length === 0) return '.';
  return frozen.length === own.length ? ', frozen.' : `, of which ${frozen.length} of ${own.length} are frozen.`;
}

const blockTitle = ({ name, origin }: { name: string; origin: string }) =>
  `A block${name === '' ? '' : ` "${name}"`}${origin === '' ? '' : `, ${origin}`}.`;

const shapeText = (dims: readonly Dimension[]) =>
  dims.map(dim => (dim.size === null ? dim.name : `${dim.name} ${dim.size}`)).join('][');

function parameterFields(
  { name: stage }: Stage,
  { name, shape, initial, balance_rate }: Parameter,
  { literalArray }: TargetFields,
) {
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
        : values.length === 1 && literalArray
          ? literalArray(floatLiteral(values[0]!))
          : `${stage}_${shortName(name)}_start`,
    rate: floatLiteral(balance_rate ?? -1),
  };
}

/** The initial values of a parameter that has several, in rows. */
function cycleFields({ name: stage }: Stage, { name, initial }: Parameter, { literalArray }: TargetFields) {
  if (initial.kind !== 'cycle' || initial.values.length < (literalArray ? 2 : 1)) return [];
  return [
    {
      identifier: `${stage}_${shortName(name)}`,
      rows: inRowsOf(8, initial.values.map(floatLiteral)).map(row => row.join(', ')),
    },
  ];
}

function savedFields(block: Pick<JoinStage, 'forward'>, lowered: Lowered, { elementType }: TargetFields) {
  const { graph, storage } = lowered.get(block.forward.name)!;
  return graph.outputs
    .filter(output => output.name.startsWith('saved.'))
    .map(({ name, node }) => {
      const type = elementType(node, storage(node));
      return {
        identifier: name.slice('saved.'.length),
        type,
        cast: type === 'float' ? '' : `(${type} *)`,
        shape_text: shapeText(node.dimensions),
        size: extentText(storedExtent(node, storage(node)), 'tokens'),
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

const inRowsOf = <T>(width: number, items: readonly T[]): T[][] =>
  items.length <= width ? [[...items]] : [items.slice(0, width), ...inRowsOf(width, items.slice(width))];
