// Builds nodes. The same primitive on the same inputs with the same attributes is the same node, so common
// subexpressions never arise.
import type { Dimension } from './dimension.ts';
import type { DataType, Node, Primitive } from './graph.ts';

export class Builder {
  private nextId = 0;
  private readonly known = new Map<string, Node>();
  /** Where the nodes that are made now come from; set by whoever walks the model. */
  private origin = '';
  private label = '';

  /** How many nodes were made so far: the id of the next one. */
  get size(): number {
    return this.nextId;
  }

  /** A tensor that the graph is given. */
  input(label: string, dimensions: readonly Dimension[], dtype: DataType = 'f32'): Node {
    return this.make({ primitive: null, inputs: [], attributes: null, dimensions, dtype, label, origin: '' });
  }

  apply<A>(primitive: Primitive<A>, inputs: readonly Node[], attributes: A): Node {
    const key = `${primitive.name}(${inputs.map(input => input.id).join(',')})${JSON.stringify(attributes)}`;
    const existing = this.known.get(key);
    if (existing) return existing;
    const { dimensions, dtype } = primitive.type(inputs, attributes);
    const node = this.make({
      primitive: primitive as Primitive,
      inputs,
      attributes,
      dimensions,
      dtype,
      label: this.label || primitive.name,
      origin: this.origin,
    });
    this.known.set(key, node);
    return node;
  }

  /** What another graph has, on these inputs: its label and origin too. */
  again({ primitive, attributes, label, origin, dimensions, dtype }: Node, inputs: readonly Node[]): Node {
    if (primitive === null) return this.input(label, dimensions, dtype);
    return this.within(label, origin, () => this.apply(primitive, inputs, attributes));
  }

  /** Runs `build` with a label and an origin that every node made inside carries. */
  within<T>(label: string, origin: string, build: () => T): T {
    const before = [this.label, this.origin] as const;
    this.label = label;
    this.origin = origin;
    try {
      return build();
    } finally {
      [this.label, this.origin] = before;
    }
  }

  /** Runs `build` with something appended to the label: `norm_sum` for the sum inside a norm. */
  suffixed<T>(suffix: string, build: () => T): T {
    return this.within(this.label + suffix, this.origin, build);
  }

  /** Gives a node a better label, once it is known what it is. Labels are for people: nothing else depends on them. */
  rename(node: Node, label: string): void {
    (node as { label: string }).label = label;
  }

  private make(fields: Omit<Node, 'id'>): Node {
    return { id: this.nextId++, ...fields };
  }
}
