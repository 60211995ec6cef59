// The part that measures ceilings: memory, the largest product by malc's own kernel, the time between launches
// (ceilings.cu); and single operations of PyTorch's, cuBLAS's products and attention among them.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packagePath } from '../../compiler/package-files.ts';
import { architectureOf, findGpu, nvcc, python } from './machine.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call, lastLines } from './programs.ts';

/** What ceilings.cu prints: bytes and operations a second, seconds a launch. */
interface Measured {
  readonly copy: number;
  readonly read: number;
  readonly update: number;
  readonly product: number;
  readonly product_median: number;
  readonly launch_stream: number;
  readonly launch_graph: number;
}

interface Ceilings extends Item {
  readonly measured: Measured | null;
}

/** What bench/peers/torch_kernels.py prints. */
interface Operation extends Item {
  readonly kind: string;
  readonly name: string;
  readonly seconds: number;
  readonly operations?: number;
  readonly bytes?: number;
}

/** An array of 2 GiB, a product of 8192 x 8192, and as many launches as a step has, about. */
const sizes = ['2147483648', '8192', '400'];

export const ceilings: Part = {
  name: 'ceilings',
  title: 'Ceilings of the device, and single operations of PyTorch',
  seconds: 80,
  async measure({ dry, seconds, report }) {
    report({ measured: null, ...(await measureOwn(dry)) } satisfies Ceilings);
    for (const operation of await measureTorch(dry, seconds)) report(operation);
  },
  table(items) {
    const rows = items.flatMap((item): (readonly [string, string])[] =>
      'measured' in item ? ownRows(item as Ceilings) : [operationRow(item as Operation)],
    );
    return markdownTable(['what', 'measured'], rows);
  },
};

async function measureOwn(dry: boolean): Promise<Partial<Ceilings>> {
  const folder = await mkdtemp(join(tmpdir(), 'malc-ceilings-'));
  try {
    const program = join(folder, 'ceilings');
    const gpu = await findGpu();
    // Without a device the program is compiled all the same where nvcc is, and not run.
    const architecture = gpu ? architectureOf(gpu) : 'sm_90a';
    const words = ['-O3', '-std=c++17', `-arch=${architecture}`, `-I${packagePath('templates/cuda')}`];
    const built = await call(nvcc, [...words, packagePath('bench/gpu/ceilings.cu'), '-o', program]);
    if (dry) return {};
    if (built.code !== 0) return { failed: lastLines(built.output) };
    const { code, printed, output } = await call(program, sizes);
    return code === 0 ? { measured: JSON.parse(printed) } : { failed: lastLines(output) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureTorch(dry: boolean, seconds: number): Promise<Operation[]> {
  const small = dry ? ['--device', 'cpu', '--divide', '64', '--seconds', '5'] : ['--seconds', String(seconds / 2)];
  const { printed } = await call(python, [packagePath('bench/peers/torch_kernels.py'), ...small]);
  return printed.split('\n').flatMap(line => (line.startsWith('{') ? [JSON.parse(line) as Operation] : []));
}

const bandwidth = (bytes: number) => `${(bytes / 1e9).toFixed(0)} GB/s`;
const rate = (operations: number) => `${(operations / 1e12).toFixed(1)} TFLOP/s`;

function ownRows({ measured }: Ceilings): (readonly [string, string])[] {
  if (!measured) return [];
  const { product, product_median, launch_stream, launch_graph } = measured;
  return [
    ['memory copied', bandwidth(measured.copy)],
    ['memory read', bandwidth(measured.read)],
    ['memory changed in place', bandwidth(measured.update)],
    ['malc, product of 8192 x 8192, best', rate(product)],
    ['malc, product of 8192 x 8192, median', rate(product_median)],
    ['a launch in a stream', `${(launch_stream * 1e6).toFixed(2)} µs`],
    ['a launch in a graph', `${(launch_graph * 1e6).toFixed(2)} µs`],
  ];
}

function operationRow({ kind, name, seconds, operations, bytes }: Operation): readonly [string, string] {
  const speed = operations !== undefined ? rate(operations / seconds) : bandwidth(bytes! / seconds);
  return [`PyTorch, ${kind}, ${name}`, speed];
}
