// The targets by name, as the command line takes them.
export const targets = ['cpu', 'cuda'] as const;
export type Target = (typeof targets)[number];
