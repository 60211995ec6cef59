// Prepared weights: parameters in the forms in which products read them, kept beside the float32 values and made again
// whenever those change. Which forms a program needs is known once all its functions are emitted.
import { type Dimension, product } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';

/** Which way products read a matrix [rows][columns]: forward sums over its columns, backward over its rows. */
export const ways = ['forward', 'backward'] as const;
export type Way = (typeof ways)[number];

/** One form of a parameter, which is read as a matrix. */
export interface PreparedForm {
  /** The parameter's name in its stage. */
  readonly parameter: string;
  readonly way: Way;
  /** Rows of the matrix in memory: elements of the dimensions that come first. */
  readonly rows: number;
}

/**
 * The form in which a product reads a parameter as its right operand; null where the two groups of dimensions do not lie
 * one after the other.
 */
export function preparedForm(
  right: Node,
  inner: readonly Dimension[],
  columns: readonly Dimension[],
): PreparedForm | null {
  const names = (dims: readonly Dimension[]) => dims.map(dim => dim.name).join();
  const order = names(right.dimensions);
  const form = (way: Way, first: readonly Dimension[]): PreparedForm => ({
    parameter: right.label,
    way,
    rows: product(first.map(dim => dim.size!)),
  });
  if (order === names([...columns, ...inner])) return form('forward', columns);
  if (order === names([...inner, ...columns])) return form('backward', inner);
  return null;
}

/** What the struct of parameters calls a form. */
export const formName = (parameter: string, way: Way): string => `${parameter}_${way}`;

/** When a form exists. */
export type Need = 'never' | 'always' | 'training';

export interface Prepared {
  readonly rows: number;
  readonly needs: Readonly<Record<Way, Need>>;
}

/** The forms that functions read, by the names of parameters that tell them apart. */
export class PreparedWeights {
  private readonly byName = new Map<string, Prepared>();

  /**
   * @param name tells the parameter from those of other stages
   * @param need `training` where only training runs the function
   */
  add(name: string, { way, rows }: PreparedForm, need: 'always' | 'training'): void {
    const known = this.byName.get(name) ?? { rows, needs: { forward: 'never', backward: 'never' } };
    if (known.rows !== rows) throw new Error(`${name} is read as ${rows} rows and as ${known.rows}`);
    const before = known.needs[way];
    this.byName.set(name, { rows, needs: { ...known.needs, [way]: before === 'always' ? before : need } });
  }

  /** Undefined where products read it in no form. */
  get(name: string): Prepared | undefined {
    return this.byName.get(name);
  }

  get isEmpty(): boolean {
    return this.byName.size === 0;
  }
}
