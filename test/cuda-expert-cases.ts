// Products of experts with operands of bfloat16, for test/cuda-hopper-experts.test.ts and the faults that are planted.
import { Builder } from '../compiler/graph/builder.ts';
import { makeGraph } from '../compiler/graph/graph.ts';
import type { ProductCase } from './cuda-product-cases.ts';
import { groupedNodes, type Shape } from './grouped-graphs.ts';

/** What products of experts multiply, and is stored as bfloat16. */
export const expertOperands = ['left', 'weights', 'gradient'];

/** The product of a shape's slots and the gradient of its weights, each a kernel of its own. */
export function expertCases(name: string, shape: Shape, time: number, narrow = expertOperands): ProductCase[] {
  const { product, ofWeights } = groupedNodes(new Builder(), shape);
  const results = { product, 'gradient.weights': ofWeights };
  // The lowest experts are chosen most often, the first one never.
  const low = shape.experts > 1 ? 1 : 0;
  return Object.entries(results).map(([label, node]) => ({
    name: `${name}_${label.replace('.', '_')}`,
    graph: makeGraph(name, [{ name: label, node: { ...node, label }, accumulate: node === ofWeights }]),
    narrow,
    calls: [{ batch: 2, time }],
    later: false,
    integer: random => low + Math.floor(random ** 2 * (shape.experts - low)),
  }));
}
