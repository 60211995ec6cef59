// Copies of weights in bfloat16 that products of CUDA programs read, in the emulator: they are those of the weights after
// whatever changed these, in rows padded to whole pieces of 16 bytes; steps are the CPU's; a program's memory counts them.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { NativeModel } from '../runtime/native.ts';
import { buildEmulatedModel } from './cuda/build.ts';
import { batchOf, open, scramble } from './held-against-oracle.ts';
import { oracle, relativeError } from './oracle.ts';
import { emulatorAvailable } from './simt/build.ts';

// Rows of 36, 50 and 22 elements are padded, those of 64 are not; the head is tied in one, and untied in the others.
const { syntax } = parse(
  `model tied {
    vocab_size: 45  max_seq_len: 24  hidden_size: 36  num_layers: 2
    embeddings { tie_weights: true }
    block {
      attention { num_heads: 3  position_encoding: learned {}  bias: true }
      ffn { hidden_dim: 50  activation: gelu  bias: true }
      norm: layernorm
    }
  }
  model gated {
    vocab_size: 67  max_seq_len: 24  hidden_size: 64  num_layers: 1
    embeddings { tie_weights: false }
    block {
      attention { num_heads: 4  num_kv_heads: 2 }
      ffn { hidden_dim: 150 }
    }
  }
  model mixed {
    vocab_size: 45  max_seq_len: 24  hidden_size: 36  num_layers: 1
    block {
      attention { num_heads: 3 }
      ffn { hidden_dim: 22  moe { experts: 4  top_k: 2 } }
    }
  }`,
  'copies.mal',
);

function modelOf(name: string): Model {
  const { model, diagnostics } = check(syntax, { model: name });
  if (!model) throw new Error(JSON.stringify(diagnostics));
  return model;
}

const models = ['tied', 'gated', 'mixed'].map(modelOf);
const [batch, time] = [2, 12];
const sizes = { batch, time };
const adamw = { learningRate: 0.001, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
/** What rounding to 8 bits explains of a relative L2, over two layers. */
const tolerance = 2e-2;

const test = suite('cuda copies of weights');

for (const model of models)
  test(`${model.name}: products of bfloat16 read copies, and those of float32 the weights themselves`, () => {
    const text = (dtype: 'f32' | 'bf16') => {
      const { files } = compile(model, { target: 'cuda', dtype });
      const units = Object.keys(files).filter(name => name.endsWith('.cu'));
      return units.map(name => files[name]).join('\n');
    };
    assert.match(text('bf16'), /const malc_operand<__nv_bfloat16, malc_side::\w+, 8> right\{\{\w+_copy\b/);
    assert.not.match(text('bf16'), /malc_operand<float, malc_side::\w+, \d(, \d)?> right\{\{\w+_proj_/);
    assert.not.match(text('f32'), /_copy\b|__nv_bfloat16/);
  });

const libraries = new Map<Model, Promise<string>>();

/** The emulated library of a model, with every access to memory checked; it is built once. */
function libraryOf(model: Model): Promise<string> {
  const library = libraries.get(model) ?? buildEmulatedModel(model, { dtype: 'bf16', checked: true });
  libraries.set(model, library);
  return library;
}

const openCuda = async (model: Model): Promise<NativeModel> =>
  NativeModel.open(await libraryOf(model), { maxBatch: batch, maxTime: time, maxContext: 24, training: true, seed: 5 });

if (await emulatorAvailable()) {
  for (const model of models)
    test(`${model.name}: what is written is what products read`, async () => {
      const native = await openCuda(model);
      await native.initialize(1);
      const parameters = scramble(native, 11);
      const { tokens, labels, roles } = batchOf(model, batch, time, 5);
      const program = buildProgram(model, standardLibrary());
      const expected = oracle(program, parameters, tokens, labels, batch, time, null, roles);
      const logits = await native.forward(tokens, sizes);
      const error = relativeError(logits, expected.logits);
      assert.ok(error < tolerance && error > 1e-4, `logits ${error}`);
      // Few rows at once, and many.
      for (const [start, length] of [
        [0, 1],
        [1, 11],
      ] as const) {
        const part = Int32Array.from(
          { length: batch * length },
          (_, i) => tokens[Math.floor(i / length) * time + start + (i % length)]!,
        );
        const starts = new Int32Array(batch).fill(start);
        const decoded = await native.decode(part, { batch, time: length, starts });
        for (let b = 0; b < batch; b++) {
          const from = (b * time + start + length - 1) * model.vocab_size;
          const own = decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size);
          const whole = logits.subarray(from, from + model.vocab_size);
          assert.ok(relativeError(own, whole) < tolerance, `decoding of ${length} after ${start}`);
        }
      }
      native.close();
    });

  for (const model of models)
    test(`${model.name}: steps are the CPU's, rounding aside, and update copies as a refresh does`, async () => {
      const both = [await open(model, { fuse: true, dtype: 'bf16' }, sizes), await openCuda(model)] as const;
      const losses: number[][] = [];
      for (const native of both) {
        await native.initialize(3);
        const own: number[] = [];
        for (let update = 1; update <= 3; update++) {
          const { tokens, labels } = batchOf(model, 2 * batch, time, update);
          const size = { microBatches: 2, ...sizes, update: { ...adamw, update } };
          own.push((await native.step(tokens, labels, size)).loss);
        }
        losses.push(own);
      }
      const [cpu, cuda] = both;
      losses[1]!.forEach((loss, n) => {
        assert.ok(Math.abs(loss - losses[0]![n]!) < 2e-3 * loss, `losses ${losses}`);
      });
      const { tokens, labels } = batchOf(model, batch, time, 9);
      const results = async (native: NativeModel) => {
        const logits = await native.forward(tokens, sizes);
        await native.step(tokens, labels, { microBatches: 1, ...sizes, update: null });
        return [logits, ...native.parameters.map(({ gradient }) => gradient!.slice())];
      };
      const [expected, updated] = [await results(cpu), await results(cuda)];
      const error = relativeError(updated[0]!, Float32Array.from(expected[0]!));
      assert.ok(error < tolerance, `logits after the steps ${error}`);
      cuda.writableParameters();
      assert.equal(await results(cuda), updated);
      for (const native of both) native.close();
    });

  test('the memory that a program asks for counts its copies', async () => {
    // Row by row: embedding of tokens and of positions is read by gathers, the first of them by the tied head too.
    const rows = { embed: 45, query_key_value_output: 4 * 36, up: 50 };
    const down = { rows: 36, stride: 56 };
    const layer = (rows.query_key_value_output + rows.up) * 40 + down.rows * down.stride;
    const least = 2 * (rows.embed * 40 + 2 * layer);
    const plain = await buildEmulatedModel(models[0]!, { dtype: 'f32' });
    // Programs that train have workspaces of different sizes besides; what lay outside of their memory, the emulator would see.
    const options = { maxBatch: 1, maxTime: 1, maxContext: 0, training: false };
    const [without, withCopies] = [plain, await libraryOf(models[0]!)].map(path => {
      const native = NativeModel.open(path, options);
      const { bytes } = native;
      native.close();
      return bytes;
    }) as [number, number];
    // Buffers are rounded up to 256 bytes.
    const difference = withCopies - without;
    assert.ok(difference > least && difference < 1.5 * least, `${withCopies} - ${without}, of copies ${least}`);
  });
} else console.log('no g++ that the emulator can use: programs for CUDA are compiled, not run');

test.run();
