// Holds a compiled program against the float64 oracle of its graphs: logits, loss and every gradient; and the properties
// that any such program must have: causality, and decoding that agrees with the whole text at once.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import type { Model } from '../compiler/check/model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import { type CompileOptions, compile } from '../compiler/index.ts';
import { buildLibrary, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { NativeModel } from '../runtime/native.ts';
import { holdMixedDecoding, holdTexts } from './held-decoding.ts';
import { oracle, relativeError } from './oracle.ts';
import { randomNumbers } from './random-numbers.ts';

const folder = mkdtempSync(join(tmpdir(), 'malc-oracle-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const found = await findCompiler();
/** Little optimisation, as these are many programs; no warning passes. The kernels' headers have tests at full optimisation. */
const compiler = {
  ...found,
  flags: [...found.flags.filter(flag => flag !== '-O3'), '-O1', '-Wall', '-Wextra', '-Werror'],
};
const libraries = new Map<string, string>();
/** Of what training drops. */
const seed = 5;

/** The library of these source files, which is compiled once with these flags. */
async function build(files: Readonly<Record<string, string>>, flags: readonly string[]): Promise<string> {
  const key = JSON.stringify([files, flags]);
  const known = libraries.get(key);
  if (known !== undefined) return known;
  const sources = join(folder, String(libraries.size));
  mkdirSync(sources);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(sources, name), text);
  const library = join(sources, 'model.so');
  await buildLibrary(sources, { ...compiler, flags: [...compiler.flags, ...flags] }, library);
  libraries.set(key, library);
  return library;
}

/**
 * Compiles a model and opens it, for training unless its weights are of 8 bits, with a cache for all its positions where
 * no number of them is given.
 * @param options `flags` are what the C compiler is told besides; with a separator documents are masked
 */
export async function open(
  model: Model,
  options: Pick<CompileOptions, 'optimizer' | 'momentum' | 'dtype' | 'recompute' | 'profile' | 'frozen'> & {
    readonly fuse: boolean;
    readonly threads?: number;
    readonly flags?: readonly string[];
    readonly averages?: boolean;
    readonly separator?: number;
  },
  sizes: { batch: number; time: number; context?: number },
): Promise<NativeModel> {
  const { threads = 2, flags = [], averages, separator, ...compiled } = options;
  const masksDocuments = separator !== undefined;
  const library = await build(compile(model, { verify: true, masksDocuments, ...compiled }).files, flags);
  return NativeModel.open(library, {
    maxBatch: sizes.batch,
    maxTime: sizes.time,
    maxContext: sizes.context ?? model.max_seq_len,
    training: options.dtype !== 'int8',
    threads,
    seed,
    averages,
    separator,
  });
}

/** Weights that are neither zero nor one, so that every parameter matters. */
export function scramble(model: NativeModel, seed: number): Map<string, Float32Array> {
  const random = randomNumbers(seed);
  const parameters = model.writableParameters();
  for (const { data, shape } of parameters) {
    const spread = shape.length === 1 ? 0.3 : 1 / Math.sqrt(shape.at(-1)!);
    for (let i = 0; i < data.length; i++)
      data[i] = (shape.length === 1 ? 0.8 : 0) + spread * 2 * (random() - 0.5) * 1.7;
  }
  return new Map(parameters.map(({ name, data }) => [name, data]));
}

/** Random tokens, labels of which some are not scored, and roles. */
export function batchOf(model: Model, batch: number, time: number, seed: number) {
  const random = randomNumbers(seed);
  const draw = (below: number) => Int32Array.from({ length: batch * time }, () => Math.floor(random() * below));
  const labels = draw(model.vocab_size);
  for (let i = 0; i < labels.length - 1; i += 5) labels[i] = -1;
  return { tokens: draw(model.vocab_size), labels, roles: draw(model.embeddings.role_embeddings ?? 1) };
}

/** What a failed comparison says. */
const describe = (model: Model) => JSON.stringify(model);

/** Relative L2 that logits, with which goes the loss, and gradients may be away from the oracle (DESIGN, sections 4 and 7). */
export const tolerances = { f32: { logits: 1e-5, gradients: 1e-4 }, bf16: { logits: 2e-2, gradients: 8e-2 } } as const;

/**
 * A batch of one size through evaluation and a training step of a model that was opened.
 * @param looksAhead whether a mask of the model's sees what comes later
 * @returns what went in, and the logits
 */
export async function holdStep(
  native: NativeModel,
  model: Model,
  batch: number,
  time: number,
  seedOfWeights: number,
  dtype: keyof typeof tolerances = 'f32',
  looksAhead = false,
) {
  const tolerance = tolerances[dtype];
  const parameters = scramble(native, seedOfWeights);
  const { tokens, labels, roles } = batchOf(model, batch, time, seedOfWeights + 99);
  const size = { batch, time, roles };
  const { separator } = native.options;
  const program = buildProgram(model, formulaLibrary(model), { masksDocuments: separator !== undefined });
  const still = oracle(program, parameters, tokens, labels, batch, time, null, roles, separator);
  const expected = oracle(program, parameters, tokens, labels, batch, time, seed, roles, separator);

  const logits = await native.forward(tokens, size);
  const error = relativeError(logits, still.logits);
  assert.ok(error < tolerance.logits, `logits ${error} ${describe(model)}`);
  const result = await native.step(tokens, labels, { microBatches: 1, ...size, update: null });
  assert.ok(
    Math.abs(result.loss - expected.loss) < tolerance.logits * expected.loss,
    `loss ${result.loss}, expected ${expected.loss}`,
  );
  const away = Math.abs(result.auxiliary - expected.auxiliary);
  assert.ok(away <= tolerance.logits * expected.auxiliary, 'auxiliary loss');
  assert.is(native.parameters.length, expected.gradients.size);
  for (const { name, gradient } of native.parameters) {
    const error = relativeError(gradient!, expected.gradients.get(name)!);
    const length = Math.sqrt(expected.gradients.get(name)!.reduce((sum, x) => sum + x * x, 0));
    assert.ok(
      error < tolerance.gradients || error * length < 1e-6,
      `gradient of ${name}: ${error} of ${length} ${describe(model)}`,
    );
  }
  const evaluated = await native.evaluate(tokens, labels, size);
  assert.ok(Math.abs(evaluated.loss - still.loss) < tolerance.logits * still.loss);

  if (looksAhead) return { tokens, roles, logits };
  // Causality: another token at t leaves every logit before t as it was, bit for bit.
  const changed = tokens.slice();
  const at = Math.floor(time / 2);
  for (let b = 0; b < batch; b++) changed[b * time + at] = (changed[b * time + at]! + 1) % model.vocab_size;
  const after = await native.forward(changed, size);
  for (let b = 0; b < batch; b++)
    for (let i = 0; i < at * model.vocab_size; i++) {
      const place = b * time * model.vocab_size + i;
      assert.is(after[place], logits[place]);
    }
  return { tokens, roles, logits };
}

/** A batch of one size through every function of a model that was opened. */
export async function hold(native: NativeModel, model: Model, batch: number, time: number, seedOfWeights: number) {
  const { tokens, roles, logits } = await holdStep(native, model, batch, time, seedOfWeights);

  // Cached decoding: a prompt of up to three, then one token at a time; and again from the start, in other parts, which
  // what the first text left behind must not touch.
  for (const prompt of [Math.min(3, time), 1])
    for (let end = prompt, start = 0; end <= time; start = end, end++) {
      const part = (values: Int32Array) =>
        Int32Array.from(
          { length: batch * (end - start) },
          (_, i) => values[Math.floor(i / (end - start)) * time + start + (i % (end - start))]!,
        );
      const starts = new Int32Array(batch).fill(start);
      const decoded = await native.decode(part(tokens), { batch, time: end - start, starts, roles: part(roles) });
      for (let b = 0; b < batch; b++) {
        const from = (b * time + end - 1) * model.vocab_size;
        const error = relativeError(
          decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size),
          logits.subarray(from, from + model.vocab_size),
        );
        assert.ok(error < 1e-5, `decoding at ${end - 1} after a prompt of ${prompt}: ${error} ${describe(model)}`);
      }
    }
  await holdMixedDecoding(native, model, seedOfWeights);
  await holdTexts(native, model, seedOfWeights);
}
