// The part that measures ceilings: memory and arithmetic as `malc bench kernels` does, the largest product by malc's own
// kernel and by PyTorch's libraries, and the time between launches (device.cu).
import { readPackageFile } from '../../compiler/package-files.ts';
import { allIncludedBy } from '../../compiler/targets/cuda/included.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { type Ceilings as MemoryAndArithmetic, measureCeilings } from '../../runtime/bench/ceilings.ts';
import { buildFiles, findBuilder } from '../../runtime/build.ts';
import { architectureOf, findCudaDevice } from '../../runtime/cuda-device.ts';
import { loadLibrary } from '../../runtime/ffi.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { measurePeers, type PeerShape, type PeerTime } from './peers.ts';

/** Bytes and operations a second, seconds a launch. */
interface Measured extends MemoryAndArithmetic {
  /** The largest product, by malc's kernel of sm_80's instructions. */
  readonly product: number;
  readonly product_median: number;
  readonly launch_stream: number;
  readonly launch_graph: number;
}

interface Ceilings extends Item {
  readonly measured: Measured;
}

/** What PyTorch does at most: the largest product, and a copy. */
type Peer = Item & PeerTime;

const prototypes = {
  malc_device_product: 'const char *malc_device_product(int32_t size, _Out_ double *best, _Out_ double *median)',
  malc_device_launches:
    'const char *malc_device_launches(int32_t launches, _Out_ double *in_stream, _Out_ double *in_graph)',
};

export const ceilings: Part = {
  name: 'ceilings',
  title: 'Ceilings of the device',
  seconds: 55,
  async measure({ dry, seconds, report }) {
    report<Ceilings>({ measured: await measureOwn(dry) });
    const shapes: PeerShape[] = [
      { kind: 'product', ...(dry ? cube(128) : cube(8192)), layout: 'nt' },
      { kind: 'copy', bytes: dry ? 2 ** 20 : 2 ** 30 },
    ];
    const { times } = await measurePeers(shapes, dry, seconds / 2);
    for (const time of times) report<Peer>(time);
  },
  table(items) {
    const rows = items.flatMap((item): (readonly [string, string])[] =>
      'measured' in item ? ownRows((item as Ceilings).measured) : [peerRow(item as Peer)],
    );
    return markdownTable(['what', 'measured'], rows);
  },
};

async function measureOwn(dry: boolean): Promise<Measured> {
  const target: RunTarget = dry ? 'cuda-simt' : 'cuda';
  // The emulator is no measure of anything, and slow.
  const [size, launches] = dry ? [128, 4] : [8192, 400];
  const source = readPackageFile('bench/gpu/device.cu');
  const headers = allIncludedBy(source, name => readPackageFile(`templates/cuda/${name}`));
  const files = { 'model.cu': source, ...Object.fromEntries(headers) };
  const device = findCudaDevice();
  const options = { architectures: device ? architectureOf(device) : undefined };
  const { libraryPath } = await buildFiles(target, files, options);
  const native = loadLibrary(libraryPath, prototypes);
  const pair = (name: keyof typeof prototypes, given: number): [number, number] => {
    const first = [0];
    const second = [0];
    const report = native[name](given, first, second) as string | null;
    if (report !== null) throw new Error(`${name}: ${report}`);
    return [first[0]!, second[0]!];
  };
  const [product, product_median] = pair('malc_device_product', size);
  const [launch_stream, launch_graph] = pair('malc_device_launches', launches);
  const place = { target, builder: await findBuilder(target, options), device };
  const rates = dry ? { float32: 0, bfloat16: 0, read: 0, copy: 0, update: 0 } : await measureCeilings(place, 1);
  return { ...rates, product, product_median, launch_stream, launch_graph };
}

const cube = (size: number) => ({ rows: size, columns: size, inner: size });

const bandwidth = (bytes: number) => `${(bytes / 1e9).toFixed(0)} GB/s`;
const rate = (operations: number) => `${(operations / 1e12).toFixed(1)} TFLOP/s`;

function ownRows(measured: Measured): (readonly [string, string])[] {
  const { product, product_median, launch_stream, launch_graph } = measured;
  return [
    ['memory copied', bandwidth(measured.copy)],
    ['memory read', bandwidth(measured.read)],
    ['memory changed in place', bandwidth(measured.update)],
    ['float32 in registers', rate(measured.float32)],
    ['bf16 in tensor cores, from shared memory on Hopper', rate(measured.bfloat16)],
    ['malc, product of 8192 x 8192, best', rate(product)],
    ['malc, product of 8192 x 8192, median', rate(product_median)],
    ['a launch in a stream', `${(launch_stream * 1e6).toFixed(2)} µs`],
    ['a launch in a graph', `${(launch_graph * 1e6).toFixed(2)} µs`],
  ];
}

function peerRow({ shape, library, seconds }: Peer): readonly [string, string] {
  if (shape.kind === 'copy') return ['PyTorch, memory copied', bandwidth((2 * shape.bytes) / seconds)];
  const { rows, columns, inner } = shape as Extract<PeerShape, { kind: 'product' }>;
  return [`PyTorch, ${library}, product of ${rows} x ${columns}`, rate((2 * rows * columns * inner) / seconds)];
}
