// What PyTorch's libraries take for single operations: bench/peers/torch_kernels.py, run and read.
import { packagePath } from '../../compiler/package-files.ts';
import type { Shape } from '../../compiler/plan/shapes.ts';
import { python } from './machine.ts';
import { call, lastLines } from './programs.ts';

export type PeerShape = Shape | { readonly kind: 'copy'; readonly bytes: number };

/** One library's time for one shape. */
export interface PeerTime {
  readonly shape: PeerShape;
  readonly library: string;
  readonly seconds: number;
}

export interface Peers {
  readonly times: readonly PeerTime[];
  /** What a library said in place of a time, and why the program ended early. */
  readonly problems: readonly string[];
}

/** Seconds in which Python loads PyTorch, and the last shape is done. */
const STARTS = 7;
/** Sizes of products are rounded up to multiples of it: libraries are slow otherwise, and trainers pad. */
const padding = 64;

/**
 * Measures shapes, each once however often it is given; as many as there is time for.
 * @param seconds in which it must be done
 */
export async function measurePeers(shapes: readonly PeerShape[], dry: boolean, seconds: number): Promise<Peers> {
  const distinct = [...new Map(shapes.map(shape => [keyOf(shape), shape])).values()];
  const asked = distinct.map(shape => (dry ? shape : padded(shape)));
  const words = [
    packagePath('bench/peers/torch_kernels.py'),
    JSON.stringify(asked),
    '--seconds',
    String(seconds - STARTS),
  ];
  const { code, printed, output } = await call(python, [...words, '--device', dry ? 'cpu' : 'cuda'], { seconds });
  const found = printed.split('\n').flatMap(line => (line.startsWith('{') ? [JSON.parse(line)] : []));
  const times = found.flatMap(({ shape, library, seconds: taken }): PeerTime[] =>
    taken === undefined ? [] : [{ shape: distinct[shape]!, library, seconds: taken }],
  );
  const silent = asked.flatMap((_, n) => (found.some(({ shape }) => shape === n) ? [] : [n]));
  const unmeasured = silent.length > 0 ? [`${silent.length} of ${asked.length} shapes: no time was left`] : [];
  const problems = found.flatMap(({ shape, library, problem }) =>
    problem === undefined ? [] : [`${library}, ${describe(asked[shape]!)}: ${problem}`],
  );
  return { times, problems: [...problems, ...(code === 0 ? unmeasured : [lastLines(output, 3)])] };
}

/** The quickest library's time for a shape; null where none has it. */
export function bestOf({ times }: Peers, shape: PeerShape): PeerTime | null {
  const own = times.filter(each => keyOf(each.shape) === keyOf(shape));
  return own.reduce<PeerTime | null>((best, each) => (best && best.seconds <= each.seconds ? best : each), null);
}

/** The shape alone, however often it is there. */
const keyOf = (shape: PeerShape): string => JSON.stringify({ ...shape, times: 1 });

function padded(shape: PeerShape): PeerShape {
  if (shape.kind !== 'product') return shape;
  const up = (size: number) => Math.ceil(size / padding) * padding;
  return { ...shape, rows: up(shape.rows), columns: up(shape.columns), inner: up(shape.inner) };
}

export function describe(shape: PeerShape): string {
  if (shape.kind === 'copy') return 'a copy';
  if (shape.kind === 'product') return `${shape.rows} x ${shape.columns} x ${shape.inner} ${shape.layout}`;
  const { batch, time, heads, keyHeads, width, pass } = shape;
  const grouped = heads === keyHeads ? '' : ` over ${keyHeads}`;
  return `${batch} x ${time}, ${heads} heads${grouped} of ${width}, ${pass}`;
}
