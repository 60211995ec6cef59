// The functions that finish elements of the groups of a matmul kernel: their heads, and how they are called. finish.ts prints
// what is in them.
import type { Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { type Finish, finishText } from './finish.ts';
import { type Passing, passingParameter } from './hopper-finish.ts';
import { type Argument, parameterList, type Surroundings } from './kernel-source.ts';
import type { GroupPlan, Operand, Product } from './product-plan.ts';
import { statisticType } from './statistics.ts';
import type { TileText } from './tile-text.ts';
import { sumsInPlace } from './totals.ts';

/** The function that finishes elements of a group. */
interface Finisher {
  readonly name: string;
  readonly usesInside: boolean;
  /** What it takes besides sums, row, column and whether these are inside: names, and tensors that pass. */
  readonly given: readonly (string | Passing)[];
  readonly text: string;
}

export class Finishers {
  private readonly byPlan = new Map<GroupPlan, Finisher>();
  private readonly parameters: readonly Argument[];
  private readonly named: ReadonlyMap<Node, string>;
  private readonly argumentOf: (operand: Operand) => string;
  private readonly surroundings: Surroundings;

  /**
   * @param parameters the kernel's
   * @param named what inputs, outputs and members are called
   * @param argumentOf the argument that an operand is
   */
  constructor(
    parameters: readonly Argument[],
    named: ReadonlyMap<Node, string>,
    argumentOf: (operand: Operand) => string,
    surroundings: Surroundings,
  ) {
    this.parameters = parameters;
    this.named = named;
    this.argumentOf = argumentOf;
    this.surroundings = surroundings;
  }

  /** Prints those of some plans, each distinct one once. */
  print(writer: Writer, plans: readonly GroupPlan[], name: string): void {
    plans.forEach((plan, n) => {
      const { group, sums, atOnce } = plan;
      const passing = plan.way === 'later' ? null : plan.passing;
      const finish: Finish = {
        ...group,
        sums,
        atOnce: passing ? 2 : atOnce,
        passing: new Set(passing?.filter(each => each.way !== 'measured').map(each => each.node)),
        totals: passing && sumsInPlace(plan) ? group.totals : [],
        measured: passing?.find(({ way }) => way === 'measured')?.node ?? null,
      };
      const text = finishText(finish, this.named, this.surroundings);
      const known = [...this.byPlan].find(([other, finisher]) => other.group === group && finisher.text === text);
      if (known) this.byPlan.set(plan, known[1]);
      else this.printOne(writer, plan, plans.length === 1 ? name : `${name}_${n}`, text, passing ?? []);
    });
  }

  private printOne(writer: Writer, plan: GroupPlan, name: string, text: string, passing: readonly Passing[]): void {
    const { products } = plan;
    const rest = this.parameters.filter(argument => uses(text, parameterName(argument)));
    const usesInside = uses(text, 'inside');
    const place = ['row', columnName(plan)].map(each => (uses(text, each) ? `int64_t ${each}` : 'int64_t'));
    const measured = passing.filter(({ way }) => way === 'measured');
    const passes = (argument: Argument) =>
      passing.find(
        each =>
          !measured.includes(each) && 'node' in argument && argument.kind !== 'copy' && argument.node === each.node,
      );
    const list = [
      ...['const Sums &sums', ...place, ...(usesInside ? ['bool inside'] : [])],
      ...rest.map(argument => {
        const each = passes(argument);
        return each
          ? passingParameter(each, parameterName(argument))
          : parameterList([argument], this.surroundings.storageOf);
      }),
      ...measured.map(() => `${statisticType(plan.group)} &statistics`),
    ];
    writer.comment(products.map(product => this.formula(product)));
    writer.line('template <class Sums>');
    writer.block(`static DEVICE void ${name}(${list.join(', ')})`, () => {
      for (const line of text.trimEnd().split('\n')) writer.line(line);
    });
    writer.line();
    const given = [...rest.map(argument => passes(argument) ?? parameterName(argument)), ...measured];
    this.byPlan.set(plan, { name, usesInside, given, text });
  }

  /** A call of a plan's. */
  call(plan: GroupPlan, row: string, column: string, tiles?: TileText): string {
    const { name, usesInside, given } = this.byPlan.get(plan)!;
    const rest = given.map(each => (typeof each === 'string' ? each : tiles!.twoOf(each)));
    return `${name}(${['sums', row, column, ...(usesInside ? ['inside'] : []), ...rest].join(', ')});`;
  }

  /** Whether a plan's takes whether elements are inside the result. */
  usesInside(plan: GroupPlan): boolean {
    return this.byPlan.get(plan)!.usesInside;
  }

  private formula({ node, left, right, inner }: Product): string {
    const [product, a, b] = [this.named.get(node)!, this.argumentOf(left), this.argumentOf(right)];
    return `${product} = ${a} x ${b}, summed over ${inner.map(dim => dim.name).join(', ')}`;
  }
}

/** What a finishing function calls its column, or the first of four. */
const columnName = ({ atOnce }: GroupPlan): string => (atOnce === 1 ? 'column' : 'first');

/** Whether a text has a name as a word, and not as a member. */
export const uses = (text: string, name: string): boolean => new RegExp(`(?<![.\\w])${name}\\b`).test(text);

/** What the kernel's parameter is called. */
export function parameterName(argument: Argument): string {
  switch (argument.kind) {
    case 'size':
    case 'input':
    case 'output':
    case 'copy':
      return argument.name;
    case 'text':
      throw new Error('products have no arguments of their own');
    default:
      return argument.kind;
  }
}
