// Which of a program's own headers a file includes.

/** The headers of a program that a text includes itself, in order; CUDA's own stand in angle brackets. */
export const includedBy = (text: string): string[] =>
  [...text.matchAll(/^#include "([^"]+)"$/gm)].map(([, included]) => included!);

/** The headers that a text includes, and those that they include, by name. `read` gives a header's text. */
export function allIncludedBy(text: string, read: (name: string) => string): Map<string, string> {
  const headers = new Map<string, string>();
  const add = (name: string): void => {
    // What the emulator has in place of CUDA's own headers is no part of a program.
    if (headers.has(name) || name === 'simt.h') return;
    const header = read(name);
    headers.set(name, header);
    includedBy(header).forEach(add);
  };
  includedBy(text).forEach(add);
  return headers;
}
