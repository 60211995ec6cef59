// The functions of a program's stages: in which order they are emitted, and what the program hands each of them.
import type { Program } from '../build/program.ts';
import type { BlockStage, HeadStage, JoinStage, Stage } from '../build/stage.ts';
import type { Graph } from '../graph/graph.ts';
import { againName } from '../plan/recompute.ts';
import { homes } from './homes.ts';
import type { Lowered } from './memory-needs.ts';
import type { Homes } from './places.ts';

/** Emits a function with this parameter list. */
export type EmitFunction<Source> = (graph: Graph, stage: Stage, parameters: string, homes: Homes) => Source;

/**
 * Emits all functions: those that run always, and those that only training runs.
 * @param lowered each of the program's graphs by name, and those of blocks that run again
 * @param numbers how malc_run holds single numbers
 * @param trains false for a program without the latter
 */
export function emitStages<Source>(
  { embedding, blocks, head, modules }: Program,
  lowered: Lowered,
  numbers: 'themselves' | 'pointers',
  emit: Readonly<Record<'always' | 'training', EmitFunction<Source>>>,
  trains: boolean,
): { forward: Source[]; backward: Source[] } {
  const homesOf = (stage: Stage) => homes(stage, numbers);
  const reads = (stage: Stage) => `const malc_run *run, const ${stage.name}_parameters *p`;
  const writes = (stage: Stage) => `${reads(stage)}, const ${stage.name}_parameters *g`;
  const train = (stage: HeadStage) =>
    emit.training(stage.train, stage, `${writes(stage)}, const float *x, float *x_gradient`, homesOf(stage));
  const backOf = (stage: BlockStage | JoinStage) => {
    if (stage.backward === null) return [];
    const given = `const ${stage.name}_saved *s, const float *x, const float *y_gradient, float *x_gradient`;
    return [emit.training(stage.backward, stage, `${writes(stage)}, ${given}`, homesOf(stage))];
  };
  const forthOf = (stage: BlockStage | JoinStage, need: 'always' | 'training', graph = stage.forward) => {
    const given = `${stage.backward === null ? '' : `const ${stage.name}_saved *s, `}const float *x, float *y`;
    return emit[need](graph, stage, `${reads(stage)}, ${given}`, homesOf(stage));
  };
  // Its kernels read weights as those of the forward function do.
  const againOf = (stage: BlockStage) => {
    const again = lowered.get(againName(stage.name));
    return again ? [forthOf(stage, 'always', again.graph)] : [];
  };
  const decodeOf = (stage: BlockStage) => {
    const given = `const ${stage.name}_cache *c, const float *x, float *y`;
    return emit.always(stage.decode, stage, `${reads(stage)}, ${given}`, homesOf(stage));
  };
  const forward = [
    emit.always(embedding.forward, embedding, `${reads(embedding)}, float *y`, homesOf(embedding)),
    ...blocks.flatMap(block => [forthOf(block, 'always'), decodeOf(block)]),
    emit.always(head.logits, head, `${reads(head)}, const float *x, float *logits`, homesOf(head)),
    emit.always(head.loss, head, `${reads(head)}, const float *x`, homesOf(head)),
  ];
  if (!trains) return { forward, backward: [] };
  const backward = [
    train(head),
    ...(modules ? [forthOf(modules.join, 'training'), train(modules.head), ...backOf(modules.join)] : []),
    ...blocks.flatMap(againOf),
    ...blocks.flatMap(backOf),
    ...(embedding.backward
      ? [
          emit.training(
            embedding.backward,
            embedding,
            `${writes(embedding)}, const float *y_gradient`,
            homesOf(embedding),
          ),
        ]
      : []),
  ];
  return { forward, backward };
}
