// The kernels of a program, each distinct one once, and who launches them.
import type { Kernel } from '../kernels/kernel.ts';
import { addWork, type Work } from '../plan/work.ts';
import { Names, withName } from './writer.ts';

/** A kernel of the generated program, for `malc explain`. */
export interface KernelReport {
  readonly name: string;
  readonly kind: Kernel['kind'];
  /** What it computes and where that was written, a line each. */
  readonly explanation: readonly string[];
  readonly source: string;
  /** How other translation units know it; null where there are none. */
  readonly declaration: string | null;
  /** How its products are divided, in words, where that was chosen among several ways. */
  readonly schedule: string | null;
}

/** What is to be known of a kernel: see KernelReport. Its own name is @NAME@. */
interface AddedKernel {
  readonly text: string;
  readonly declaration?: string | null;
  readonly schedule?: string | null;
}

/** A kernel in a function that launches it: what a profile has a line for, and `malc bench` knows the work of. */
export interface LaunchReport {
  /** `FUNCTION/KERNEL`. */
  readonly name: string;
  readonly function: string;
  readonly kernel: string;
  /** How often one run of the function launches it, and the work of all these launches together. */
  readonly count: number;
  readonly work: Work;
}

/** Collects the kernels of a program's functions, and who launches them. */
export class KernelLibrary {
  private readonly reserved: ReadonlySet<string>;
  private readonly names = new Names();
  private readonly byText = new Map<string, KernelReport>();
  private readonly launched = new Map<string, LaunchReport>();
  /** Whether the program takes the time of its launches. */
  readonly profile: boolean;

  /** @param reserved names of functions that no kernel may take */
  constructor(reserved: readonly string[], profile = false) {
    this.reserved = new Set(reserved);
    this.profile = profile;
  }

  /** The name of this kernel's function; an equal kernel of an earlier function serves again. */
  add(
    { text, declaration = null, schedule = null }: AddedKernel,
    wanted: string,
    kind: Kernel['kind'],
    explanation: readonly string[],
  ): string {
    const known = this.byText.get(text);
    if (known) return known.name;
    const name = this.names.unique(this.reserved.has(wanted) ? `${wanted}_kernel` : wanted);
    this.byText.set(text, {
      ...{ name, kind, explanation, source: withName(text, name) },
      declaration: declaration && withName(declaration, name),
      schedule,
    });
    return name;
  }

  /** Notes a launch; returns its number in the profile, the same for all launches of a kernel in one function. */
  launch(functionName: string, kernel: string, work: Work): number {
    const name = `${functionName}/${kernel}`;
    const known = this.launched.get(name);
    const count = (known?.count ?? 0) + 1;
    this.launched.set(name, {
      name,
      function: functionName,
      kernel,
      count,
      work: known ? addWork(known.work, work) : work,
    });
    return [...this.launched.keys()].indexOf(name);
  }

  get launches(): LaunchReport[] {
    return [...this.launched.values()];
  }

  get reports(): KernelReport[] {
    return [...this.byText.values()];
  }

  toString(): string {
    return this.reports.map(({ source }) => source).join('\n');
  }
}
