// Ctrl-C and SIGTERM while training: the first asks the loop to save and leave, the second ends the process at once.

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** Listens until `release` is called; `signal` is aborted by the first Ctrl-C or SIGTERM. */
export function listenForInterrupts(onFirst: () => void): { readonly signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const listener = (name: NodeJS.Signals) => {
    if (!controller.signal.aborted) {
      onFirst();
      controller.abort();
      return;
    }
    // Not an exit, which would wait for the native call in progress: the signal itself, with nobody listening.
    process.removeAllListeners(name);
    process.kill(process.pid, name);
  };
  for (const name of SIGNALS) process.on(name, listener);
  return {
    signal: controller.signal,
    release: () => {
      for (const name of SIGNALS) process.off(name, listener);
    },
  };
}
