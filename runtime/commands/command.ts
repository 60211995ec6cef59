// What a command is. One command is one thin file; its options are data, and its work is imported when it runs,
// so that `malc --help` pays for nothing.
import type { numberKinds } from './number-kinds.ts';

/** The command line itself is at fault, whatever the input holds: the program leaves with 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface Option {
  readonly type: 'string' | 'number' | 'boolean';
  readonly describe: string;
  readonly alias?: string | readonly string[];
  readonly default?: string | number | boolean;
  /** What help shows as the default where the command itself finds the value. */
  readonly whenAbsent?: string;
  /** Which numbers are taken; others are refused by the option's name before the command runs. */
  readonly number?: keyof typeof numberKinds;
  /** Whether the word `auto` is taken in a number's place. */
  readonly auto?: boolean;
  readonly required?: boolean;
  readonly choices?: readonly string[];
  /** True where several values may follow the name. */
  readonly array?: boolean;
  /** Options that say the same in another way: what the command line says in one, a file says no more in the others. */
  readonly instead?: readonly string[];
  /** Shown under "Advanced options". */
  readonly advanced?: boolean;
}

export interface Positional {
  readonly name: string;
  readonly describe: string;
  readonly required?: boolean;
  /** True where several may stand: the value is a list. Only the last positional may. */
  readonly array?: boolean;
}

export interface Command {
  readonly name: string;
  readonly describe: string;
  readonly positionals?: readonly Positional[];
  readonly options: Readonly<Record<string, Option>>;
  readonly examples?: readonly (readonly [command: string, does: string])[];
  /**
   * Does the work. Arguments are keyed by the option's long name (`batch-size`). Input errors are thrown as UserError
   * (exit 1), options that cannot be meant as UsageError (exit 2), what the machine lacks as MachineError (exit 3);
   * anything else is an internal error (exit 70).
   */
  run(args: Readonly<Record<string, unknown>>): Promise<void>;
}
