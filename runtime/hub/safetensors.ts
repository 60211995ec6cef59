// Safetensors files: an 8-byte length, a JSON header, then the tensors' bytes, little-endian, one after the other.
// The format: https://github.com/huggingface/safetensors (README, "Format").
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { UserError } from '../../compiler/diagnostic.ts';
import type { NativeFloats } from '../native.ts';
import { type Dtype, elementBytes, isDtype, widening } from './element-types.ts';

/** A tensor to be written. Its data are read once, when it is its turn: a getter may make them then. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: NativeFloats;
}

/** A tensor of an open file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

/** The reference implementation's own limit, which keeps a corrupt length from asking for all the memory. */
const LARGEST_HEADER = 100_000_000;
/** One read or write; the system's own limit is just under 2 GiB. */
const CHUNK = 64 * 1024 * 1024;

/** An open safetensors file whose header has been checked in full. */
export class SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** What stands under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: number;

  private constructor(path: string, file: number, header: Header) {
    this.path = path;
    this.#file = file;
    this.tensors = header.tensors;
    this.metadata = header.metadata;
  }

  /** @throws UserError where the file is missing, cut short, corrupt, or holds what is not supported. */
  static open(path: string): SafetensorsFile {
    let file: number;
    try {
      file = openSync(path, 'r');
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new UserError(code === 'ENOENT' ? `there is no ${path}.` : `${path} cannot be read: ${message}.`);
    }
    try {
      return new SafetensorsFile(path, file, readHeader(path, file));
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  /** A tensor's values as float32, in a new array. @throws UserError where they are of a type that is not read. */
  read(name: string): Float32Array {
    const values = new Float32Array(product(this.#entry(name).shape));
    this.readInto(name, values);
    return values;
  }

  /** Reads a tensor's values into `target`, which must have their number. @throws UserError as `read`. */
  readInto(name: string, target: Float32Array): void {
    const { dtype, shape, offset, byteLength } = this.#entry(name);
    if (target.length !== product(shape)) {
      throw new Error(`${name} has ${product(shape)} values; the target has ${target.length}`);
    }
    if (dtype === 'F32') {
      fill(this.path, this.#file, bytesOf(target), offset);
      return;
    }
    const widen = widening[dtype];
    if (!widen) {
      throw new UserError(
        `${this.path}: tensor '${name}' is ${dtype}, which is not supported; convert the file to F32`,
      );
    }
    const halves = new Uint16Array(target.length);
    fill(this.path, this.#file, new Uint8Array(halves.buffer, 0, byteLength), offset);
    widen(halves, target);
  }

  close(): void {
    closeSync(this.#file);
  }

  #entry(name: string): TensorEntry {
    const entry = this.tensors.get(name);
    if (!entry) throw new UserError(`${this.path} holds no tensor '${name}'`);
    return entry;
  }
}

/**
 * Writes tensors in the order given, with `metadata` under `__metadata__`, and syncs the file to disk. The same input gives
 * the same bytes. The tensors are streamed: nothing is copied.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly Tensor[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const header: Record<string, unknown> = {};
  // Readers of torch files ask for this key before anything else.
  header.__metadata__ = { format: 'pt', ...metadata };
  let offset = 0;
  for (const { name, shape } of tensors) {
    if (Object.hasOwn(header, name)) throw new Error(`two tensors are named ${name}`);
    const end = offset + product(shape) * Float32Array.BYTES_PER_ELEMENT;
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, end] };
    offset = end;
  }
  let json = Buffer.from(JSON.stringify(header));
  // Spaces pad the header so that the tensors are aligned in the file.
  json = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = await open(path, 'w');
  try {
    await writeAll(file, length);
    await writeAll(file, json);
    for (const tensor of tensors) {
      const { data } = tensor;
      if (data.length !== product(tensor.shape))
        throw new Error(`${tensor.name}: ${data.length} values for shape [${tensor.shape}]`);
      await writeAll(file, bytesOf(data));
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

interface Header {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

function readHeader(path: string, file: number): Header {
  const size = fstatSync(file).size;
  if (size < 8) throw damaged(path, `it has ${size} bytes, fewer than the 8 of the header's length`);
  const lengthBytes = new Uint8Array(8);
  fill(path, file, lengthBytes, 0);
  const length = Number(Buffer.from(lengthBytes.buffer).readBigUInt64LE());
  if (length > LARGEST_HEADER)
    throw damaged(path, `its header claims ${length} bytes; at most ${LARGEST_HEADER} can be`);
  if (8 + length > size) throw damaged(path, `its header claims ${length} bytes and the file has ${size}`);
  const headerBytes = new Uint8Array(length);
  fill(path, file, headerBytes, 8);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(headerBytes));
  } catch (error) {
    throw damaged(path, `its header is not JSON (${(error as Error).message})`);
  }
  if (!isObject(json)) throw damaged(path, 'its header is not a JSON object');
  const { __metadata__: metadata = {}, ...rest } = json;
  if (!isObject(metadata) || !Object.values(metadata).every(value => typeof value === 'string')) {
    throw damaged(path, '__metadata__ is not an object of strings');
  }
  const entries = Object.entries(rest).map(([name, entry]) => readEntry(path, name, entry, 8 + length));
  requireContiguous(path, entries, 8 + length, size);
  return { tensors: new Map(entries.map(entry => [entry.name, entry])), metadata: metadata as Record<string, string> };
}

function readEntry(path: string, name: string, entry: unknown, dataStart: number): TensorEntry {
  if (!isObject(entry)) throw damaged(path, `the entry of tensor '${name}' is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isDtype(dtype)) throw damaged(path, `tensor '${name}' has the unknown dtype ${JSON.stringify(dtype)}`);
  if (!isIntegers(shape)) throw damaged(path, `tensor '${name}' has the shape ${JSON.stringify(shape)}`);
  if (!isIntegers(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw damaged(path, `tensor '${name}' has the offsets ${JSON.stringify(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  const byteLength = product(shape) * elementBytes[dtype];
  if (end - begin !== byteLength) {
    throw damaged(
      path,
      `tensor '${name}', ${dtype} [${shape.join(', ')}], needs ${byteLength} bytes and has ${end - begin}`,
    );
  }
  return { name, dtype, shape, offset: dataStart + begin, byteLength };
}

/** The format's rule: the tensors fill the rest of the file, without overlap and without a hole. */
function requireContiguous(path: string, entries: readonly TensorEntry[], dataStart: number, size: number): void {
  let end = dataStart;
  for (const entry of entries.toSorted((a, b) => a.offset - b.offset || a.byteLength - b.byteLength)) {
    if (entry.offset < end) throw damaged(path, `tensor '${entry.name}' overlaps another`);
    if (entry.offset > end) throw damaged(path, `${entry.offset - end} bytes before tensor '${entry.name}' are unused`);
    end += entry.byteLength;
    if (end > size) {
      throw damaged(path, `it is cut short: tensor '${entry.name}' ends at byte ${end} and the file has ${size}`);
    }
  }
  if (end < size) throw damaged(path, `${size - end} bytes follow the last tensor`);
}

function damaged(path: string, what: string): UserError {
  return new UserError(`${path} is not a whole safetensors file: ${what}.`);
}

/** Reads exactly as many bytes as `target` has, from `position` on. */
function fill(path: string, file: number, target: Uint8Array, position: number): void {
  for (let done = 0; done < target.length; ) {
    const count = readSync(file, target, done, Math.min(CHUNK, target.length - done), position + done);
    if (count === 0) throw damaged(path, `it ends at byte ${position + done}`);
    done += count;
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(CHUNK, bytes.length - done));
    done += bytesWritten;
  }
}

function bytesOf(values: Pick<Float32Array, 'buffer' | 'byteOffset' | 'byteLength'>): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function product(shape: readonly number[]): number {
  return shape.reduce((size, dimension) => size * dimension, 1);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isIntegers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(each => Number.isSafeInteger(each) && each >= 0);
}
