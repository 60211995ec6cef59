// The translation units of a program: its kernels by what they compute, each group compiled by itself, and the header that
// declares the functions that queue them.
import type { KernelReport } from '../../emission/kernel-library.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import { renderTemplate } from '../../template.ts';

/** What a unit holds: the end of its file's first sentence. */
const titles = {
  products: 'products of matrices, and what is done with each element while it is at hand',
  attention: 'attention',
  rows: 'what is done row by row: norms, activations, sums and losses, rows that are picked and added',
  experts: 'the choice of experts, and products of the rows that each gets',
  states: 'scans and convolutions along sequences, and the states that they leave',
} as const;
type UnitName = keyof typeof titles;

/** The unit of each kind of kernel. */
const unitOf: Readonly<Record<Kernel['kind'], UnitName>> = {
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

/**
 * The units that a program's kernels make up, by file name, and kernels.h. A unit's text is that of its kernels and of
 * nothing else, so that programs which share them share the compiled unit too.
 * @param headersOf the further headers that kernels of a kind need
 */
export function emitUnits(
  kernels: readonly KernelReport[],
  headersOf: (kind: Kernel['kind']) => readonly string[],
): Record<string, string> {
  const names = (Object.keys(titles) as UnitName[]).filter(name => kernels.some(({ kind }) => unitOf[kind] === name));
  const units = names.map(name => {
    const own = kernels.filter(({ kind }) => unitOf[kind] === name);
    return {
      file: `${name}.cu`,
      title: titles[name],
      headers: [...new Set([...unitHeaders, ...own.flatMap(({ kind }) => headersOf(kind))])],
      kernels: own.map(({ source }) => source).join('\n'),
      declarations: own.map(({ declaration }) => declaration).join('\n'),
    };
  });
  return {
    ...Object.fromEntries(units.map(unit => [unit.file, renderTemplate('cuda/unit.cu.hbs', unit)])),
    'kernels.h': renderTemplate('cuda/kernels.h.hbs', { units }),
  };
}
