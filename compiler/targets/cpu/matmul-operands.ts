// Operands of products: how each lies in memory, and in which form products read the right ones. A right operand is read as
// it lies there, from the form in which its parameter is kept (prepared.ts), or packed by the kernel once for all its tasks.

import { countText, plus, times } from '../../emission/index-text.ts';
import type { Names, Writer } from '../../emission/writer.ts';
import { type Dimension, hasDimension, product as productOf } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, type MatmulKernel, stored } from '../../kernels/kernel.ts';
import type { ContractAttributes } from '../../ops/contract.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { packedBf16 } from './block-sizes.ts';
import type { Surroundings } from './kernel-source.ts';
import { formName, type PreparedForm, preparedForm } from './prepared.ts';

export interface RightOperand {
  readonly node: Node;
  readonly inner: readonly Dimension[];
  readonly columns: readonly Dimension[];
  /** The operand as it lies in memory, and in panels. */
  readonly matrix: string;
  readonly packed: string;
  /** Ends the names of functions for products of other numbers than float32. */
  readonly suffix: '' | '_bf16' | '_int8';
  /** Set where it is a parameter that is kept packed, and comes as an argument; else the kernel packs it. */
  readonly form: PreparedForm | null;
}

/** The operands of one kernel. */
export class MatmulOperands {
  private readonly kernel: MatmulKernel;
  private readonly surroundings: Surroundings;
  private readonly named: ReadonlyMap<Node, string>;
  /** Each distinct right operand once, whatever products read it. */
  private readonly byKey = new Map<string, RightOperand>();

  /**
   * @param named the kernel's own names of its values
   * @param names what else is named in the kernel
   */
  constructor(kernel: MatmulKernel, surroundings: Surroundings, named: ReadonlyMap<Node, string>, names: Names) {
    this.kernel = kernel;
    this.surroundings = surroundings;
    this.named = named;
    for (const group of kernel.groups)
      for (const node of group.products) {
        const key = rightKey(node, group);
        if (this.byKey.has(key)) continue;
        const right = node.inputs[1]!;
        const name = named.get(right)!;
        const { suffix, form } = this.kindOfRight(node, group);
        const matrix = names.unique(`${name}_matrix`);
        const packed = names.unique(form ? formName(name, form.way) : `${name}_packed`);
        const { columns } = group;
        this.byKey.set(key, { node: right, inner: innerOf(node), columns, matrix, packed, suffix, form });
      }
  }

  get rights(): RightOperand[] {
    return [...this.byKey.values()];
  }

  /** What a product of a group multiplies by. */
  rightOf(node: Node, group: MatmulGroup): RightOperand {
    return this.byKey.get(rightKey(node, group))!;
  }

  /** Those that are read as they lie in memory. */
  private get plainRights(): RightOperand[] {
    return this.rights.filter(({ form }) => !form);
  }

  /** Of these, the rounded ones, which the kernel packs once for all tasks. */
  get packedHere(): RightOperand[] {
    return this.plainRights.filter(({ suffix }) => suffix !== '');
  }

  /**
   * How a product reads its right operand. Numbers of 8 bits share scales along the inner dimension, which must be the one
   * that lies contiguous: other operands stay float32.
   */
  private kindOfRight(node: Node, group: MatmulGroup): Pick<RightOperand, 'suffix' | 'form'> {
    const { dtype, isParameter } = this.surroundings;
    if (dtype === 'f32' || (node.attributes as ContractAttributes).exact) return { suffix: '', form: null };
    const right = node.inputs[1]!;
    const form = isParameter(right) ? preparedForm(right, innerOf(node), group.columns) : null;
    if (dtype === 'bf16') return { suffix: '_bf16', form };
    return form?.way === 'forward' ? { suffix: '_int8', form } : { suffix: '', form: null };
  }

  /** What the kernel reads as it lies in memory: all inputs but those that products alone read, and prepared. */
  plainInputs(): Node[] {
    const { rights } = this;
    const read = new Set([
      ...rights.filter(({ form }) => !form).map(({ node }) => node),
      ...this.kernel.groups.flatMap(({ products, epilogue }) => [
        ...products.map(node => node.inputs[0]!),
        ...epilogue.flatMap(node => node.inputs.flatMap(stored)),
      ]),
    ]);
    return this.kernel.inputs.filter(node => read.has(node) || !rights.some(right => right.node === node));
  }

  /** What packedHere takes. */
  workspace(): Extent[] {
    return this.packedHere.flatMap(({ inner, columns }) => {
      const { runtime, count } = extentOf(inner);
      const width = productOf(columns.map(dim => dim.size!));
      const { each, padding } = packedBf16(width);
      return [
        { runtime, count: count * each },
        { runtime: [], count: padding },
      ];
    });
  }

  /** Declares what is read as it lies in memory, and where the packed forms of it go. */
  declareRights(writer: Writer): void {
    let from = 'workspace';
    for (const { node, matrix, packed, inner, columns, suffix } of this.plainRights) {
      const { type, tail } = this.kindOf(node);
      const source = matrixText(this.named.get(node)!, node.dimensions, inner, columns, tail);
      writer.line(`const ${type} ${matrix} = ${source};`);
      if (suffix === '') continue;
      writer.line(`float *${packed} = ${from};`);
      from = `${packed} + malc_packed_size${suffix}(${countText(inner)}, ${countText(columns)})`;
    }
  }

  /**
   * Packs what tasks wait for.
   * @param few whether the kernel has a variable `few`, and packs nothing where it is true
   */
  pack(writer: Writer, few: boolean): void {
    if (this.packedHere.length === 0) return;
    const body = () => {
      for (const { node, matrix, packed, inner, columns, suffix } of this.packedHere) {
        const right = this.operandText(node, matrix, suffix);
        writer.line(`malc_pack${suffix}(${packed}, ${right}, ${countText(inner)}, ${countText(columns)});`);
      }
      writer.line('#pragma omp barrier');
    };
    if (few) writer.block('if (!few)', body);
    else body();
  }

  /**
   * Declares a task's rows, from `first` on, of each left operand that the group's products read.
   * @param names of the task's own scope
   */
  declareLefts(writer: Writer, { products, rows }: MatmulGroup, names: Names): ReadonlyMap<Node, string> {
    const lefts = new Map<Node, string>();
    for (const node of products) {
      const [left] = node.inputs as [Node];
      if (lefts.has(left)) continue;
      const name = names.unique(`${this.named.get(left)}_slice`);
      const from = plus([this.named.get(left)!, times('first', strideOf(left.dimensions, rows))]);
      const { type, tail } = this.kindOf(left);
      const matrix = matrixText(from, left.dimensions, rows, innerOf(node), tail);
      writer.line(`const ${type} ${name} = ${matrix};`);
      lefts.set(left, name);
    }
    return lefts;
  }

  /** How an operand of products is described in C: one of bfloat16 says so. */
  kindOf(operand: Node): { type: string; tail: string; isNarrow: boolean } {
    const isNarrow = this.surroundings.storageOf(operand) === 'bf16';
    return isNarrow ? { type: 'malc_operand', tail: ', true', isNarrow } : { type: 'malc_matrix', tail: '', isNarrow };
  }

  /** The C text of a declared operand as functions that end so take it. */
  operandText(operand: Node, name: string, suffix: string): string {
    return suffix === '' || this.kindOf(operand).isNarrow ? name : `malc_floats(${name})`;
  }
}

const rightKey = (node: Node, group: MatmulGroup): string => {
  const { exact = false } = node.attributes as ContractAttributes;
  return `${node.inputs[1]!.id}:${group.columns.map(dim => dim.name).join()}:${exact}`;
};

/** The dimensions that a product sums over, in the left operand's order. */
export function innerOf(node: Node): Dimension[] {
  const [left, right] = node.inputs as [Node, Node];
  return left.dimensions.filter(dim => hasDimension(right.dimensions, dim.name));
}

/** Elements between two consecutive positions along `dims`, which lie side by side in the tensor. */
function strideOf(tensor: readonly Dimension[], dims: readonly Dimension[]): string {
  const last = tensor.findIndex(dim => dim.name === dims.at(-1)!.name);
  return countText(tensor.slice(last + 1));
}

/**
 * A tensor as a matrix with these rows and columns.
 * @param tail what the initializer has after data and strides
 */
function matrixText(
  data: string,
  tensor: readonly Dimension[],
  rows: readonly Dimension[],
  columns: readonly Dimension[],
  tail: string,
): string {
  const order = tensor.map(dim => dim.name).join();
  const names = (dims: readonly Dimension[]) => dims.map(dim => dim.name);
  const plain = [...names(rows), ...names(columns)].join();
  const transposed = [...names(columns), ...names(rows)].join();
  if (order !== plain && order !== transposed)
    throw new Error(`matmul: [${order}] is not a matrix of [${names(rows)}] by [${names(columns)}]`);
  return `{ ${data}, ${strideOf(tensor, rows)}, ${strideOf(tensor, columns)}${tail} }`;
}
