// cuBLASLt, as generated programs look for it (templates/cuda/cublas.h): whether it is there, and which version.
import { MachineError } from '../compiler/diagnostic.ts';
import { loadLibrary } from './ffi.ts';

/** What it is called, of the newest CUDA first. */
const names = ['libcublasLt.so.13', 'libcublasLt.so.12'];

/**
 * Its version, such as 130200; null where it is not, or left aside by MALC_CUBLAS=0.
 * @throws MachineError where MALC_CUBLAS names what is no such library
 */
export function findCublas(): string | null {
  const said = process.env.MALC_CUBLAS ?? '';
  if (said === '0') return null;
  for (const name of said === '' ? names : [said])
    try {
      const { cublasLtGetVersion } = loadLibrary(name, { cublasLtGetVersion: 'size_t cublasLtGetVersion(void)' });
      return String(cublasLtGetVersion());
    } catch (error) {
      if (said !== '')
        throw new MachineError(
          `MALC_CUBLAS names ${said}, which is no cuBLASLt: ${(error as Error).message}. ` +
            'Name the file libcublasLt.so of CUDA 12 or 13; 0 leaves it aside.',
        );
    }
  return null;
}
