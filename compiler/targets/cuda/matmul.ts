// Emits matmul kernels on top of templates/cuda/product*.h: a block computes a tile of a group's products and finishes its
// elements. Where that cannot be (product-plan.ts), sums go to the workspace, and a second launch finishes them.
import { countText, plus, times } from '../../emission/index-text.ts';
import { addsArgument, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulKernel, stored } from '../../kernels/kernel.ts';
import { finishNames, finishText } from './finish.ts';
import { type Argument, type KernelSource, type Launch, parameterList, type Surroundings } from './kernel-source.ts';
import {
  columnCount,
  type GroupPlan,
  type Operand,
  type Product,
  partsOf,
  planGroup,
  workspaceOf,
} from './product-plan.ts';
import { copyingThreads, isSmall, roundingThreads, tileType } from './product-tiles.ts';
import { copyName } from './weight-copies.ts';

/** Threads of a block of the second launch. */
const secondThreads = 256;
/** And what bounds it: left alone, ptxas would save registers for more blocks at the price of spills. */
const secondBounds = `${secondThreads}, 4`;

export function emitMatmul(kernel: MatmulKernel, surroundings: Surroundings): KernelSource {
  return new MatmulEmitter(kernel, surroundings).emit();
}

class MatmulEmitter {
  private readonly surroundings: Surroundings;
  private readonly named = new Map<Node, string>();
  /** What the copies of weights are called. */
  private readonly copies = new Map<Node, string>();
  private readonly plans: readonly GroupPlan[];
  private readonly threads: number;
  private readonly parameters: readonly Argument[];
  /** What each group's finishing function is called, and takes besides sums, row and column. */
  private readonly finishers = new Map<GroupPlan, { name: string; rest: readonly string[] }>();

  constructor(kernel: MatmulKernel, surroundings: Surroundings) {
    this.surroundings = surroundings;
    const names = new Names();
    for (const name of [...finishNames, 'finish', 'left', 'right', 'tiles', 'tile', 'thread', 'adds'])
      names.unique(name);
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, names.unique(surroundings.nameOf(node)));
    this.plans = kernel.groups.map(group => planGroup(group, surroundings));
    this.threads = this.products.every(isCopied) ? copyingThreads : roundingThreads;
    for (const operand of this.operands) {
      const { node, copy } = operand;
      if (copy && !this.copies.has(node)) this.copies.set(node, names.unique(copyName(this.named.get(node)!)));
    }
    const extents = this.plans.map(workspaceOf).filter(extent => extent !== null);
    this.parameters = [
      ...sizeArguments([
        ...kernel.groups.flatMap(group => [group.rows, group.columns]),
        ...kernel.inputs.map(node => node.dimensions),
      ]),
      ...this.inputs(kernel),
      ...kernel.outputs.map(node => ({ kind: 'output' as const, node, name: this.named.get(node)! })),
      ...addsArgument(kernel.outputs, surroundings),
      ...(extents.length > 0 ? [{ kind: 'workspace' as const, extents }] : []),
    ];
  }

  /** What the kernel reads: copies of weights, and all else as it is. */
  private inputs({ inputs, groups }: MatmulKernel): Argument[] {
    const copies = new Map(this.operands.flatMap(({ node, copy }) => (copy ? [[node, copy] as const] : [])));
    const readAsIs = new Set([
      ...this.operands.flatMap(({ node, copy }) => (copy ? [] : [node])),
      ...groups.flatMap(({ epilogue }) => epilogue.flatMap(node => node.inputs.flatMap(stored))),
    ]);
    return inputs.flatMap((node): Argument[] => {
      const copy = copies.get(node);
      const own = { kind: 'input', node, name: this.named.get(node)! } as const;
      if (!copy) return [own];
      return [{ kind: 'copy', node, name: this.copies.get(node)!, copy }, ...(readAsIs.has(node) ? [own] : [])];
    });
  }

  private get operands(): Operand[] {
    return this.products.flatMap(({ left, right }) => [left, right]);
  }

  private get products(): Product[] {
    return this.plans.flatMap(plan => plan.products);
  }

  emit(): KernelSource {
    const { plans, threads } = this;
    const writer = new Writer();
    plans.forEach((plan, n) => {
      this.finishFunction(writer, plan, plans.length === 1 ? `${ownName}_finish` : `${ownName}_finish_${n}`);
    });
    writer.comment(this.surroundings.comment);
    const jobs = plans.flatMap(plan =>
      plan.way === 'later'
        ? plan.products.map((product, n) => ({
            blocks: blocksOfProduct(plan, product),
            print: (body: Writer) => this.toWorkspace(body, plan, n),
          }))
        : [{ blocks: blocksHere(plan), print: (body: Writer) => this.here(body, plan) }],
    );
    this.kernelFunction(writer, ownName, this.bounds(), body => {
      body.line(`${jobs.length > 1 ? '' : 'const '}int block = blockIdx.x;`);
      for (const { blocks, print } of jobs.slice(0, -1)) {
        body.block(`if (block < ${blocks})`, () => {
          print(body);
          body.line('return;');
        });
        body.line(`block -= ${blocks};`);
      }
      jobs.at(-1)!.print(body);
    });
    const types = new Set(plans.flatMap(plan => plan.products.map(product => this.tileOf(plan, product))));
    const shared = [...types].map(type => `${type}::shared_bytes`);
    const launches: Launch[] = [
      {
        kernel: ownName,
        grid: jobs.map(({ blocks }) => blocks).join(' + '),
        block: String(threads),
        shared: shared.reduce((most, bytes) => `malc_larger(${most}, ${bytes})`),
      },
    ];
    const later = plans.filter(({ way }) => way === 'later');
    if (later.length > 0) {
      writer.line();
      this.kernelFunction(writer, `${ownName}_second`, secondBounds, body => {
        const isOne = later.length === 1;
        body.line(`${isOne ? 'const ' : ''}int64_t thread = (int64_t)blockIdx.x * ${secondThreads} + threadIdx.x;`);
        for (const plan of later) {
          body.block(`if (thread < ${threadsOfSecond(plan)})`, () => {
            this.addAndFinish(body, plan);
            if (plan !== later.at(-1)) body.line('return;');
          });
          if (plan !== later.at(-1)) body.line(`thread -= ${threadsOfSecond(plan)};`);
        }
      });
      const grid = `malc_ceil_divide(${later.map(threadsOfSecond).join(' + ')}, ${secondThreads})`;
      launches.push({ kernel: `${ownName}_second`, grid, block: String(secondThreads), shared: '0' });
    }
    return { text: writer.toString(), arguments: this.parameters, launches };
  }

  /**
   * Threads of a block, and blocks of a multiprocessor: two where all tiles are small. Left alone, ptxas would save registers
   * for more of them at the price of spills.
   */
  private bounds(): string {
    return `${this.threads}, ${this.plans.every(({ tiling }) => isSmall(tiling.shape)) ? 2 : 1}`;
  }

  /** The function that finishes an element of a group. */
  private finishFunction(writer: Writer, plan: GroupPlan, name: string): void {
    const { group, products, sums, atOnce } = plan;
    const text = finishText({ ...group, sums, atOnce }, this.named, this.surroundings);
    const used = this.parameters.filter(argument => uses(text, parameterName(argument)));
    const place = ['row', columnName(plan)].map(each => (uses(text, each) ? `int64_t ${each}` : 'int64_t'));
    const list = ['const Sums &sums', ...place, parameterList(used, this.surroundings.storageOf)].join(', ');
    writer.comment(products.map(product => this.formula(product)));
    writer.line('template <class Sums>');
    writer.block(`static DEVICE void ${name}(${list})`, () => {
      for (const line of text.trimEnd().split('\n')) writer.line(line);
    });
    writer.line();
    this.finishers.set(plan, { name, rest: used.map(parameterName) });
  }

  private finishCall(plan: GroupPlan, row: string, column: string): string {
    const { name, rest } = this.finishers.get(plan)!;
    return `${name}(${['sums', row, column, ...rest].join(', ')});`;
  }

  /** A __global__ function. Both launches have the same parameters, of which one may not need all. */
  private kernelFunction(writer: Writer, name: string, bounds: string, print: (body: Writer) => void): void {
    const list = parameterList(this.parameters, this.surroundings.storageOf);
    writer.block(`static __global__ void __launch_bounds__(${bounds}) ${name}(${list})`, () => {
      const body = writer.inside();
      print(body);
      const unused = this.parameters.map(parameterName).filter(each => !uses(body.toString(), each));
      writer.words(unused.map(each => `(void)${each};`));
      writer.append(body);
    });
  }

  /** What a block of a group does whose tiles are finished where they are computed. */
  private here(writer: Writer, plan: GroupPlan): void {
    const { group, products, fewColumns, atOnce } = plan;
    const [first] = products as [Product];
    const parts = partsOf(plan);
    const steps =
      plan.way === 'beside'
        ? [{ left: first.left, rights: products.map(({ right }) => right), inner: first.inner }]
        : products.map(({ left, right, inner }) => ({ left, rights: [right], inner }));
    const [rows, columns] = [countText(group.rows), columnCount(group)];
    const multiplied = steps.map(({ left, rights, inner }, n) => {
      const suffix = n === 0 ? '' : `_${n + 1}`;
      this.declareOperand(writer, `left${suffix}`, [left], 1);
      this.declareOperand(writer, `right${suffix}`, rights, parts);
      return { operands: `left${suffix}, right${suffix}`, inner: integer(countText(inner)) };
    });
    writer.line('const auto finish = [&](const auto &sums, int64_t row, int64_t column) {');
    writer.inner(() => writer.line(this.finishCall(plan, 'row', 'column')));
    writer.line('};');
    if (fewColumns !== null)
      writer.block(`if (${rows} <= malc_few_rows)`, () => {
        const { operands, inner } = multiplied[0]!;
        writer.line(`const malc_tiles few(${rows}, ${columns}, malc_few_rows, ${fewColumns});`);
        const place = `few.place(block), ${inner}, finish`;
        writer.line(`malc_multiply_few<${this.threads}, ${fewColumns}, ${atOnce}>(${operands}, ${place});`);
        writer.line('return;');
      });
    writer.line(`const malc_tiles tiles(${tilesText(plan)});`);
    writer.line(`${this.tileOf(plan, first)} tile(tiles.place(block));`);
    for (const { operands, inner } of multiplied) writer.line(`tile.multiply(${operands}, 0, ${inner});`);
    writer.line(`tile.finish<${parts}, ${atOnce}>(finish);`);
  }

  /** What a block does for one product of a group that is finished later. */
  private toWorkspace(writer: Writer, plan: GroupPlan, number: number): void {
    const { group, products, tiling, atOnce } = plan;
    const product = products[number]!;
    const inner = countText(product.inner);
    const columns = columnCount(group);
    this.declareOperand(writer, 'left', [product.left], 1);
    this.declareOperand(writer, 'right', [product.right], 1);
    writer.line(`const malc_tiles tiles(${tilesText(plan)});`);
    writer.line(`const malc_part part(${inner}, ${tiling.parts}, block / tiles.count());`);
    writer.line(`${this.tileOf(plan, product)} tile(tiles.place(block % tiles.count()));`);
    writer.line('tile.multiply(left, right, part.from, part.to);');
    const before = number === 0 ? 'part.number' : `(${number * tiling.parts} + part.number)`;
    const start = plus([this.workspaceAt(plan), times(before, countText([...group.rows, ...group.columns]))]);
    writer.line(`float *const part_sums = workspace + ${start};`);
    writer.line(`tile.finish<1, ${atOnce}>([&](const auto &sums, int64_t row, int64_t column) {`);
    writer.inner(() => {
      if (atOnce === 1) writer.line(`part_sums[row * ${columns} + column] = sums(0, row, column);`);
      else {
        writer.line('float four[4];');
        writer.line('sums.four(four, 0, row, column);');
        writer.line(`malc_store_4(part_sums + row * ${columns} + column, four);`);
      }
    });
    writer.line('});');
  }

  /** What a thread of the second launch does for elements of a group. */
  private addAndFinish(writer: Writer, plan: GroupPlan): void {
    const { group, products, tiling, atOnce } = plan;
    const [rows, columns] = [countText(group.rows), columnCount(group)];
    const parts = `malc_part_count(${countText(products[0]!.inner)}, ${tiling.parts})`;
    const from = plus(['workspace', this.workspaceAt(plan)]);
    writer.line(`const malc_part_sums sums(${from}, ${rows}, ${columns}, ${parts}, ${tiling.parts});`);
    const steps = columns / atOnce;
    writer.line(this.finishCall(plan, `thread / ${steps}`, times(`thread % ${steps}`, String(atOnce))));
  }

  /** Where a group's sums begin in the workspace. */
  private workspaceAt(plan: GroupPlan): string {
    const before = this.plans.slice(0, this.plans.indexOf(plan)).filter(({ way }) => way === 'later');
    return plus(
      before.map(({ group, products, tiling }) =>
        times(countText([...group.rows, ...group.columns]), String(products.length * tiling.parts)),
      ),
    );
  }

  private tileOf({ tiling }: GroupPlan, { kind }: Product): string {
    return tileType(tiling.shape, kind, this.threads);
  }

  /**
   * Declares operands that are read alike as one for the device code. Where a part of the tile is left over, the last is
   * repeated.
   */
  private declareOperand(writer: Writer, name: string, operands: readonly Operand[], parts: number): void {
    const [{ storage, run, aligned, stride }] = operands as [Operand];
    const data = Array.from({ length: parts }, (_, n) => this.nameOf(operands[n] ?? operands.at(-1)!));
    const type = storage === 'bf16' ? '__nv_bfloat16' : 'float';
    const shape = [type, `malc_side::${run}`, aligned, ...(parts > 1 ? [parts] : [])].join(', ');
    writer.line(`const malc_operand<${shape}> ${name}{{${data.join(', ')}}, ${stride}};`);
  }

  /** What is read of an operand. */
  private nameOf({ node, copy }: Operand): string {
    return (copy ? this.copies : this.named).get(node)!;
  }

  private formula({ node, left, right, inner }: Product): string {
    const [product, a, b] = [this.named.get(node)!, this.nameOf(left), this.nameOf(right)];
    return `${product} = ${a} x ${b}, summed over ${inner.map(dim => dim.name).join(', ')}`;
  }
}

/** Whether both operands come by asynchronous copies: bfloat16 in memory, and their runs begin at even elements. */
const isCopied = ({ kind, left, right }: Product): boolean =>
  kind === 'bf16' && [left, right].every(({ storage, aligned }) => storage === 'bf16' && aligned >= 2);

/** What a finishing function calls its column, or the first of four. */
const columnName = ({ atOnce }: GroupPlan): string => (atOnce === 1 ? 'column' : 'first');

/** Threads of the second launch that finish a group. */
const threadsOfSecond = ({ group, atOnce }: GroupPlan): string =>
  times(countText(group.rows), String(columnCount(group) / atOnce));

const uses = (text: string, name: string): boolean => new RegExp(`(?<![.\\w])${name}\\b`).test(text);

/** A count of run-time sizes as an int. */
const integer = (text: string): string => (/^\d+$/.test(text) ? text : `(int)(${text})`);

function parameterName(argument: Argument): string {
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

const tilesText = ({ group, tiling: { shape, width } }: GroupPlan): string =>
  [countText(group.rows), columnCount(group), shape.rows, width].join(', ');

const blocksOfProduct = (plan: GroupPlan, { inner }: Product): string =>
  `malc_tiles(${tilesText(plan)}).count() * malc_part_count(${countText(inner)}, ${plan.tiling.parts})`;

function blocksHere(plan: GroupPlan): string {
  const { group, fewColumns } = plan;
  const tiles = `malc_tiles(${tilesText(plan)}).count()`;
  if (fewColumns === null) return tiles;
  return `(${countText(group.rows)} <= malc_few_rows ? ${Math.ceil(columnCount(group) / fewColumns)} : ${tiles})`;
}
