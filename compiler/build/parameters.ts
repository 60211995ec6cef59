// The trained tensors of a model: their Hugging Face names and shapes, and how each starts.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, product } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';

export type Initial =
  /** These values, over and over. */
  | { readonly kind: 'cycle'; readonly values: readonly number[] }
  | { readonly kind: 'normal'; readonly deviation: number }
  /** softplus of it is uniform between 0.001 and 0.1 on a logarithmic scale: Mamba's step sizes (section 3.6). */
  | { readonly kind: 'time_step' };

/** What biases start from. */
export const zeros: Initial = { kind: 'cycle', values: [0] };

/** A parameter of a stage, under a name that is local to the stage (`self_attn.q_proj.weight`). */
export interface Parameter {
  readonly name: string;
  /** As files hold it: [out, in] for matrices. A graph may see the same elements under more dimensions. */
  readonly shape: readonly number[];
  readonly initial: Initial;
  /** For a bias of experts that no gradient moves: by how much an update does, towards equal loads. Null for all else. */
  readonly balance_rate: number | null;
  /** Whether training leaves it as it is. */
  readonly frozen: boolean;
  /** Whether it maps features to features, itself or as a stack of such maps: no table of rows, filter or router does. */
  readonly isMap: boolean;
}

/** Collects a stage's parameters while its graph is built; each becomes an input under its local name. */
export class Parameters {
  readonly declared: Parameter[] = [];
  readonly nodes: Node[] = [];
  private readonly builder: Builder;
  private readonly isFrozen: (name: string) => boolean;

  /** @param isFrozen whether training leaves a parameter as it is, by its local name */
  constructor(builder: Builder, isFrozen: (name: string) => boolean) {
    this.builder = builder;
    this.isFrozen = isFrozen;
  }

  /**
   * A matrix: `outer` dimensions come out of it, `inner` go in. Stored [product of outer, product of inner].
   * @param initial a number stands for the standard deviation of normal numbers
   * @param isMap false for what is a table of numbers, and has the shape of a matrix alone
   */
  matrix(
    name: string,
    outer: readonly Dimension[],
    inner: readonly Dimension[],
    initial: Initial | number,
    isMap = true,
  ): Node {
    return this.declare(name, [outer, inner], initial, { isMap });
  }

  /** A matrix for each of the experts. Stored [experts, product of outer, product of inner]. */
  matrices(
    name: string,
    experts: Dimension,
    outer: readonly Dimension[],
    inner: readonly Dimension[],
    deviation: number,
  ): Node {
    return this.declare(name, [[experts], outer, inner], deviation, { isMap: true });
  }

  /** A vector. Stored as one dimension. */
  vector(name: string, dims: readonly Dimension[], initial: Initial): Node {
    return this.declare(name, [dims], initial);
  }

  /** A vector that starts at zero, is never trained, and moves with what an update is told of it. */
  balanced(name: string, dims: readonly Dimension[], rate: number): Node {
    return this.declare(name, [dims], zeros, { balance_rate: rate });
  }

  private declare(
    name: string,
    axes: readonly (readonly Dimension[])[],
    initial: Initial | number,
    { balance_rate = null, isMap = false }: Partial<Pick<Parameter, 'balance_rate' | 'isMap'>> = {},
  ): Node {
    const known = this.nodes.find(node => node.label === name);
    if (known) return known;
    const shape = axes.map(dims => product(dims.map(dim => dim.size!)));
    const start = typeof initial === 'number' ? ({ kind: 'normal', deviation: initial } as const) : initial;
    this.declared.push({ name, shape, initial: start, balance_rate, frozen: this.isFrozen(name), isMap });
    const node = this.builder.input(name, axes.flat());
    this.nodes.push(node);
    return node;
  }

  /** Those that gradients move. */
  get trained(): Node[] {
    return this.nodes.filter((_, n) => this.declared[n]!.balance_rate === null && !this.declared[n]!.frozen);
  }
}
