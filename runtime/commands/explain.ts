// `malc explain`: which kernels a model became, which MAL lines each came from, and a kernel's source.
import { UserError } from '../../compiler/diagnostic.ts';
import type { Compiled } from '../../compiler/index.ts';
import type { Command } from './command.ts';

export const explain: Command = {
  name: 'explain',
  describe: 'Show which kernels a model becomes, what each fuses, and their source',
  positionals: [{ name: 'file', describe: 'A .mal file, or the name of a well-known model', required: true }],
  options: {
    kernel: {
      type: 'string',
      alias: 'k',
      describe: 'Show this kernel with its source: a name, or a number of the list',
    },
    name: { type: 'string', describe: 'Which model, where the file has several' },
    json: { type: 'boolean', describe: 'Print the list as JSON', default: false },
  },
  examples: [
    ['malc explain tiny', 'lists the launches of a training step and of decoding'],
    ['malc explain tiny --kernel block_query_key_value', "shows that kernel's formulas and C source"],
  ],
  async run(args) {
    const { readModel } = await import('../../compiler/check/read-model.ts');
    const { compile } = await import('../../compiler/index.ts');
    const { model, warnings } = readModel(args.file as string, args.name as string | undefined);
    for (const warning of warnings) console.error(`${warning}\n`);
    const compiled = compile(model);
    const wanted = args.kernel as string | undefined;
    if (wanted !== undefined) showKernel(compiled, wanted);
    else if (args.json) console.log(JSON.stringify(listOf(compiled), null, 2));
    else showList(compiled);
  },
};

const listOf = ({ plan, kernels }: Compiled) => ({
  functions: plan.functions.map(({ name, launches }) => ({ name, launches })),
  kernels: kernels.map(({ name, kind, explanation }) => ({ name, kind, explanation })),
});

/** Every function with its launches; a kernel's explanation stands at its first launch. */
function showList({ plan, kernels }: Compiled): void {
  const shown = new Set<string>();
  for (const { name, launches } of plan.functions) {
    console.log(`${name}: ${launches.length} ${launches.length === 1 ? 'launch' : 'launches'}`);
    for (const launch of launches) {
      const number = kernels.findIndex(kernel => kernel.name === launch);
      const { kind, explanation } = kernels[number]!;
      console.log(`  ${String(number + 1).padStart(3)} ${launch} (${kind})${shown.has(launch) ? ', as above' : ''}`);
      if (!shown.has(launch)) for (const line of explanation) console.log(`      ${line}`);
      shown.add(launch);
    }
    console.log();
  }
}

function showKernel({ plan, kernels }: Compiled, wanted: string): void {
  const kernel = kernels.find(({ name }, index) => name === wanted || String(index + 1) === wanted);
  if (!kernel) {
    const names = kernels.map(({ name }, index) => `  ${String(index + 1).padStart(3)} ${name}`).join('\n');
    throw new UserError(`there is no kernel ${wanted}; the kernels are\n${names}`);
  }
  const callers = plan.functions.filter(({ launches }) => launches.includes(kernel.name)).map(({ name }) => name);
  console.log(`${kernel.name}: a ${kernel.kind} kernel, launched by ${callers.join(', ')}\n`);
  console.log(kernel.source);
}
