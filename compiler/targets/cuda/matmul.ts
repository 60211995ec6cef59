// Emits matmul kernels on top of templates/cuda/product*.h: a block computes a tile of a group's products and finishes its
// elements. Where that cannot be (product-plan.ts), sums go to the workspace, and a second launch finishes them.
import { countText, plus, times } from '../../emission/index-text.ts';
import { addsArgument, sizeArguments } from '../../emission/kernel-outputs.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulKernel, stored } from '../../kernels/kernel.ts';
import { finishNames } from './finish.ts';
import { Finishers, parameterName, uses } from './finishers.ts';
import { type HopperPlan, HopperTiles, planForHopper, schedulesForHopper, shapeType } from './hopper-products.ts';
import { type Circumstances, describeSchedule, type HopperSchedule, type RankedSchedule } from './hopper-schedule.ts';
import { countOf, type Job, printJobs } from './jobs.ts';
import {
  type Argument,
  type HopperSource,
  type KernelSource,
  type Launch,
  type LibrarySource,
  overlappingParameterList,
  parameterList,
  type Surroundings,
} from './kernel-source.ts';
import { type LibraryPlan, largerWorkspaces, planForLibrary } from './library-products.ts';
import {
  columnCount,
  type GroupPlan,
  isCopied,
  largerWorkspace,
  type Operand,
  type Product,
  partsOf,
  planGroup,
  workspaceAt,
} from './product-plan.ts';
import { copyingThreads, isSmall, roundingThreads } from './product-tiles.ts';
import { statisticsAt, statisticsExtents, statisticsJobs, statisticsThreads } from './statistics.ts';
import { leaveSums } from './sums-later.ts';
import { BlockTiles, blocksHere, blocksOfProduct, type TileText, tilesText } from './tile-text.ts';
import { sumsAt, sumsExtents, totalJob } from './totals.ts';
import { copyName } from './weight-copies.ts';

/** Threads of a block of the second launch. */
const secondThreads = 256;
/** And what bounds it: left alone, ptxas would save registers for more blocks at the price of spills. */
const secondBounds = `${secondThreads}, 4`;

/**
 * @param schedule of products on Hopper GPUs, one of those that `hopperSchedules` returns; the first where none is given
 * @param library whether cuBLASLt multiplies, where the machine that runs the program has it
 */
export function emitMatmul(
  kernel: MatmulKernel,
  surroundings: Surroundings,
  schedule?: HopperSchedule,
  library = false,
): KernelSource {
  return new MatmulEmitter(kernel, surroundings, schedule, library).emit();
}

/** The schedules that a kernel can have on Hopper GPUs, best first; none where it runs there as on others. */
export function hopperSchedules(
  kernel: MatmulKernel,
  surroundings: Surroundings,
  circumstances?: Circumstances,
): readonly RankedSchedule[] {
  const plans = kernel.groups.map(group => planGroup(group, surroundings));
  return schedulesForHopper(kernel, plans, surroundings, circumstances);
}

class MatmulEmitter {
  private readonly surroundings: Surroundings;
  private readonly named = new Map<Node, string>();
  /** What the copies of weights are called. */
  private readonly copies = new Map<Node, string>();
  private readonly names = new Names();
  private readonly plans: readonly GroupPlan[];
  /** That for Hopper GPUs; null where these run the same kernels as others. */
  private readonly hopper: HopperPlan | null;
  /** How cuBLASLt is told of the products; null where it is not asked. */
  private readonly library: LibraryPlan | null;
  private readonly threads: number;
  private readonly parameters: readonly Argument[];
  private readonly finishers: Finishers;
  private readonly outputs: readonly Node[];

  constructor(
    kernel: MatmulKernel,
    surroundings: Surroundings,
    schedule: HopperSchedule | undefined,
    asksLibrary: boolean,
  ) {
    this.surroundings = surroundings;
    this.outputs = kernel.outputs;
    const { names } = this;
    for (const name of [...finishNames, 'finish', 'left', 'right', 'tiles', 'tile', 'thread', 'adds'])
      names.unique(name);
    for (const node of new Set([...kernel.inputs, ...kernel.outputs, ...kernel.members]))
      this.named.set(node, names.unique(surroundings.nameOf(node)));
    this.plans = kernel.groups.map(group => planGroup(group, surroundings));
    const chosen = schedule ?? schedulesForHopper(kernel, this.plans, surroundings)[0]?.schedule;
    this.hopper = chosen ? planForHopper(kernel, chosen, surroundings) : null;
    this.threads = this.products.every(isCopied) ? copyingThreads : roundingThreads;
    for (const operand of this.operands) {
      const { node, copy } = operand;
      if (copy && !this.copies.has(node)) this.copies.set(node, names.unique(copyName(this.named.get(node)!)));
    }
    const ofLibrary = { operand: this.argumentOf, output: (node: Node) => this.named.get(node)! };
    this.library = asksLibrary ? planForLibrary(this.plans, surroundings, ofLibrary) : null;
    const own = this.plans
      .map((plan, n) => largerWorkspace(plan, this.hopper?.groups[n]))
      .filter(extent => extent !== null)
      .concat(sumsExtents(this.hopper?.groups ?? []), statisticsExtents(this.hopper?.groups ?? []));
    const extents = this.library ? largerWorkspaces(own, this.library.workspace) : own;
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
    this.finishers = new Finishers(this.parameters, this.named, this.argumentOf, surroundings);
  }

  /** What the kernel reads: copies of weights, and all else as it is. */
  private inputs({ inputs, groups }: MatmulKernel): Argument[] {
    const copies = new Map(this.operands.flatMap(({ node, copy }) => (copy ? [[node, copy] as const] : [])));
    const readAsIs = new Set([
      ...this.operands.flatMap(({ node, copy }) => (copy ? [] : [node])),
      ...groups.flatMap(({ epilogue, statistics }) =>
        [...epilogue, ...(statistics?.members ?? [])].flatMap(node => node.inputs.flatMap(stored)),
      ),
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
    const { plans, hopper, library, threads } = this;
    const writer = new Writer();
    this.finishers.print(writer, plans, `${ownName}_finish`);
    if (hopper) this.finishers.print(writer, hopper.groups, `${ownName}_finish_on_hopper`);
    if (library) this.finishers.print(writer, library.later, `${ownName}_finish_of_library`);
    writer.comment(this.surroundings.comment);
    const tiles = new BlockTiles(threads, this.argumentOf);
    const jobs = this.jobs(plans, tiles);
    this.kernelFunction(writer, ownName, this.bounds(), this.others, body => {
      body.line(`${jobs.length > 1 ? '' : 'const '}int block = blockIdx.x;`);
      printJobs(body, jobs);
    });
    const types = new Set(plans.flatMap(plan => plan.products.map(product => tiles.type(plan, product))));
    const shared = [...types].map(type => `${type}::shared_bytes`);
    const launches: Launch[] = [
      {
        kernel: ownName,
        grid: countOf(jobs),
        block: String(threads),
        shared: shared.reduce((most, bytes) => `malc_larger(${most}, ${bytes})`),
      },
      ...this.completing(writer, plans, ownName, this.others),
    ];
    const source = {
      arguments: this.parameters,
      launches,
      ...(library ? { library: this.byLibrary(writer, library) } : {}),
      ...(hopper ? { schedule: `${describeSchedule(hopper.schedule)}${library ? '; cuBLASLt where it is' : ''}` } : {}),
    };
    const onHopper = hopper ? this.onHopper(writer, hopper) : undefined;
    return { text: writer.toString(), ...source, ...(onHopper ? { hopper: onHopper } : {}) };
  }

  /** The condition of kernels that Hopper GPUs have others for. */
  private get others(): string {
    return this.hopper ? '!malc_code_for_hopper' : '';
  }

  /** The kernels that take the others' place on Hopper GPUs. */
  private onHopper(writer: Writer, { groups: plans, schedule }: HopperPlan): HopperSource {
    const tiles = new HopperTiles(
      plans,
      this.names,
      this.argumentOf,
      node => this.named.get(node)!,
      ({ way, node }, plan) => (way === 'measured' ? statisticsAt(plans, plan) : sumsAt(plans, node)),
    );
    const maps = tiles.maps.map(map => map.name);
    const own = maps.map(map => `const __grid_constant__ CUtensorMap ${map}`);
    const jobs = this.jobs(plans, tiles);
    const shape = shapeType(schedule);
    const name = `${ownName}_on_hopper`;
    writer.line();
    const print = (body: Writer) => {
      body.line(`malc_begin_jobs<${shape}>(${maps.map(map => `&${map}`).join(', ')});`);
      body.line(`malc_run_jobs<${shape}>(${countOf(jobs)}, [&](auto &tile, int block) {`);
      body.inner(() => printJobs(body, jobs));
      body.line('});');
    };
    this.kernelFunction(writer, name, '384, 1', '', print, { maps: own });
    const grid = `malc_hopper_grid<${shape}>(${countOf(jobs)})`;
    const shared = `${shape}::shared_bytes`;
    const others = this.completing(writer, plans, name, '').map(launch => ({ ...launch, maps: [] }));
    const launch = { kernel: name, grid, block: '384', shared, overlaps: true, maps };
    return { maps: tiles.maps, launches: [launch, ...others] };
  }

  /** What cuBLASLt is told, and the launch that finishes what it leaves. */
  private byLibrary(writer: Writer, { products, later }: LibraryPlan): LibrarySource {
    return { products, launches: this.completing(writer, later, `${ownName}_of_library`, '') };
  }

  /** What the blocks of each group do, or of each product of one that is finished later. */
  private jobs(plans: readonly GroupPlan[], tiles: TileText): Job[] {
    return plans.flatMap(plan =>
      plan.way === 'later'
        ? plan.products.map((product, n) => ({
            count: blocksOfProduct(plan, product),
            print: (body: Writer) => leaveSums(body, plans, plan, n, tiles),
          }))
        : [{ count: blocksHere(plan), print: (body: Writer) => this.here(body, plan, tiles) }],
    );
  }

  /**
   * The launches that complete what tiles have left: sums that are finished later, totals, and statistics of rows. They may
   * overlap the one before.
   */
  private completing(writer: Writer, plans: readonly GroupPlan[], name: string, condition: string): Launch[] {
    const { named, surroundings, outputs } = this;
    const totals = plans.flatMap(plan =>
      plan.group.totals.map(total => totalJob(plans, plan, total, named, surroundings)),
    );
    const statistics = plans.flatMap(plan => statisticsJobs(plans, plan, outputs, named, surroundings));
    return [
      ...this.second(writer, plans, `${name}_second`, condition),
      ...this.launchOf(writer, totals, 'malc_totals_threads', `${name}_totals`, condition),
      ...this.launchOf(writer, statistics, String(statisticsThreads), `${name}_statistics`, condition),
    ];
  }

  /** The launch that finishes groups from sums in the workspace, where there are such. */
  private second(writer: Writer, plans: readonly GroupPlan[], name: string, condition: string): Launch[] {
    const later = plans.filter(({ way }) => way === 'later');
    if (later.length === 0) return [];
    writer.line();
    const print = (body: Writer) => {
      body.line('malc_follow();');
      const isOne = later.length === 1;
      body.line(`${isOne ? 'const ' : ''}int64_t thread = (int64_t)blockIdx.x * ${secondThreads} + threadIdx.x;`);
      for (const plan of later) {
        body.block(`if (thread < ${threadsOfSecond(plan)})`, () => {
          this.addAndFinish(body, plans, plan);
          if (plan !== later.at(-1)) body.line('return;');
        });
        if (plan !== later.at(-1)) body.line(`thread -= ${threadsOfSecond(plan)};`);
      }
    };
    this.kernelFunction(writer, name, secondBounds, condition, print, {});
    const grid = `malc_ceil_divide(${later.map(threadsOfSecond).join(' + ')}, ${secondThreads})`;
    return [{ kernel: name, grid, block: String(secondThreads), shared: '0', overlaps: true }];
  }

  /** A launch of blocks that do these jobs, where there are such. */
  private launchOf(writer: Writer, jobs: readonly Job[], threads: string, name: string, condition: string): Launch[] {
    if (jobs.length === 0) return [];
    writer.line();
    const print = (body: Writer) => {
      body.line('malc_follow();');
      body.line(`${jobs.length > 1 ? '' : 'const '}int block = blockIdx.x;`);
      printJobs(body, jobs);
    };
    this.kernelFunction(writer, name, threads, condition, print, { readsOutputs: true });
    return [{ kernel: name, grid: countOf(jobs), block: threads, shared: '0', overlaps: true }];
  }

  /**
   * Threads of a block, and blocks of a multiprocessor: two where all tiles are small. Left alone, ptxas would save registers
   * for more of them at the price of spills.
   */
  private bounds(): string {
    return `${this.threads}, ${this.plans.every(({ tiling }) => isSmall(tiling.shape)) ? 2 : 1}`;
  }

  /**
   * A __global__ function. All launches have the same parameters, of which one may not need all.
   * @param condition what of the code's architecture decides whether it does anything; empty where it always does
   * @param overlapping of one whose launches may overlap the one before: declarations of tensor maps, which come before
   * them, and whether it reads outputs; null where they may not
   */
  private kernelFunction(
    writer: Writer,
    name: string,
    bounds: string,
    condition: string,
    print: (body: Writer) => void,
    overlapping: { readonly maps?: readonly string[]; readonly readsOutputs?: boolean } | null = null,
  ): void {
    const { storageOf } = this.surroundings;
    const declared = overlapping
      ? overlappingParameterList(this.parameters, storageOf, overlapping.readsOutputs)
      : parameterList(this.parameters, storageOf);
    const list = [...(overlapping?.maps ?? []), declared].join(', ');
    writer.block(`static __global__ void __launch_bounds__(${bounds}) ${name}(${list})`, () => {
      const body = writer.inside();
      if (condition === '') print(body);
      else body.block(`if constexpr (${condition})`, () => print(body));
      const unused = this.parameters.map(parameterName).filter(each => !uses(body.toString(), each));
      writer.words(unused.map(each => `(void)${each};`));
      writer.append(body);
    });
  }

  /** What a block of a group does whose tiles are finished where they are computed. */
  private here(writer: Writer, plan: GroupPlan, tiles: TileText): void {
    const { group, products, fewColumns, atOnce } = plan;
    const [first] = products as [Product];
    const parts = partsOf(plan);
    const steps =
      plan.way === 'beside'
        ? [{ product: first, rights: products.map(({ right }) => right) }]
        : products.map(product => ({ product, rights: [product.right] }));
    const [rows, columns] = [countText(group.rows), columnCount(group)];
    const multiplied = steps.map(({ product, rights }, n) => {
      const suffix = n === 0 ? '' : `_${n + 1}`;
      writer.line(tiles.operand(`left${suffix}`, [product.left], 1));
      writer.line(tiles.operand(`right${suffix}`, rights, parts));
      return { operands: `left${suffix}, right${suffix}`, inner: integer(countText(product.inner)) };
    });
    writer.line(`const auto finish = [&](${tiles.finisher(plan, this.finishers.usesInside(plan))}) {`);
    writer.inner(() => writer.line(this.finishers.call(plan, 'row', 'column', tiles)));
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
    for (const line of tiles.begin(plan, first, 'tiles.place(block)')) writer.line(line);
    for (const { operands, inner } of multiplied) writer.line(`tile.multiply(${operands}, 0, ${inner});`);
    writer.line(tiles.finish(plan));
  }

  /** What a thread of the second launch does for elements of a group. */
  private addAndFinish(writer: Writer, plans: readonly GroupPlan[], plan: GroupPlan): void {
    const { group, products, tiling, atOnce } = plan;
    const [rows, columns] = [countText(group.rows), columnCount(group)];
    const parts = `malc_part_count(${countText(products[0]!.inner)}, ${tiling.parts})`;
    const from = plus(['workspace', workspaceAt(plans, plan)]);
    writer.line(`const malc_part_sums sums(${from}, ${rows}, ${columns}, ${parts}, ${tiling.parts});`);
    const steps = columns / atOnce;
    writer.line(this.finishers.call(plan, `thread / ${steps}`, times(`thread % ${steps}`, String(atOnce))));
  }

  /** What is read of an operand. */
  private readonly argumentOf = ({ node, copy }: Operand): string => (copy ? this.copies : this.named).get(node)!;
}

/** Threads of the second launch that finish a group. */
const threadsOfSecond = ({ group, atOnce }: GroupPlan): string =>
  times(countText(group.rows), String(columnCount(group) / atOnce));

/** A count of run-time sizes as an int. */
const integer = (text: string): string => (/^\d+$/.test(text) ? text : `(int)(${text})`);
