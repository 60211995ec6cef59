// `--target` of the commands that run programs: the option, what is chosen where nothing is said, and what a target lacks.
import { MachineError } from '../../compiler/diagnostic.ts';
import { type RunTarget, runTargets } from '../../compiler/targets/names.ts';
import type { CudaDevice } from '../cuda-device.ts';
import { type Option, UsageError } from './command.ts';

export const targetOption = {
  type: 'string',
  default: 'auto',
  choices: ['auto', ...runTargets],
  describe:
    'What runs it; auto is the GPU where one answers and nvcc is there; cuda-simt emulates one, to check, slowly',
} as const satisfies Option;

export interface ChosenTarget {
  readonly target: RunTarget;
  /** Null but for cuda. */
  readonly device: CudaDevice | null;
  /** What runs it, and why it was chosen, where that is worth telling. */
  readonly text: string;
  readonly automatic: boolean;
}

/** What programs for CUDA do not have, by option. */
const ofTheCpu: Readonly<Record<string, (value: unknown) => string | null>> = {
  threads: value => (value === undefined ? null : '--threads counts threads of the CPU'),
  dtype: value => (value === 'int8' ? '--dtype int8 is for the CPU' : null),
};

/**
 * The target of a command's arguments. `auto` is what the run was trained on, where that is here; else CUDA where a device
 * and nvcc are, unless an option is for the CPU alone.
 *
 * @param trainedOn the target of the run that is resumed
 * @throws MachineError where cuda is asked for and no device answers; UsageError for options that the target lacks.
 */
export async function chooseTarget(
  args: Readonly<Record<string, unknown>>,
  trainedOn: RunTarget | null = null,
): Promise<ChosenTarget> {
  const lacking = Object.entries(ofTheCpu).flatMap(([option, why]) => why(args[option]) ?? []);
  if (args.target !== 'auto') {
    const target = args.target as RunTarget;
    if (target !== 'cpu' && lacking.length > 0)
      throw new UsageError(`${lacking[0]}; leave it out with --target ${target}`);
    requireReal(target, args);
    return { ...(await found(target)), automatic: false };
  }
  if (trainedOn) requireReal(trainedOn, args);
  if (trainedOn === 'cpu' || trainedOn === 'cuda-simt') return { ...(await found(trainedOn)), automatic: true };
  const because = lacking[0] ?? (await whyNotCuda());
  if (because === null) return { ...(await found('cuda')), automatic: true };
  return { target: 'cpu', device: null, text: because === '' ? 'cpu' : `cpu: ${because}`, automatic: true };
}

/** @throws UsageError where times are asked for of a target that has none */
function requireReal(target: RunTarget, { autotune }: Readonly<Record<string, unknown>>): void {
  if (target === 'cuda-simt' && autotune === true)
    throw new UsageError(
      '--autotune measures, and times of the emulator mean nothing; give --no-autotune with cuda-simt',
    );
}

/** Why CUDA is not chosen: '' where nothing is to be told, for there is no GPU; null where it is chosen. */
async function whyNotCuda(): Promise<string | null> {
  const { findCudaDevice } = await import('../cuda-device.ts');
  const device = findCudaDevice();
  if (device === null) return '';
  const { findCudaCompiler } = await import('../../compiler/targets/cuda/toolchain.ts');
  const nvcc = await findCudaCompiler().catch(error => {
    if (error instanceof MachineError) return null;
    throw error;
  });
  return nvcc ? null : `${device.name} answers and nvcc is missing, see malc doctor`;
}

async function found(target: RunTarget): Promise<Omit<ChosenTarget, 'automatic'>> {
  if (target !== 'cuda') return { target, device: null, text: target };
  const { findCudaDevice, whyNoDevice } = await import('../cuda-device.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const device = findCudaDevice();
  if (device) return { target, device, text: `cuda: ${device.name}, ${describeMemory(device.memory)}` };
  const { problem, remedy } = whyNoDevice();
  throw new MachineError(`--target cuda needs a GPU, and ${problem}.\nTo mend it: ${remedy}`);
}
