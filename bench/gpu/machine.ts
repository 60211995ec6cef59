// The part that says what is there: the GPU with its driver and clocks, nvcc, the host's compiler and processor, PyTorch.
import { describeMachine } from '../../runtime/machine.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call } from './programs.ts';

interface Fact extends Item {
  readonly what: string;
  readonly found: string;
}

/** The GPU as nvidia-smi tells of it. */
export interface Gpu {
  readonly name: string;
  readonly driver: string;
  /** Such as `9.0`. */
  readonly capability: string;
  readonly memory: string;
  readonly clock: string;
  readonly power: string;
}

const queried = ['name', 'driver_version', 'compute_cap', 'memory.total', 'clocks.max.sm', 'power.limit'];

/** The first GPU of the machine; null where none answers. */
export async function findGpu(): Promise<Gpu | null> {
  const query = [`--query-gpu=${queried.join(',')}`, '--format=csv,noheader'];
  const { code, printed } = await call('nvidia-smi', query, { seconds: 15 });
  const [name, driver, capability, memory, clock, power] = printed.split('\n')[0]!.split(', ');
  if (code !== 0 || !name || !power) return null;
  return { name, driver: driver!, capability: capability!, memory: memory!, clock: clock!, power };
}

/** What nvcc compiles for: of Hopper and what is newer also what is this generation's own. */
export function architectureOf({ capability }: Pick<Gpu, 'capability'>): string {
  const [major, minor] = capability.split('.');
  return `sm_${major}${minor}${Number(major) >= 9 ? 'a' : ''}`;
}

/** Python with PyTorch: $PYTHON, or python3. */
export const python = process.env.PYTHON?.trim() || 'python3';
export const nvcc = process.env.NVCC?.trim() || 'nvcc';

export const machine: Part = {
  name: 'machine',
  title: 'The machine',
  seconds: 40,
  async measure({ report }) {
    const fact = (what: string, found: string, failed: string | null = null) =>
      report({ what, found, failed } satisfies Fact);
    const gpu = await findGpu();
    fact('GPU', gpu ? Object.values(gpu).join(', ') : 'none');
    const version = async (what: string, command: string, words: string[], pattern: RegExp) => {
      const { code, output } = await call(command, words, { seconds: 30 });
      const found = code === 0 ? pattern.exec(output)?.[0] : undefined;
      fact(what, found ?? `${command} ${code === null ? 'is not there' : 'does not answer'}`);
    };
    await version('nvcc', nvcc, ['--version'], /release.*/);
    await version('host compiler', process.env.CXX?.trim() || 'g++', ['--version'], /.*/);
    const { processor, cores, features } = describeMachine();
    fact('processor', `${processor}, ${cores} cores, ${features.join(', ')}`);
    fact('Node', process.version);
    const torch = "import torch; print('PyTorch', torch.__version__, 'CUDA', torch.version.cuda)";
    await version('PyTorch', python, ['-c', torch], /PyTorch .*/);
    await version('compute-sanitizer', 'compute-sanitizer', ['--version'], /Version.*/i);
  },
  table: items =>
    markdownTable(
      ['what', 'found'],
      (items as readonly Fact[]).map(({ what, found }) => [what, found]),
    ),
};
