// What an error is. A user's error says what, where and how to mend it; an internal error asks for a report.
// The texts themselves are in errors.ts.
import type { Span } from './syntax/syntax.ts';

export interface Diagnostic {
  readonly severity: 'error' | 'warning';
  /** One plain sentence with the values in it. */
  readonly message: string;
  readonly span: Span | null;
  /** Further places or reasons, each with its own span where it has one. */
  readonly notes: readonly { readonly message: string; readonly span: Span | null }[];
  /** How to mend it. */
  readonly help: string | null;
}

/** The user's input is at fault: the command line prints the message and leaves with 1. */
export class UserError extends Error {
  override readonly name = 'UserError';
}

/** The machine lacks something (a compiler, memory): the command line leaves with 3. */
export class MachineError extends Error {
  override readonly name = 'MachineError';
}
