// Random parameters of a whole program, for tests that evaluate its graphs.
import type { Program } from '../compiler/build/program.ts';
import { product } from '../compiler/graph/dimension.ts';

/** Random values for every parameter that gradients move, and zeros for the others. */
export function drawParameters({ model, embedding, blocks, head, modules }: Program, random: () => number) {
  const isLocal = (parameter: { name: string }) => !/^(model|lm_head)\./.test(parameter.name);
  const stages = [
    { prefix: '', parameters: embedding.parameters },
    ...model.layers.map((kind, layer) => ({
      prefix: `model.layers.${layer}.`,
      parameters: blocks[kind]!.parameters,
    })),
    { prefix: '', parameters: head.parameters },
    ...Array.from({ length: model.mtp?.depth ?? 0 }, (_, n) => ({
      prefix: `model.layers.${model.layers.length + n}.`,
      parameters: [modules!.join, blocks[model.layers.at(-1)!]!, modules!.head].flatMap(stage =>
        stage.parameters.filter(isLocal),
      ),
    })),
  ];
  const values = new Map<string, Float64Array>();
  const trained = new Set<string>();
  for (const { prefix, parameters } of stages)
    for (const { name, shape, balance_rate } of parameters) {
      const [middle, spread] = shape.length === 1 ? [0.8, 0.3] : [0, 1.5 / Math.sqrt(shape.at(-1)!)];
      values.set(
        prefix + name,
        Float64Array.from({ length: product(shape) }, () => middle + spread * (2 * random() - 1)),
      );
      if (balance_rate === null) trained.add(prefix + name);
    }
  return { values, trained };
}
