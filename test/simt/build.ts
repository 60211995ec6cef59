// The emulator as the tests use it: with every check unless told otherwise, built in a folder of theirs. With
// MALC_TESTS_ON_DEVICE a GPU stands in for it (test/cuda/device.ts).
import { join } from 'node:path';
import * as emulator from '../../compiler/targets/cuda/emulator.ts';
import { buildForDevice, deviceArchitecture } from '../cuda/device.ts';

const compiler = await emulator.findEmulatorCompiler().catch(() => null);

/** Whether g++ is there and works, or a GPU stands in: what the tests ask first. */
export const emulatorAvailable = async (): Promise<boolean> => compiler !== null || deviceArchitecture !== null;

/** Compiles the emulator itself, once for all programs: `folder`/emulator.o, whose path it resolves to. A GPU needs none. */
export async function buildEmulator(folder: string): Promise<string> {
  const output = join(folder, 'emulator.o');
  if (deviceArchitecture === null) await emulator.buildEmulator(compiler!, output);
  return output;
}

/** A program, with all checks where nothing is said. */
export type TestedProgram = Omit<emulator.EmulatedProgram, 'checked'> & { readonly checked?: boolean };

/**
 * Compiles and links a CUDA program for the emulator, or for the GPU that the tests run on.
 *
 * @throws Error with the compiler's output where it refuses the source, or the emulator's warns of it.
 */
export const buildEmulated = (program: TestedProgram): Promise<void> =>
  deviceArchitecture === null
    ? emulator.buildEmulated(compiler!, { checked: true, ...program })
    : buildForDevice(program, deviceArchitecture);
