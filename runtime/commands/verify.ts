// malc verify: an imported model against what PyTorch computed with it.

import { type TrainingType, trainingTypes } from '../../compiler/targets/cpu/kernel-source.ts';
import type { Report } from '../verify/verify.ts';
import type { Command } from './command.ts';
import { chooseTarget, targetOption } from './target-option.ts';

export const verify: Command = {
  name: 'verify',
  describe: 'Compare an imported model with stored results of PyTorch',
  positionals: [
    {
      name: 'dir',
      describe: 'A Hugging Face folder with batch.json, expected.json and expected.safetensors',
      required: true,
    },
  ],
  options: {
    target: { ...targetOption, default: 'cpu' },
    dtype: { type: 'string', default: 'f32', choices: trainingTypes, describe: 'The number type of matrix products' },
    json: { type: 'boolean', default: false, describe: 'Print the result as one line of JSON' },
  },
  examples: [['malc verify reference/llama', 'logits, loss, gradients, a continuation and twelve steps of training']],

  async run(args) {
    const { UserError } = await import('../../compiler/diagnostic.ts');
    const { verifyFolder, verifyTarget } = await import('../verify/verify.ts');
    const dtype = args.dtype as TrainingType;
    const { target } = await chooseTarget(args);
    const warn = (warning: string) => console.error(`warning: ${warning}`);
    const report = await verifyFolder(args.dir as string, dtype, warn, verifyTarget(target));
    console.log(args.json ? JSON.stringify(report) : await table(report));
    if (!report.pass) throw new UserError(`${report.case} differs from the reference by more than ${dtype} explains`);
  },
};

async function table(report: Report): Promise<string> {
  const { TOLERANCES } = await import('../verify/verify.ts');
  const limits = TOLERANCES[report.dtype];
  const lossError = Math.abs(report.loss - report.loss_expected) / Math.abs(report.loss_expected);
  const rows: readonly (readonly [what: string, found: number | string, limit: number | string, note: string])[] = [
    ['logits', report.logits_rel_l2, limits.logits, 'relative L2'],
    ['loss', lossError, limits.loss, `${report.loss.toFixed(6)}, expected ${report.loss_expected.toFixed(6)}`],
    [
      'gradients',
      report.grad_rel_l2.value,
      limits.gradient,
      `relative L2, worst of ${report.grads_compared}: ${report.grad_rel_l2.worst}`,
    ],
    [
      'continuation',
      report.greedy_match ? 'same' : 'differs',
      limits.greedy ? 'same' : 'any',
      'the likeliest tokens, with a key-value cache',
    ],
    ['training', report.train_loss_max_rel, limits.trainLoss, `loss afterwards ${report.loss_after.toFixed(6)}`],
  ];
  const cell = (value: number | string) => (typeof value === 'number' ? value.toExponential(1) : value);
  const lines = rows.map(
    ([what, found, limit, note]) => `  ${what.padEnd(14)}${cell(found).padEnd(9)}${cell(limit).padEnd(9)}${note}`,
  );
  const head = `${report.case} on ${report.target} in ${report.dtype}: ${report.pass ? 'the same' : 'NOT the same'}`;
  return [head, `  ${''.padEnd(14)}${'found'.padEnd(9)}limit`, ...lines].join('\n');
}
