// The trained tensors of a model: their Hugging Face names and shapes, and how each starts.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, product } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';

export type Initial =
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'normal'; readonly deviation: number };

/** A parameter of a stage, under a name that is local to the stage (`self_attn.q_proj.weight`). */
export interface Parameter {
  readonly name: string;
  /** As files hold it: [out, in] for matrices. A graph may see the same elements under more dimensions. */
  readonly shape: readonly number[];
  readonly initial: Initial;
}

/** Collects a stage's parameters while its graph is built; each becomes an input under its local name. */
export class Parameters {
  readonly declared: Parameter[] = [];
  readonly nodes: Node[] = [];
  private readonly builder: Builder;

  constructor(builder: Builder) {
    this.builder = builder;
  }

  /** A matrix: `outer` dimensions come out of it, `inner` go in. Stored [product of outer, product of inner]. */
  matrix(name: string, outer: readonly Dimension[], inner: readonly Dimension[], deviation: number): Node {
    const count = (dims: readonly Dimension[]) => product(dims.map(dim => dim.size!));
    return this.declare({ name, shape: [count(outer), count(inner)], initial: { kind: 'normal', deviation } }, [
      ...outer,
      ...inner,
    ]);
  }

  /** A vector that starts at one value. Stored as one dimension. */
  vector(name: string, dims: readonly Dimension[], value: number): Node {
    return this.declare(
      { name, shape: [product(dims.map(dim => dim.size!))], initial: { kind: 'constant', value } },
      dims,
    );
  }

  private declare(parameter: Parameter, dims: readonly Dimension[]): Node {
    const known = this.nodes.find(node => node.label === parameter.name);
    if (known) return known;
    this.declared.push(parameter);
    const node = this.builder.input(parameter.name, dims);
    this.nodes.push(node);
    return node;
  }
}
