// References on CUDA, in the emulator: what PyTorch computed, by the kernels for all GPUs; where products are of bfloat16, by those
// for Hopper GPUs too, in several orders of threads, blocks and copies.
import { createHash } from 'node:crypto';
import { copyFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CudaProductType } from '../../compiler/targets/cuda/kernel-source.ts';
import { importFolder } from '../../runtime/hub/import.ts';
import { NativeModel } from '../../runtime/native.ts';
import { openReference } from '../../runtime/verify/reference.ts';
import { type Report, type VerifyTarget, verifyFolder } from '../../runtime/verify/verify.ts';
import { buildEmulatedModel } from './build.ts';

const warn = (warning: string) => assert.unreachable(warning);

/** The seeds of random orders. */
const orders = [1, 2, 3];

/**
 * Holds a reference's folder against PyTorch, as malc verify does, by the kernels that its dtype has.
 * @returns the report of those for all GPUs
 */
export async function holdReference(folder: string, dtype: CudaProductType): Promise<Report> {
  let library = '';
  const report = await verifyFolder(folder, dtype, warn, {
    name: 'cuda',
    build: async model => {
      library = await buildEmulatedModel(model, { dtype });
      return { libraryPath: library };
    },
  });
  assert.ok(report.pass, JSON.stringify(report));
  if (dtype === 'bf16') await holdOnHopper(folder, library);
  return report;
}

/** In one order all that is verified, in each the same bits of logits and gradients. */
async function holdOnHopper(folder: string, library: string): Promise<void> {
  // The emulator reads both once, the one when it is loaded, the other with the first launch: each order has a copy.
  const { MALC_SIMT_CAPABILITY, MALC_SIMT_SEED } = process.env;
  process.env.MALC_SIMT_CAPABILITY = '9.0';
  try {
    const results = [];
    for (const order of orders) {
      process.env.MALC_SIMT_SEED = String(order);
      const libraryPath = `${library}.${order}.so`;
      copyFileSync(library, libraryPath);
      results.push(await compute(folder, libraryPath));
      if (order !== orders[0]) continue;
      const target: VerifyTarget = { name: 'cuda', build: async () => ({ libraryPath }) };
      const report = await verifyFolder(folder, 'bf16', warn, target);
      assert.ok(report.pass, `on a Hopper GPU: ${JSON.stringify(report)}`);
    }
    for (const other of results.slice(1)) assert.equal(other, results[0], 'the same bits in any order');
  } finally {
    restore({ MALC_SIMT_CAPABILITY, MALC_SIMT_SEED });
  }
}

function restore(environment: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(environment)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}

const digest = ({ buffer, byteOffset, byteLength }: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('hex');

/** Digests of the logits and of every gradient of the reference's batch, by name, and the loss. */
async function compute(folder: string, libraryPath: string) {
  const { batch, expected } = openReference(folder);
  expected.close();
  const { tensors } = importFolder(folder);
  const { batch: maxBatch, time: maxTime } = batch;
  const native = NativeModel.open(libraryPath, { maxBatch, maxTime, maxContext: 0, training: true });
  try {
    const parameters = new Map(native.writableParameters().map(({ name, data }) => [name, data]));
    tensors.readInto(name => parameters.get(name)!);
    const logits = await native.forward(batch.tokens, batch);
    const { loss } = await native.step(batch.tokens, batch.labels, { ...batch, microBatches: 1, update: null });
    const gradients = native.parameters.map(({ name, gradient }) => [name, digest(Float32Array.from(gradient!))]);
    return { loss, logits: digest(logits), gradients };
  } finally {
    native.close();
    tensors.close();
  }
}
