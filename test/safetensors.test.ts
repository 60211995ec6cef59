// Safetensors: what is written is read back bit for bit, and no damaged file is ever taken for a whole one.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { SafetensorsFile, writeSafetensors } from '../runtime/hub/safetensors.ts';

fc.configureGlobal({ includeErrorInReport: true });

const test = suite('safetensors');
const folder = mkdtempSync(join(tmpdir(), 'malc-safetensors-'));
const path = join(folder, 'file.safetensors');
test.after(() => rmSync(folder, { recursive: true }));

const tensors = [
  { name: 'b.weight', shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, -0) },
  { name: 'a.bias', shape: [1], data: Float32Array.of(Number.NaN) },
  { name: 'none', shape: [0, 4], data: new Float32Array(0) },
  { name: 'scalar', shape: [], data: Float32Array.of(1e-40) },
];

/** A file with this header and so many bytes of data. */
function writeRaw(header: unknown, dataBytes: number, claimedLength?: number): void {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(claimedLength ?? json.length));
  writeFileSync(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
}

function openError(): UserError {
  try {
    SafetensorsFile.open(path).close();
  } catch (error) {
    assert.instance(error, UserError);
    assert.ok((error as Error).message.includes(path), 'the message names the file');
    return error as UserError;
  }
  throw new Error('the file was accepted');
}

test('tensors come back bit for bit, in their order, and aligned', async () => {
  await writeSafetensors(path, tensors, { step: '12' });
  const file = SafetensorsFile.open(path);
  assert.equal([...file.tensors.keys()], ['b.weight', 'a.bias', 'none', 'scalar']);
  assert.equal(file.metadata, { format: 'pt', step: '12' });
  for (const { name, shape, data } of tensors) {
    assert.equal(file.tensors.get(name)!.shape, shape);
    assert.equal(new Uint32Array(file.read(name).buffer), new Uint32Array(data.buffer));
  }
  assert.is(file.tensors.get('b.weight')!.offset % 8, 0);
  assert.throws(() => file.read('c'), /holds no tensor 'c'/);
  file.close();
});

test('the same tensors give the same bytes', async () => {
  await writeSafetensors(path, tensors);
  const first = readFileSync(path);
  await writeSafetensors(path, tensors);
  assert.ok(first.equals(readFileSync(path)));
});

test('files that PyTorch wrote are read', () => {
  const reference = '../shared/reference/llama/model.safetensors';
  if (!existsSync(reference)) {
    console.log(`no ${reference}: not tested`);
    return;
  }
  const file = SafetensorsFile.open(reference);
  const embedding = file.tensors.get('model.embed_tokens.weight')!;
  const values = file.read(embedding.name);
  assert.is(values.length, embedding.shape[0]! * embedding.shape[1]!);
  assert.ok(values.every(Number.isFinite) && values.some(value => value !== 0));
  file.close();
});

test('halves of both kinds become the float32 of the same value', () => {
  const values = [1, -2.5, 65504, 2 ** -24, -0, Number.POSITIVE_INFINITY, Number.NaN];
  const half = Uint16Array.of(0x3c00, 0xc100, 0x7bff, 0x0001, 0x8000, 0x7c00, 0x7e00);
  const brain = Uint16Array.of(0x3f80, 0xc020, 0x477f, 0x3380, 0x8000, 0x7f80, 0x7fc0);
  // The nearest bfloat16 below 65504.
  const brainValues = values.with(2, 65280);
  for (const [dtype, bits, expected] of [
    ['F16', half, values],
    ['BF16', brain, brainValues],
  ] as const) {
    writeRaw({ a: { dtype, shape: [7], data_offsets: [0, 14] } }, 14);
    const bytes = readFileSync(path);
    Buffer.from(bits.buffer).copy(bytes, bytes.length - 14);
    writeFileSync(path, bytes);
    const file = SafetensorsFile.open(path);
    const read = file.read('a');
    assert.ok(
      expected.every((value, index) => Object.is(read[index], value)),
      `${dtype}: ${read}`,
    );
    file.close();
  }
  writeRaw({ a: { dtype: 'I64', shape: [1], data_offsets: [0, 8] } }, 8);
  const file = SafetensorsFile.open(path);
  assert.throws(() => file.read('a'), /tensor 'a' is I64, which is not supported; convert the file to F32/);
  file.close();
});

test('a file cut short anywhere is refused', async () => {
  await writeSafetensors(path, tensors);
  const whole = readFileSync(path);
  for (let length = 0; length < whole.length; length++) {
    writeFileSync(path, whole.subarray(0, length));
    assert.match(openError().message, /is not a whole safetensors file: ./);
  }
  writeFileSync(path, Buffer.concat([whole, Buffer.of(0)]));
  assert.match(openError().message, /1 bytes follow the last tensor/);
});

test('what is wrong is named', () => {
  const good = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const cases: readonly (readonly [header: unknown, dataBytes: number, expected: RegExp])[] = [
    ['{', 0, /header is not JSON/],
    ['[]', 0, /header is not a JSON object/],
    [{ __metadata__: { a: 1 } }, 0, /__metadata__ is not an object of strings/],
    [{ a: 5 }, 0, /the entry of tensor 'a' is not an object/],
    [{ a: { ...good, dtype: 'BF16' } }, 8, /tensor 'a', BF16 \[2\], needs 4 bytes and has 8/],
    [{ a: { ...good, dtype: 'F33' } }, 8, /tensor 'a' has the unknown dtype "F33"/],
    [{ a: { ...good, shape: [-2] } }, 8, /tensor 'a' has the shape \[-2\]/],
    [{ a: { ...good, shape: [3] } }, 8, /tensor 'a', F32 \[3\], needs 12 bytes and has 8/],
    [{ a: { ...good, data_offsets: [8, 0] } }, 8, /tensor 'a' has the offsets \[8,0\]/],
    [{ a: { ...good, data_offsets: [4, 12] } }, 12, /4 bytes before tensor 'a' are unused/],
    [{ a: good, b: { ...good, data_offsets: [4, 12] } }, 12, /tensor 'b' overlaps another/],
    [{ a: good }, 4, /it is cut short: tensor 'a' ends at byte/],
  ];
  for (const [header, dataBytes, expected] of cases) {
    writeRaw(header, dataBytes);
    assert.match(openError().message, expected);
  }
  writeRaw('{}', 0, 2 ** 40);
  assert.match(openError().message, /claims 1099511627776 bytes/);
  rmSync(path);
  assert.match(openError().message, /^there is no .*\.$/);
});

test('one changed byte of the header never goes unseen as another layout', async () => {
  await writeSafetensors(path, tensors);
  const whole = readFileSync(path);
  const headerEnd = 8 + Number(whole.readBigUInt64LE());
  fc.assert(
    fc.property(fc.integer({ min: 0, max: headerEnd - 1 }), fc.integer({ min: 1, max: 255 }), (place, change) => {
      const damaged = Buffer.from(whole);
      damaged[place]! ^= change;
      writeFileSync(path, damaged);
      let file: SafetensorsFile;
      try {
        file = SafetensorsFile.open(path);
      } catch (error) {
        assert.instance(error, UserError);
        return;
      }
      // A name or a note may have changed; the tensors still fill the file exactly.
      const bytes = [...file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
      assert.is(bytes, whole.length - headerEnd);
      file.close();
    }),
    { seed: 1, numRuns: 300 },
  );
});

test.run();
