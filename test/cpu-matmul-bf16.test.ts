// Products of bfloat16 operands (templates/cpu/matmul_bf16.h), each way to multiply in turn: rounding against arithmetic,
// packed tiles word by word, products against float64 sums of the rounded operands, whether these lie in memory as float32 or
// as bfloat16. AMX runs in amx-emulator.h.
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packedBf16 } from '../compiler/targets/cpu/block-sizes.ts';
import { assemblyFor, buildPaths, type Library, paths } from './cpu/build-bf16-kernels.ts';
import { type Layout, type Operand, randomOperand } from './cpu/operands.ts';
import { randomNumbers } from './random-numbers.ts';

fc.configureGlobal({ includeErrorInReport: true });

const libraries = await buildPaths();
const native = libraries.get('native')!;

const test = suite('cpu matmul bf16');

/** The bfloat16 nearest to a float32, by arithmetic. Denormals are zero, as they are to the hardware's instructions. */
function rounded(x: number): number {
  const magnitude = Math.abs(x);
  if (!(magnitude < Infinity)) return x;
  if (magnitude < 2 ** -126) return 0 * x;
  let unit = 2 ** (Math.floor(Math.log2(magnitude)) - 7);
  // The logarithm may round across a power of two.
  if (magnitude / unit >= 256) unit *= 2;
  if (magnitude / unit < 128) unit /= 2;
  const below = Math.floor(magnitude / unit);
  const rest = magnitude / unit - below;
  const nearest = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  return Math.sign(x) * (nearest * unit < 2 ** 128 ? nearest * unit : Infinity);
}

const one = new Float32Array(1);
const oneBits = new Uint32Array(one.buffer);

/** The upper half of `rounded`; NaN, given by its bits, keeps its sign and its upper bits and becomes quiet. */
function roundedBits(bits: number): number {
  oneBits[0] = bits;
  if (Number.isNaN(one[0])) return (bits >>> 16) | 0x40;
  one[0] = rounded(one[0]!);
  return oneBits[0]! >>> 16;
}

const steps = (extent: number) => Math.ceil(extent / 32);

/** Where a number lies in packed tiles, in halves of words: lane by lane (left), or pair by pair (right). */
function placeOf(lane: number, k: number, depth: number, by: 'lane' | 'pair'): number {
  const step = Math.floor(lane / 32) * steps(depth) + Math.floor(k / 32);
  const tile = 2 * step + Math.floor((lane % 32) / 16);
  const [inLane, pair] = [lane % 16, Math.floor((k % 32) / 2)];
  const word = by === 'lane' ? inLane * 16 + pair : pair * 16 + inLane;
  return 2 * (tile * 256 + word) + (k % 2);
}

const sources = ['float32', 'bfloat16'] as const;
type Source = (typeof sources)[number];

/** The bfloat16 numbers next to these, by malc_narrow, which is tested against arithmetic below. */
function narrowed(data: Float32Array): Uint16Array {
  const numbers = new Uint16Array(data.length);
  native.narrow!(numbers, data, data.length);
  return numbers;
}

/** Memory, strides and whether it is narrow: how the driver takes an operand. */
function operandArguments({ data, rowStride, columnStride }: Operand, source: Source) {
  return [source === 'bfloat16' ? narrowed(data) : data, rowStride, columnStride, source === 'bfloat16' ? 1 : 0];
}

function packRight(library: Library, right: Operand, source: Source, inner: number, columns: number) {
  const words = new Uint32Array(Number(library.packed_size!(inner, columns))).fill(0xabababab);
  library.pack!(words, ...operandArguments(right, source), inner, columns, 2);
  return new Uint16Array(words.buffer);
}

function packLeft(library: Library, left: Operand, source: Source, rows: number, inner: number) {
  const words = new Uint32Array(512 * steps(inner)).fill(0xabababab);
  library.pack_left!(words, ...operandArguments(left, source), rows, inner);
  return new Uint16Array(words.buffer);
}

/** What packing lanes x depth must give; `bitsOf` are the operand's own. */
function expectedTiles(lanes: number, depth: number, by: 'lane' | 'pair', bitsOf: (lane: number, k: number) => number) {
  const halves = new Uint16Array(1024 * steps(lanes) * steps(depth));
  for (let lane = 0; lane < lanes; lane++)
    for (let k = 0; k < depth; k++) halves[placeOf(lane, k, depth, by)] = roundedBits(bitsOf(lane, k));
  return halves;
}

// Every upper half of a float32 with lower halves on both sides of a tie, at the tie and at the ends: 2048 x 160.
const lowerHalves = [0, 0x7fff, 0x8000, 0x8001, 0xffff];
const everyBits = Uint32Array.from(
  { length: 65536 * 5 },
  (_, i) => ((i % 65536) * 65536 + lowerHalves[i >>> 16]!) >>> 0,
);

const everyRounded = Uint16Array.from(everyBits, roundedBits);

for (const [name, library] of libraries) {
  test(`rounding: ${name}`, () => {
    const [long, short] = [2048, 160];
    const data = new Float32Array(everyBits.buffer);
    const inRows = packRight(library, { data, rowStride: long, columnStride: 1 }, 'float32', short, long);
    const inColumns = packRight(library, { data, rowStride: 1, columnStride: long }, 'float32', long, short);
    const narrow = new Uint16Array(everyBits.length);
    library.narrow!(narrow, data, everyBits.length);
    for (let i = 0; i < everyBits.length; i++) {
      const [major, minor] = [Math.floor(i / long), i % long];
      const given = [
        inRows[placeOf(minor, major, short, 'pair')],
        inColumns[placeOf(major, minor, long, 'pair')],
        narrow[i],
      ];
      if (given.some(bits => bits !== everyRounded[i]))
        assert.unreachable(`${everyBits[i]!.toString(16)}: ${given}, not ${everyRounded[i]}`);
    }
    const wide = new Float32Array(65536);
    library.widen!(
      wide,
      Uint16Array.from(wide, (_, i) => i),
      wide.length,
    );
    assert.ok(new Uint32Array(wide.buffer).every((bits, i) => bits === i * 65536));
  });

  test(`packed tiles: ${name}`, () => {
    const random = randomNumbers(21);
    const bits = ({ data, rowStride, columnStride }: Operand) => {
      const all = new Uint32Array(data.buffer);
      return (row: number, column: number) => all[row * rowStride + column * columnStride]!;
    };
    for (const layout of ['rows', 'columns', 'neither'] as const)
      for (const [lanes, depth] of [
        [1, 1],
        [16, 32],
        [17, 31],
        [32, 64],
        [30, 130],
        [45, 33],
        [96, 257],
      ] as const) {
        const right = randomOperand(random, depth, lanes, layout);
        const ofRight = expectedTiles(lanes, depth, 'pair', (lane, k) => bits(right)(k, lane));
        const left = randomOperand(random, lanes, depth, layout);
        const ofLeft = expectedTiles(lanes, depth, 'lane', bits(left));
        for (const source of sources) {
          const what = `${source}, ${layout}, ${lanes} x ${depth}`;
          assert.equal(packRight(library, right, source, depth, lanes), ofRight, `right, ${what}`);
          if (lanes <= 32) assert.equal(packLeft(library, left, source, lanes, depth), ofLeft, `left, ${what}`);
        }
      }
  });
}

interface Product {
  readonly left: Operand;
  readonly right: Operand;
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
  /** What the product is added to; null where it is stored. */
  readonly start: Float32Array | null;
}

interface Division {
  readonly rows?: number;
  readonly columns?: number;
  readonly threads?: number;
  readonly left?: Source;
  readonly right?: Source;
}

/** The product, and whether its left operand was packed. */
function multiplyAndTell(library: Library, product: Product, division: Division = {}) {
  const { rows, inner, columns, start } = product;
  const result = start ? start.slice() : new Float32Array(rows * columns).fill(NaN);
  const operand = (side: 'left' | 'right') => {
    const [memory, ...rest] = operandArguments(product[side], division[side] ?? 'float32');
    return [memory, (memory as Float32Array).byteLength, ...rest];
  };
  const packed: number = library.multiply!(
    ...[result, ...operand('left'), ...operand('right'), rows, inner, columns],
    ...[division.rows ?? 96, division.columns ?? 96, division.threads ?? 1, start ? 1 : 0],
  );
  return { result, packed: packed !== 0 };
}

const multiply = (...given: Parameters<typeof multiplyAndTell>) => multiplyAndTell(...given).result;

/** The largest error relative to the sum of the magnitudes that were added. */
function productError(result: Float32Array, { left, right, rows, inner, columns, start }: Product): number {
  const [lefts, rights] = [left, right].map(({ data }) => {
    const bits = Uint32Array.from(narrowed(data), upper => upper * 65536);
    return new Float32Array(bits.buffer);
  }) as [Float32Array, Float32Array];
  let worst = 0;
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      let sum = start ? start[i * columns + j]! : 0;
      let magnitude = Math.abs(sum);
      for (let k = 0; k < inner; k++) {
        const a = lefts[i * left.rowStride + k * left.columnStride]!;
        const term = a * rights[k * right.rowStride + j * right.columnStride]!;
        sum += term;
        magnitude += Math.abs(term);
      }
      const error = Math.abs(result[i * columns + j]! - sum) / magnitude;
      if (!(error <= worst)) worst = error;
    }
  return worst;
}

function randomProduct(
  seed: number,
  [rows, inner, columns]: readonly [number, number, number],
  [leftLayout, rightLayout]: readonly [Layout, Layout],
  adds: boolean,
): Product {
  const random = randomNumbers(seed);
  const left = randomOperand(random, rows, inner, leftLayout);
  const right = randomOperand(random, inner, columns, rightLayout);
  const start = adds ? Float32Array.from({ length: rows * columns }, () => 10 * random() - 5) : null;
  return { left, right, rows, inner, columns, start };
}

/** The same product, the rows of its left operand one after the other without a gap. */
function tight({ left, ...product }: Product): Product {
  const { rows, inner } = product;
  const data = Float32Array.from({ length: rows * inner }, (_, i) => {
    const row = Math.floor(i / inner);
    return left.data[row * left.rowStride + (i - row * inner) * left.columnStride]!;
  });
  return { ...product, left: { data, rowStride: inner, columnStride: 1 } };
}

const layout = fc.constantFrom<Layout>('rows', 'columns', 'neither');
const extent = fc.oneof(
  { weight: 1, arbitrary: fc.constant(1) },
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 70 }) },
  { weight: 1, arbitrary: fc.constantFrom(32, 96, 64) },
);
const inner = fc.oneof({ weight: 8, arbitrary: extent }, { weight: 1, arbitrary: fc.integer({ min: 380, max: 1100 }) });
const product = fc
  .tuple(fc.nat(1e6), fc.tuple(extent, inner, extent), fc.tuple(layout, layout), fc.boolean())
  .map(choices => randomProduct(...choices));

for (const [name, library] of libraries) {
  test(`product: ${name}`, () => {
    const divided = fc.record({
      rows: fc.integer({ min: 1, max: 256 }),
      columns: fc.constantFrom(32, 64),
      threads: fc.constantFrom(1, 2),
      left: fc.constantFrom(...sources),
      right: fc.constantFrom(...sources),
    });
    fc.assert(
      fc.property(product, divided, (product, division) => {
        const result = multiply(library, product);
        assert.ok(productError(result, product) < 1e-5);
        assert.equal(multiply(library, product, division), result);
      }),
      { numRuns: 40, seed: 9 },
    );
  });

  test(`several blocks of the inner dimension and of rows: ${name}`, () => {
    const product = randomProduct(22, [130, 2100, 40], ['columns', 'rows'], true);
    const result = multiply(library, product, { threads: 2 });
    assert.ok(productError(result, product) < 1e-5);
    assert.equal(multiply(library, product, { rows: 33, columns: 32 }), result);
    assert.equal(multiply(library, product, { rows: 128, left: 'bfloat16', right: 'bfloat16' }), result);
  });

  test(`bfloat16 in memory, whole tiles and many panels: ${name}`, () => {
    // Rows of 96 numbers are an odd number of cache lines apart, those of 64 are not; 2720 are several parts of AMX's depth.
    for (const [rows, inner, columns] of [
      [16, 64, 64],
      [48, 64, 300],
      [70, 96, 300],
      [48, 2720, 16],
    ] as const) {
      const product = tight(randomProduct(25, [rows, inner, columns], ['rows', 'columns'], rows === 48));
      const result = multiply(library, product, { columns: 320 });
      assert.ok(productError(result, product) < 1e-5);
      for (const left of sources)
        for (const right of sources)
          assert.equal(multiply(library, product, { rows: 256, columns: 320, left, right }), result);
    }
  });

  test(`infinity and NaN stay in their rows and columns: ${name}`, () => {
    const product = randomProduct(23, [40, 50, 40], ['rows', 'columns'], false);
    const clean = multiply(library, product);
    const { left, right } = product;
    left.data[7 * left.rowStride + 3] = NaN;
    left.data[39 * left.rowStride + 49] = Infinity;
    right.data[20 + 33 * right.columnStride] = NaN;
    multiply(library, product).forEach((value, i) => {
      const [row, column] = [Math.floor(i / 40), i % 40];
      if (row === 7 || column === 33) assert.ok(Number.isNaN(value));
      else if (row === 39) assert.is(Math.abs(value), Infinity);
      else assert.is(value, clean[i]);
    });
  });
}

test('each way is the one that runs', () => {
  const tiles = libraries.get('tiles')!;
  const before = Number(tiles.emulated!());
  multiply(tiles, randomProduct(24, [32, 64, 64], ['rows', 'rows'], false));
  // Two blocks of 2 x 2 tiles, two steps each.
  assert.is(Number(tiles.emulated!()) - before, 16);
  for (const [name, path] of Object.entries(paths))
    if (libraries.has(name)) assert.is(libraries.get(name)!.path!(), path);
});

test('tiles of bfloat16 in memory are loaded from where they lie', () => {
  const tiles = libraries.get('tiles')!;
  const packs = (rows: number, inner: number, columns: number, left: Source) => {
    const product = tight(randomProduct(26, [rows, inner, columns], ['rows', 'rows'], false));
    return multiplyAndTell(tiles, product, { columns: 512, left }).packed;
  };
  assert.not(packs(64, 64, 64, 'bfloat16'));
  assert.not(packs(16, 96, 400, 'bfloat16'), 'few conflicts in the cache');
  assert.ok(packs(64, 64, 400, 'bfloat16'), 'read often');
  assert.ok(packs(64, 64, 64, 'float32'), 'to be rounded');
  assert.ok(packs(64, 65, 64, 'bfloat16'), 'a step is not whole');
  assert.ok(packs(65, 64, 64, 'bfloat16'), 'a tile is not whole');
});

test('a system that refuses tiles gets the float32 products', () => {
  const refused = libraries.get('refused')!;
  for (let seed = 30; seed < 34; seed++) {
    const product = randomProduct(seed, [50, 40 * (seed - 29), 70], ['columns', 'columns'], seed % 2 === 0);
    assert.equal(multiply(refused, product), multiply(libraries.get('widened')!, product));
  }
  assert.is(Number(refused.emulated!()), 0);
});

test('machines that are not here: their instructions are in the assembly', async () => {
  if (process.arch !== 'x64') return console.log('not x64: AMX and AVX512-BF16 are not compiled');
  const wanted = { sapphirerapids: ['tdpbf16ps', 'vdpbf16ps'], cooperlake: ['vdpbf16ps', 'tdpbf16ps'] } as const;
  for (const [machine, [used, unused]] of Object.entries(wanted)) {
    const assembly = await assemblyFor(machine);
    if (assembly === null) {
      console.log(`the compiler does not know ${machine}: not compiled`);
      continue;
    }
    assert.match(assembly, new RegExp(`\\b${used}\\b`), machine);
    assert.not.match(assembly, new RegExp(`\\b${unused}\\b`), machine);
  }
});

test('the planner sets enough aside for a packed operand, and no more than padding takes', () => {
  for (const columns of [1, 31, 32, 33, 768, 1000])
    for (const inner of [1, 2, 31, 32, 33, 64, 97, 4096]) {
      const { each, padding } = packedBf16(columns);
      const unused = inner * each + padding - Number(native.packed_size!(inner, columns));
      assert.ok(unused >= 0 && unused <= padding);
      if (inner % 32 === 1) assert.is(unused, 0);
    }
});

test.run();
