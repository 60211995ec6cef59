// The emulator as the tests use it: with every check unless told otherwise, built in a folder of theirs. Or a GPU that the
// tests run on in its place.
import { join } from 'node:path';
import * as emulator from '../../compiler/targets/cuda/emulator.ts';
import { buildForDevice, deviceArchitecture } from '../cuda/device.ts';

const compiler = await emulator.findEmulatorCompiler().catch(() => null);

/** Whether g++ is there and works, or a GPU stands in: what the tests ask first. */
export const emulatorAvailable = async (): Promise<boolean> => deviceArchitecture !== null || compiler !== null;

/** Compiles the emulator itself, once for all programs: `folder`/emulator.o, whose path it resolves to. A GPU needs none. */
export async function buildEmulator(folder: string): Promise<string> {
  const output = join(folder, 'emulator.o');
  if (deviceArchitecture === null) await emulator.buildEmulator(compiler!, output);
  return output;
}

/** A program, with all checks where nothing is said. */
type TestedProgram = Omit<emulator.EmulatedProgram, 'checked'> & { readonly checked?: boolean };

/**
 * Compiles and links a CUDA program for the emulator, or for the GPU that the tests run on.
 *
 * @throws Error with the compiler's output where it refuses the source or warns of it.
 */
export async function buildEmulated(program: TestedProgram): Promise<void> {
  if (deviceArchitecture !== null) return buildForDevice(program, deviceArchitecture);
  await emulator.buildEmulated(compiler!, { checked: true, ...program });
}
