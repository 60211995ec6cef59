// The tiles that products are divided into: which there are (templates/cuda/product_*.h), and a small cost function that
// chooses among them, and in how many parts few tiles with many inner positions are summed.

/** What multiplies: tensor cores of bfloat16, or fused multiplications and additions of float32. */
export type ProductKind = 'bf16' | 'f32';

export interface TileShape {
  readonly rows: number;
  readonly columns: number;
}

/** A shape that there is code for, and how well it uses what multiplies: large tiles read less for each multiplication. */
interface RatedShape extends TileShape {
  readonly rate: number;
}

const shapes: readonly RatedShape[] = [
  { rows: 128, columns: 128, rate: 1 },
  { rows: 64, columns: 256, rate: 0.85 },
  { rows: 64, columns: 64, rate: 0.5 },
];
/** Columns that each of the products side by side has at least. */
const narrowest = 8;

export const isSmall = ({ columns }: TileShape): boolean => columns === 64;

/** Threads of a block of bfloat16 products whose operands all come by asynchronous copies. */
export const copyingThreads = 128;
/** Threads of a block of other products: operands on their way through registers need more of them. */
export const roundingThreads = 256;

/** The C++ type of a tile. Warps of 64 x 64 read least from shared memory, but their sums leave few registers. */
export function tileType(shape: TileShape, kind: ProductKind, threads: number): string {
  const { rows, columns } = shape;
  if (kind === 'f32') return `malc_tile_f32<${rows}, ${columns}>`;
  const side = isSmall(shape) ? 32 : 64;
  const warp = [side, (side * copyingThreads) / threads];
  const stages = columns === 256 ? 3 : 4;
  return `malc_tile_bf16<${[rows, columns, ...warp, stages].join(', ')}>`;
}

/** A result, and what it costs. Sizes that only the call knows are null. */
export interface ProductWork {
  readonly kind: ProductKind;
  readonly rows: number | null;
  readonly columns: number;
  readonly inner: number | null;
  /** Results of this shape that are computed alike, each in tiles of its own. */
  readonly results: number;
  /** Products that share each tile, side by side. */
  readonly beside: number;
  /** Columns that no tile may cut, such as a head's. */
  readonly step: number;
  /** Whether the sums may be made in parts. */
  readonly isDivisible: boolean;
}

export interface Tiling {
  readonly shape: TileShape;
  /** Columns of a tile, of each product. */
  readonly width: number;
  /** Parts of the inner positions at most. */
  readonly parts: number;
  /** Tiles' rows of a band, where it is not what malc_tiles has by itself. */
  readonly band?: number;
}

/** What a call is assumed to have: a training step's tokens. */
export const assumedTokens = 8192;
/** An H200's, or about an A100's: what is best for one is good for the other. */
const multiprocessors = 132;
const mostParts = 16;
/**
 * What it costs to write and read a part's element, in multiplications of one multiprocessor: 8 bytes at 2 to 4 TB/s, by
 * 1024 multiplications a cycle of bfloat16, and 128 of float32.
 */
const partCost = { bf16: 6, f32: 0.75 };

/** The cheapest tiling; null where no tile holds a step's columns. */
export function chooseTiling(work: ProductWork): Tiling | null {
  const rows = work.rows ?? assumedTokens;
  const inner = work.inner ?? assumedTokens;
  const cost = ({ shape, width, parts, rate }: Tiling & { rate: number }): number => {
    const tiles = work.results * Math.ceil(rows / shape.rows) * Math.ceil(work.columns / width);
    const each = (shape.rows * shape.columns * inner) / parts / rate;
    const moved = parts === 1 ? 0 : parts * work.results * rows * work.columns * partCost[work.kind];
    return Math.ceil((tiles * parts) / multiprocessors) * each + moved;
  };
  const candidates = shapes.flatMap(shape => {
    const own = shape.columns / work.beside;
    const width = own < narrowest ? 0 : Math.floor(own / work.step) * work.step;
    const most = work.isDivisible ? mostParts : 1;
    const { rate } = shape;
    return width === 0 ? [] : Array.from({ length: most }, (_, n) => ({ shape, width, parts: n + 1, rate }));
  });
  return candidates.length === 0 ? null : candidates.reduce((best, next) => (cost(next) < cost(best) ? next : best));
}
