// The parts of the GPU run, the most valuable first: a run that is cut off has what came before.
import { builds } from './builds.ts';
import { ceilings } from './ceilings.ts';
import { kernelTests } from './kernel-tests.ts';
import { kernelPart } from './kernels.ts';
import { machine } from './machine.ts';
import type { Part } from './part.ts';
import { references } from './references.ts';
import { sanitizer } from './sanitizer.ts';
import { stepPart } from './steps.ts';

/** Parts of a stage run at once: they are of the compiler and of correctness. What takes times has the machine for itself. */
export const stages: readonly (readonly Part[])[] = [
  [machine],
  [builds, references, kernelTests],
  [stepPart('gpt2-step', 'gpt2-small', 64, 1024, 110)],
  [stepPart('llama-step', 'llama-1b', 16, 2048, 95)],
  [ceilings],
  [kernelPart('gpt2-kernels', 'gpt2-small', 64, 1024, 45)],
  [kernelPart('llama-kernels', 'llama3-1b', 16, 2048, 45)],
  [sanitizer],
];

export const allParts: readonly Part[] = stages.flat();
