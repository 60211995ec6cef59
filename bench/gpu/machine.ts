// The part that says what is there: the GPU with its driver and clocks, nvcc, the host's compiler and processor, PyTorch.
import { findCudaDevice, whyNoDevice } from '../../runtime/cuda-device.ts';
import { describeMachine } from '../../runtime/machine.ts';
import { describeMemory } from '../../runtime/show/quantities.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call } from './programs.ts';

interface Fact extends Item {
  readonly what: string;
  readonly found: string;
}

/** Python with PyTorch: $PYTHON, or python3. */
export const python = process.env.PYTHON?.trim() || 'python3';
export const nvcc = process.env.NVCC?.trim() || 'nvcc';

export const machine: Part = {
  name: 'machine',
  title: 'The machine',
  seconds: 40,
  async measure({ report }) {
    const fact = (what: string, found: string, failed: string | null = null) => report<Fact>({ what, found, failed });
    const device = findCudaDevice();
    if (device) {
      const { name, memory, capability, multiprocessors } = device;
      const sizes = `${multiprocessors} multiprocessors, ${describeMemory(memory)}`;
      fact('GPU', `${name}, compute capability ${capability.join('.')}, ${sizes}`);
    } else fact('GPU', whyNoDevice().problem);
    const version = async (what: string, command: string, words: string[], pattern: RegExp) => {
      const { code, output } = await call(command, words, { seconds: 30 });
      const found = code === 0 ? pattern.exec(output)?.[0] : undefined;
      fact(what, found ?? `${command} ${code === null ? 'is not there' : 'does not answer'}`);
    };
    const query = ['--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit', '--format=csv,noheader'];
    await version('driver, clocks and power', 'nvidia-smi', query, /.*/);
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
