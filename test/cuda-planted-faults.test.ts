// Faults planted in the kernels for GPUs, one at a time (cuda/planted-faults.ts): each must be caught, by the emulator or by a
// wrong result, in the order of threads and copies that runs have where none is asked for.
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { inParallel } from '../compiler/targets/cuda/in-parallel.ts';
import { cutToBf16, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import { shapes } from './cpu/attention-shapes.ts';
import {
  inHopperAttention,
  inHopperExperts,
  inHopperGradients,
  inHopperProducts,
  inHopperStatistics,
  inProducts,
  type PlantedFault,
} from './cuda/planted-faults.ts';
import { holdBackward, holdForward } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { expertCases } from './cuda-expert-cases.ts';
import { emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { largeCases, type ProductCase, productCases } from './cuda-product-cases.ts';
import { randomNumbers } from './random-numbers.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda, planted faults');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-faults-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Runs kernels in a schedule. Throws what is wrong with their results, or what the emulator reports. */
type Check = (schedule: number) => void;
/** Compiles kernels in a folder, whose headers are those of templates/cuda with a fault. */
type Build = (folder: string) => Promise<Check>;

const templates = packagePath('templates/cuda');
const headers = readdirSync(templates).filter(name => name.endsWith('.h'));

/** A folder with all headers, of which one has a fault. */
function folderWith(fault: PlantedFault | null, name: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  for (const header of headers) copyFileSync(join(templates, header), join(path, header));
  if (fault) {
    const parts = readFileSync(join(templates, fault.file), 'utf8').split(fault.words);
    assert.is(parts.length, 2, `${fault.file} has once what '${fault.title}' replaces`);
    writeFileSync(join(path, fault.file), parts.join(fault.become));
  }
  return path;
}

const fewRows = [{ batch: 2, time: 140 }];
const allCases = [...largeCases, ...productCases];
const caseOf = (wanted: string) => ({ ...allCases.find(({ name }) => name === wanted)!, calls: fewRows });
/** Enough slots for several tiles, so that stages are filled again. */
const experts = { experts: 4, chosen: 2, inner: 72, outer: 264, outerFirst: true, shared: true };
const [ofExperts] = expertCases('experts', experts, 70) as [ProductCase];

const buildProducts = (cases: readonly ProductCase[], capability: string): Build => {
  const products = cases.map(each => emitCase(each, 'bf16'));
  return async path => {
    const [source, output] = [join(path, 'products.cu'), join(path, 'products.so')];
    writeFileSync(source, libraryOf(products));
    await buildEmulated({ sources: [source], output, library: true, include: [path] });
    const check = openCases(output, products);
    return schedule => {
      process.env.MALC_SIMT_CAPABILITY = capability; // a library asks when it is first called
      for (const product of products) check(product, schedule);
    };
  };
};

/** Two heads of 64 share keys. */
const shape = { ...shapes[0]!, heads: 2, kvHeads: 1, dim: 64, valueDim: 64, valueWidth: 64 };
const attention: Compiled = { name: 'grouped', shape, program: 'narrow' };
const random = randomNumbers(61);
const rough = randomCase(shape, training(1, 300), random);
const [query, key, value] = [rough.query, rough.key, rough.value].map(cutToBf16) as [
  Float32Array,
  Float32Array,
  Float32Array,
];
const given = { ...rough, query, key, value };
const outputGradient = cutToBf16(randomFloats(random, outputsOf(shape, given)));
/** As those of cuda-hopper-attention.test.ts. */
const bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const buildAttention =
  (hold: typeof holdForward | typeof holdBackward): Build =>
  async path => {
    const library = await buildShapes(path, [attention], [path]);
    return schedule => {
      process.env.MALC_SIMT_CAPABILITY = '9.0';
      library.schedule!(schedule);
      if (hold === holdBackward) holdBackward(library, attention, given, outputGradient, bounds);
      else holdForward(library, attention, given, bounds);
    };
  };

const kinds: readonly (readonly [name: string, Build, readonly PlantedFault[]])[] = [
  [
    'products on Hopper GPUs',
    buildProducts(['gradients_in_several_tiles', 'several_tiles'].map(caseOf), '9.0'),
    inHopperProducts,
  ],
  [
    'statistics of rows on Hopper GPUs',
    buildProducts(['streams_and_what_norms_ask_of_them'].map(caseOf), '9.0'),
    inHopperStatistics,
  ],
  ['products of experts on Hopper GPUs', buildProducts([ofExperts], '9.0'), inHopperExperts],
  ['attention on Hopper GPUs', buildAttention(holdForward), inHopperAttention],
  ['gradients of attention on Hopper GPUs', buildAttention(holdBackward), inHopperGradients],
  ['products on all GPUs', buildProducts([caseOf('several_tiles')], '8.0'), inProducts],
];

const messageOf = (run: () => void): string | null => {
  try {
    run();
    return null;
  } catch (error) {
    return (error as Error).message;
  }
};

if (await emulatorAvailable()) {
  const planted = kinds.flatMap(([kind, build, faults]) => [null, ...faults].map(fault => ({ kind, build, fault })));
  const checks = await inParallel([...planted.entries()], ([n, { build, fault }]) =>
    build(folderWith(fault, String(n))),
  );
  for (const [n, { kind, fault }] of planted.entries())
    test(`${kind}: ${fault?.title ?? 'nothing is reported where there is no fault'}`, () => {
      const check = checks[n]!;
      if (fault) {
        const said = messageOf(() => check(0)) ?? 'nothing';
        assert.match(said, fault.caught, `what is said of it: ${said}`);
      } else for (const schedule of [0, 1, 2, 3]) check(schedule);
    });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
