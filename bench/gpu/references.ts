// The part that verifies: every reference case of PyTorch's, in float32 and bf16, each in a process of its own.
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { packagePath } from '../../compiler/package-files.ts';
import type { Report } from '../../runtime/verify/verify.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { callMalc, inParallel, lastLines, targetOf } from './programs.ts';

interface Verified extends Item {
  readonly name: string;
  readonly dtype: string;
  readonly seconds: number;
  readonly report: Report | null;
}

/** Where references lie: in a bundle, beside a checkout, and the small ones of the tests. */
const places = ['references', '../shared/reference', 'test/fixtures/reference'];

/** Seconds of a case, mostly nvcc's: what hangs is told by its name before the part ends, and the next case has its turn. */
const CASE_SECONDS = 110;

/** Every folder with what PyTorch computed. */
export function referenceFolders(): string[] {
  return places
    .map(packagePath)
    .filter(existsSync)
    .flatMap(place => readdirSync(place).map(name => join(place, name)))
    .filter(folder => existsSync(join(folder, 'expected.safetensors')))
    .sort();
}

async function verify(folder: string, dtype: string, dry: boolean): Promise<Verified> {
  const words = ['verify', folder, '--target', targetOf(dry), '--dtype', dtype, '--json'];
  const { printed, output, seconds } = await callMalc(words, dry ? {} : { seconds: CASE_SECONDS });
  const line = printed.split('\n').find(each => each.startsWith('{'));
  const report = line === undefined ? null : (JSON.parse(line) as Report);
  const failed = report?.pass ? null : report ? 'differs' : lastLines(output, 3);
  return { name: basename(folder), dtype, seconds, report, failed };
}

export const references: Part = {
  name: 'references',
  title: 'Reference cases: what PyTorch computed, in float32 and with products of bf16',
  seconds: 130,
  async measure({ dry, report }) {
    const folders = dry ? referenceFolders().slice(-1) : referenceFolders();
    const cases = (['f32', 'bf16'] as const).flatMap(dtype => folders.map(folder => [folder, dtype] as const));
    // A case is mostly nvcc's time, which takes about two cores.
    const jobs = Math.max(1, Math.floor(availableParallelism() / 2));
    await inParallel(cases, jobs, async ([folder, dtype]) => report(await verify(folder, dtype, dry)));
  },
  table(items) {
    const cases = items as readonly Verified[];
    const rows = cases.map(({ name, dtype, report, failed }) => {
      if (!report) return [name, dtype, 'no', '', '', '', failed ?? ''];
      const numbers = [report.logits_rel_l2, report.grad_rel_l2.value, report.train_loss_max_rel];
      const texts = numbers.map(value => value.toExponential(1));
      return [name, dtype, report.pass ? 'yes' : 'no', ...texts, report.greedy_match ? 'same' : 'other'];
    });
    const passed = cases.filter(({ failed }) => !failed).length;
    const columns = ['case', 'products', 'passes', 'logits', 'worst gradient', 'training', 'continuation'];
    return `${passed} of ${cases.length} pass.\n\n${markdownTable(columns, rows)}`;
  },
};
