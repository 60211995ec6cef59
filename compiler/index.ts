// The compiler as a function, top to bottom: a checked Model becomes a program of graphs, kernels and C source.
import { buildProgram, graphsOf } from './build/program.ts';
import { standardLibrary } from './check/standard-library.ts';
import type { Model } from './check/model.ts';
import { printGraph } from './graph/print.ts';
import { verify } from './graph/verify.ts';
import { emitCpu } from './targets/cpu/index.ts';

export interface CompileOptions {
  /** False for a kernel for each operation: slower, the same result within rounding. */
  readonly fuse?: boolean;
  /** Checks every graph against the rules of graph/verify.ts. */
  readonly verify?: boolean;
  /** Called after each stage: for `--time` and `--dump STAGE`. */
  readonly onStage?: (name: string, milliseconds: number, print: () => string) => void;
}

export interface Compiled {
  /** Source files to be written side by side; `model.c` is compiled. */
  readonly files: Readonly<Record<string, string>>;
  readonly plan: PlanSummary;
}

/** What will be launched and kept, for plan.json. */
export interface PlanSummary {
  readonly model: string;
  readonly functions: readonly {
    readonly name: string;
    readonly launches: readonly string[];
    /** Floats of intermediate values, by what they grow with: '' (fixed), time, batch*time. */
    readonly intermediate: Readonly<Record<string, number>>;
  }[];
}

/** Compiles a model to C. */
export function compile(model: Model, options: CompileOptions = {}): Compiled {
  const stage = <T>(name: string, run: () => T, print: (value: T) => string): T => {
    const before = performance.now();
    const value = run();
    options.onStage?.(name, performance.now() - before, () => print(value));
    return value;
  };
  const library = stage('library', standardLibrary, formulas => [...formulas.keys()].join('\n'));
  const program = stage(
    'graph',
    () => buildProgram(model, library),
    value => graphsOf(value).map(printGraph).join('\n'),
  );
  if (options.verify) for (const graph of graphsOf(program)) verify(graph);
  const source = stage(
    'source',
    () => emitCpu(program, { fuse: options.fuse ?? true }),
    value => value.files['model.c']!,
  );
  const functions = source.functions.map(({ name, launches, plan }) => ({
    name,
    launches,
    intermediate: Object.fromEntries(plan.totals),
  }));
  return { files: source.files, plan: { model: model.name, functions } };
}
