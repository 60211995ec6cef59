// The parts of the GPU run in two plans, the most valuable part first: a run that is cut off has what came before.
import { builds } from './builds.ts';
import { ceilings } from './ceilings.ts';
import { kernelTests } from './kernel-tests.ts';
import { kernelPart } from './kernels.ts';
import { llmC } from './llm-c.ts';
import { machine } from './machine.ts';
import type { Part } from './part.ts';
import { references } from './references.ts';
import { sanitizer } from './sanitizer.ts';
import { stepPart } from './steps.ts';
import { sustained } from './sustained.ts';
import { torchBuilds } from './torch-builds.ts';
import { tuning } from './tuning.ts';

/** Parts that run at once: they are of the compiler and of correctness. What takes times has the machine for itself. */
export type Stage = readonly Part[];

/**
 * What is asked first; then the same with products tuned; and what the device's time allows besides. Each ends within
 * eight minutes, whatever hangs. What nvcc had no time for in the first it has in the third, which finds the rest in
 * the cache.
 */
export const plans: Readonly<Record<'first' | 'second' | 'third', readonly Stage[]>> = {
  first: [
    [machine],
    [builds, torchBuilds, references, kernelTests],
    [stepPart('gpt2-step', 'gpt2-small', 64, 1024, 110)],
    [stepPart('llama-step', 'llama-1b', 16, 2048, 95)],
    [kernelPart('gpt2-kernels', 'gpt2-small', 64, 1024, 70)],
    [kernelPart('llama-kernels', 'llama3-1b', 16, 2048, 70)],
  ],
  second: [
    [machine],
    [tuning],
    [kernelPart('gpt2-tuned', 'gpt2-small', 64, 1024, 90, true)],
    [stepPart('gpt2-tuned-step', 'gpt2-small', 64, 1024, 80, true)],
    [kernelPart('llama-tuned', 'llama3-1b', 16, 2048, 90, true)],
    [stepPart('llama-tuned-step', 'llama-1b', 16, 2048, 80, true)],
  ],
  third: [[machine], [ceilings], [sustained], [llmC], [sanitizer], [references, kernelTests]],
};

export const planNames = Object.keys(plans) as (keyof typeof plans)[];

export const allParts: readonly Part[] = [...new Set(planNames.flatMap(name => plans[name].flat()))];
