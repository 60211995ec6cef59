// cuBLASLt for the parts that tune: PyTorch brings one, which lies where no program looks for it.
import { findCublas } from '../../runtime/cublas.ts';
import { python } from './machine.ts';
import { call } from './programs.ts';

/** Lets this process and those that it starts find cuBLASLt, where the machine has one or PyTorch brought it. */
export async function useCublas(): Promise<void> {
  if (findCublas() !== null) return;
  const words =
    "import torch; print(*(line.split()[-1] for line in open('/proc/self/maps') if 'libcublasLt.so' in line))";
  const { printed } = await call(python, ['-c', words], { seconds: 30 });
  const path = printed.split(' ').find(each => each !== '');
  if (path !== undefined) process.env.MALC_CUBLAS ??= path;
}
