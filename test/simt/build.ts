// The emulator as the tests use it: with every check unless told otherwise, and compiled once for all of them. With
// MALC_TESTS_ON_DEVICE a GPU stands in for it (test/cuda/device.ts).
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as emulator from '../../compiler/targets/cuda/emulator.ts';
import { cachedEmulator } from '../../runtime/build.ts';
import { buildForDevice, deviceArchitecture } from '../cuda/device.ts';

process.env.MALC_CACHE ??= join(tmpdir(), 'malc-test-cache');

const compiler = await emulator.findEmulatorCompiler().catch(() => null);

/** Whether g++ is there and works, or a GPU stands in: what the tests ask first. */
export const emulatorAvailable = async (): Promise<boolean> => compiler !== null || deviceArchitecture !== null;

/** A program, with all checks where nothing is said. */
export type TestedProgram = Omit<emulator.EmulatedProgram, 'checked' | 'emulator'> & { readonly checked?: boolean };

/**
 * Compiles and links a CUDA program for the emulator, or for the GPU that the tests run on.
 *
 * @throws Error with the compiler's output where it refuses the source, or the emulator's warns of it.
 */
export async function buildEmulated(program: TestedProgram): Promise<void> {
  if (deviceArchitecture !== null) return buildForDevice(program, deviceArchitecture);
  await emulator.buildEmulated(compiler!, { checked: true, emulator: await cachedEmulator(compiler!), ...program });
}
