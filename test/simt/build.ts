// The emulator as the tests use it: with every check unless told otherwise, built in a folder of theirs.
import { join } from 'node:path';
import * as emulator from '../../compiler/targets/cuda/emulator.ts';

const compiler = await emulator.findEmulatorCompiler().catch(() => null);

/** Whether g++ is there and works: what the tests ask first. */
export const emulatorAvailable = async (): Promise<boolean> => compiler !== null;

/** Compiles the emulator itself, once for all programs: `folder`/emulator.o, whose path it resolves to. */
export async function buildEmulator(folder: string): Promise<string> {
  const output = join(folder, 'emulator.o');
  await emulator.buildEmulator(compiler!, output);
  return output;
}

/** A program, with all checks where nothing is said. */
type TestedProgram = Omit<emulator.EmulatedProgram, 'checked'> & { readonly checked?: boolean };

/**
 * Compiles and links a CUDA program for the emulator.
 *
 * @throws Error with the compiler's output where it refuses the source or warns of it.
 */
export const buildEmulated = (program: TestedProgram): Promise<void> =>
  emulator.buildEmulated(compiler!, { checked: true, ...program });
