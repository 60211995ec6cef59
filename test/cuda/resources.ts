// What the real nvcc says of CUDA source: warnings, and the registers, shared memory and spills of each kernel.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';

const run = promisify(execFile);

/** What a kernel takes of a multiprocessor. */
export interface Resources {
  readonly kernel: string;
  readonly registers: number;
  /** Bytes of its __shared__ variables; what a launch asks for besides is not known here. */
  readonly shared: number;
  /** Bytes of a thread's stack frame: arrays that no registers can hold, as sine and cosine have, and spilled registers. */
  readonly stack: number;
  /** Bytes of spilled registers: stored to memory, and loaded again. */
  readonly stores: number;
  readonly loads: number;
}

export interface Verdict {
  readonly kernels: readonly Resources[];
  /** Lines that say what slows a kernel down, such as wgmma instructions that are run one after the other (C7510). */
  readonly slowdowns: readonly string[];
}

/** Whether nvcc is there and works. */
export const nvccAvailable = (): Promise<boolean> =>
  run('nvcc', ['--version']).then(
    () => true,
    () => false,
  );

/**
 * Compiles the device code of a file for one architecture, such as `sm_90a`.
 * @throws Error with what nvcc says where it refuses the source, or warns of it.
 */
export async function compileDevice(source: string, architecture: string, include: string): Promise<Verdict> {
  const target = ['-cubin', '-gencode', `arch=${architecture.replace('sm_', 'compute_')},code=${architecture}`];
  if (architecture === 'sm_90a') target.push('-DMALC_HOPPER');
  const strict = ['-std=c++17', '-Werror', 'all-warnings', '-Xptxas', '-v'];
  const folders = [`-I${include}`, `-I${packagePath('templates/cuda')}`];
  const output = `${source}.${architecture}.cubin`;
  const { stdout, stderr } = await run('nvcc', [...target, ...strict, ...folders, source, '-o', output], {
    maxBuffer: 2 ** 26,
  });
  const said = `${stdout}\n${stderr}`;
  return {
    kernels: said
      .split("Compiling entry function '")
      .slice(1)
      .map(text => {
        const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
        return {
          kernel: nameOf(text.slice(0, text.indexOf("'"))),
          registers: number(/Used (\d+) registers/),
          shared: number(/(\d+) bytes smem/),
          stack: number(/(\d+) bytes stack frame/),
          stores: number(/(\d+) bytes spill stores/),
          loads: number(/(\d+) bytes spill loads/),
        };
      }),
    slowdowns: said.split('\n').filter(line => /\(C75\d\d\)/.test(line)),
  };
}

/** A function's name out of that of its symbol, in which its length stands before it. */
function nameOf(symbol: string): string {
  const [start, length] = /^_ZL?(\d+)/.exec(symbol) ?? ['', ''];
  return length === '' ? symbol : symbol.slice(start.length, start.length + Number(length));
}
