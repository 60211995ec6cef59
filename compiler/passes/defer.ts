// defer: what is one number for a row, as a norm's scale, is multiplied to the results of the products that read the row,
// and not to the row: (s x) W = s (x W). A product that makes x can then leave what the next one reads, before anyone knows
// s, which is made of all columns.
import { Builder } from '../graph/builder.ts';
import { sameDimensions } from '../graph/dimension.ts';
import { consumers, type Graph, makeGraph, type Node } from '../graph/graph.ts';
import { isExact } from '../ops/contract.ts';
import { type MapAttributes, mapOver } from '../ops/map.ts';
import { statisticsOf } from '../ops/statistics.ts';
import { multiply, operand, type Scalar } from '../scalar/expression.ts';

/** A map that is taken apart: the number of its row, and what is left of it. */
interface Deferred {
  readonly scale: Node;
  readonly rest: Scalar;
}

/** The same graph with the scales of rows that a product has made multiplied after the next. Values do not change. */
export function defer(graph: Graph): Graph {
  const readers = consumers(graph);
  const deferred = new Map<Node, Deferred>();
  for (const node of graph.nodes) {
    const found = takeApart(node, graph, readers);
    if (found) deferred.set(node, found);
  }
  const builder = new Builder();
  const copies = new Map<Node, Node>();
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(input => copies.get(input)!);
    const own = deferred.get(node);
    const left = node.inputs[0] && deferred.get(node.inputs[0]);
    const copy = () => {
      if (own) return builder.suffixed('_unscaled', () => mapOver(builder, node.dimensions, own.rest, inputs));
      if (!left) return builder.again(node, inputs);
      const product = builder.apply(node.primitive!, inputs, node.attributes);
      return mapOver(builder, node.dimensions, multiply(operand(0), operand(1)), [product, copies.get(left.scale)!]);
    };
    copies.set(node, builder.within(node.label, node.origin, copy));
  }
  return makeGraph(
    graph.name,
    graph.outputs.map(output => ({ ...output, node: copies.get(output.node)! })),
  );
}

/**
 * Takes a map apart where only products read it, and round what they read; where it is a product of factors, of which one
 * is a statistic of the rows of another; and where a product makes that and it is stored, so that no pass over it is left.
 */
function takeApart(node: Node, graph: Graph, readers: ReadonlyMap<Node, readonly Node[]>): Deferred | null {
  if (node.primitive?.name !== 'map' || graph.outputs.some(output => output.node === node)) return null;
  const factors = factorsOf((node.attributes as MapAttributes).expression);
  const nodeOf = (factor: Scalar) => (factor.kind === 'operand' ? node.inputs[factor.index]! : null);
  const made = factors.map(nodeOf).find(factor => factor && isMadeByProduct(factor, node));
  if (!made || !graph.outputs.some(output => output.node === made)) return null;
  const statistics = statisticsOf(made, graph.nodes)?.members ?? [];
  const scale = factors.find(factor => statistics.includes(nodeOf(factor)!));
  if (!scale) return null;
  const own = readers.get(node)!;
  const rest = factors.filter(factor => factor !== scale).reduce(multiply);
  const scaleNode = nodeOf(scale)!;
  const isScaledAfter = (reader: Node) =>
    reader.primitive?.name === 'contract' &&
    !isExact(reader) &&
    reader.inputs[0] === node &&
    reader.inputs[1] !== node &&
    sameDimensions(reader.dimensions.slice(0, scaleNode.dimensions.length), scaleNode.dimensions);
  return own.length > 0 && own.every(isScaledAfter) ? { scale: scaleNode, rest } : null;
}

/** Whether a value as wide as the map that reads it is finished in the epilogue of a product. */
const isMadeByProduct = ({ primitive, inputs, dimensions }: Node, reader: Node): boolean =>
  primitive?.name === 'map' &&
  sameDimensions(dimensions, reader.dimensions) &&
  inputs.some(input => input.primitive?.name === 'contract');

/** What is multiplied, `a`, `b` and `c` of `a * b * c`. */
const factorsOf = (scalar: Scalar): Scalar[] =>
  scalar.kind === 'apply' && scalar.name === 'multiply' ? scalar.args.flatMap(factorsOf) : [scalar];
