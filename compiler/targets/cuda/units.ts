// The translation units of a program: its kernels by what they compute, each group compiled by itself, and the header that
// declares the functions that queue them.
import type { KernelReport } from '../../emission/kernel-library.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import { renderTemplate } from '../../template.ts';

/** What units hold, the end of their files' first sentence; and of how many computations one is made at most. */
const groups = {
  products: { title: 'products of matrices, and what is done with each element while it is at hand', most: 16 },
  attention: { title: 'attention', most: 16 },
  rows: {
    title: 'what is done row by row: norms, activations, sums and losses, rows that are picked and added',
    most: 48,
  },
  experts: { title: 'the choice of experts, and products of the rows that each gets', most: 16 },
  states: { title: 'scans and convolutions along sequences, and the states that they leave', most: 16 },
} as const;
type Group = keyof typeof groups;

/** The group of each kind of kernel. */
const groupOf: Readonly<Record<Kernel['kind'], Group>> = {
  matmul: 'products',
  'contract-each': 'products',
  attention: 'attention',
  'attention-gradient': 'attention',
  row: 'rows',
  gather: 'rows',
  scatter: 'rows',
  append: 'rows',
  'top-k': 'experts',
  'within-capacity': 'experts',
  grouped: 'experts',
  'grouped-gradient': 'experts',
  scan: 'states',
  'scan-gradient': 'states',
  convolution: 'states',
  'convolution-gradient': 'states',
  recent: 'states',
};

/** Headers that every unit includes. */
export const unitHeaders = ['launch.h', 'random.h', 'rows.h', 'sequences.h'];

/** Whether cuBLASLt may stand in for one of these kernels. */
export const asksLibrary = (kernels: readonly KernelReport[]): boolean =>
  kernels.some(({ source }) => source.includes('malc_cublas_'));

/**
 * The units that a program's kernels make up, by file name, and kernels.h. A unit's text is that of its kernels and of
 * nothing else, so that programs which share them share the compiled unit too. A group that would take long to compile is
 * cut into several files of about as many kernels.
 * @param headersOf the further headers that kernels of a kind need
 */
export function emitUnits(
  kernels: readonly KernelReport[],
  headersOf: (kind: Kernel['kind']) => readonly string[],
): Record<string, string> {
  const units = (Object.keys(groups) as Group[]).flatMap(group => {
    const { title, most } = groups[group];
    const all = kernels.filter(({ kind }) => groupOf[kind] === group);
    const headers = [...new Set([...unitHeaders, ...all.flatMap(({ kind }) => headersOf(kind))])];
    const files = Math.ceil(all.length / most);
    const size = Math.ceil(all.length / files);
    return Array.from({ length: files }, (_, n) => {
      const own = all.slice(n * size, (n + 1) * size);
      return {
        file: files === 1 ? `${group}.cu` : `${group}_${n + 1}.cu`,
        title,
        headers: asksLibrary(own) ? [...headers, 'cublas.h'] : headers,
        kernels: own
          .map(({ source }) => source)
          .join('\n')
          .trimEnd(),
        declarations: own.map(({ declaration }) => declaration).join('\n'),
      };
    });
  });
  return {
    ...Object.fromEntries(units.map(unit => [unit.file, renderTemplate('cuda/unit.cu.hbs', unit)])),
    'kernels.h': renderTemplate('cuda/kernels.h.hbs', { units }),
  };
}
