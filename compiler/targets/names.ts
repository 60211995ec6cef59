// The targets by name, as the command line takes them.
export const targets = ['cpu', 'cuda'] as const;
export type Target = (typeof targets)[number];

/** Where a program runs: cuda-simt is that of cuda, unchanged, on the emulator. */
export const runTargets = [...targets, 'cuda-simt'] as const;
export type RunTarget = (typeof runTargets)[number];

/** What is compiled for a run. */
export const compiledFor = (target: RunTarget): Target => (target === 'cpu' ? 'cpu' : 'cuda');
