// The parts of the GPU run, the most valuable first: a run that is cut off has what came before.
import { ceilings } from './ceilings.ts';
import { kernelTests } from './kernel-tests.ts';
import { kernelPart } from './kernels.ts';
import { machine } from './machine.ts';
import type { Part } from './part.ts';
import { references } from './references.ts';
import { sanitizer } from './sanitizer.ts';
import { stepPart } from './steps.ts';

export const parts: readonly Part[] = [
  machine,
  references,
  stepPart('gpt2-step', 'gpt2-small', 64, 1024, 110),
  stepPart('llama-step', 'llama-1b', 16, 2048, 110),
  ceilings,
  kernelPart('gpt2-kernels', 'gpt2-small', 64, 1024, 60),
  kernelPart('llama-kernels', 'llama3-1b', 16, 2048, 60),
  kernelTests,
  sanitizer,
];
