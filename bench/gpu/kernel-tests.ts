// The part that tests kernels: what test/cuda-*.test.ts compile for the emulator, compiled by nvcc, on the device.
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { packagePath } from '../../compiler/package-files.ts';
import { architectureOf, findCudaDevice } from '../../runtime/cuda-device.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call, inParallel, isBundled, lastLines } from './programs.ts';

interface Tested extends Item {
  readonly file: string;
  readonly passed: number;
  readonly total: number;
  readonly seconds: number;
}

/** Where the tests are: bundled, or their sources. */
const [folder, ending] = isBundled ? ['dist/tests', '.test.js'] : ['test', '.test.ts'];

/** What is nvcc's word, or the emulator's alone, needs no device. */
const isForDevice = (name: string) =>
  name.startsWith('cuda-') && name.endsWith(ending) && !/nvcc|toolchain|bench/.test(name);

/** Seconds of a file, mostly nvcc's: what hangs is told by its name before the part ends. */
const FILE_SECONDS = 120;

/** uvu's totals. */
const totalOf = (output: string, what: 'Total' | 'Passed'): number =>
  Number(new RegExp(`^ {2}${what}: +(\\d+)`, 'm').exec(output)?.[1] ?? 0);

export const kernelTests: Part = {
  name: 'tests',
  title: 'Tests of the kernels on the device',
  seconds: 140,
  async measure({ dry, report }) {
    const files = readdirSync(packagePath(folder)).filter(isForDevice).sort();
    const device = dry ? null : findCudaDevice();
    // Without a device the same tests run in the emulator.
    const environment = device ? { MALC_TESTS_ON_DEVICE: architectureOf(device) } : {};
    const jobs = dry ? 1 : Math.max(1, Math.floor(availableParallelism() / 2));
    const chosen = dry ? files.filter(name => name.startsWith('cuda-sampling')) : files;
    await inParallel(chosen, jobs, async file => {
      const words = [...process.execArgv, packagePath(`${folder}/${file}`)];
      const options = {
        environment: { ...environment, FORCE_COLOR: '0' },
        folder: packagePath('.'),
        seconds: dry ? 0 : FILE_SECONDS,
      };
      const { code, output, seconds } = await call(process.execPath, words, options);
      const [total, passed] = [totalOf(output, 'Total'), totalOf(output, 'Passed')];
      const failed = code === 0 && passed === total && total > 0 ? null : faultOf(output);
      report<Tested>({ file: file.replace(ending, ''), passed, total, seconds, failed });
    });
  },
  table: items =>
    markdownTable(
      ['file', 'passed', 'of'],
      (items as readonly Tested[]).map(({ file, passed, total }) => [file, passed, total]),
    ),
};

/** From the first failed test on, without the totals. */
function faultOf(output: string): string {
  const lines = output.split('\n');
  const first = lines.findIndex(line => /^\s+FAIL\s/.test(line));
  return first < 0 ? lastLines(output) : lines.slice(first, first + 24).join('\n');
}
