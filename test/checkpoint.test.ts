// Checkpoints and the run folder: which are kept, which is picked, what a damaged one says, what config.json holds.
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Attention, Block, Model } from '../compiler/check/model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { configOf, readModelConfig } from '../runtime/hub/config.ts';
import { SafetensorsFile } from '../runtime/hub/safetensors.ts';
import { loadTraining, loadWeights, type TrainState, weightsFile } from '../runtime/train/checkpoint.ts';
import { findCheckpoint, RunFolder } from '../runtime/train/run-folder.ts';
import { requireSameRun } from '../runtime/train/settings.ts';
import { openBigram } from './fixtures/bigram.ts';
import { bigramModel, settings } from './fixtures/bigram-run.ts';
import { plainAttention } from './fixtures/plain-attention.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('checkpoint');
const root = mkdtempSync(join(tmpdir(), 'malc-checkpoint-'));
test.after(() => rmSync(root, { recursive: true }));

let folders = 0;
const newFolder = () => join(root, `run-${folders++}`);

function stateAt(step: number, validationLoss: number | null = null): Omit<TrainState, 'journals'> {
  const read = { data: ['/text'], dataHash: 'd', tokenizerHash: 't' };
  return { step, cursor: 4 * step, settings, target: 'cpu', ...read, validationLoss, lowest: null };
}

/** A run folder with checkpoints at these steps, each with its validation loss. */
async function folderWith(checkpoints: readonly (readonly [step: number, validationLoss: number | null])[]) {
  const path = newFolder();
  const model = await openBigram();
  const run = await RunFolder.open(path, { resume: false });
  for (const [step, validationLoss] of checkpoints) {
    const [table, bias] = model.writableParameters();
    table!.data[0] = step;
    bias!.secondMoment![3] = step + 0.5;
    run.metrics.append(`{"step":${step}}\n`);
    await run.save(model, stateAt(step, validationLoss));
  }
  run.close();
  model.close();
  return path;
}

const stepsIn = (path: string) =>
  readdirSync(path)
    .filter(name => name.startsWith('step-'))
    .sort();

test('the last two and the best stay', async () => {
  const path = await folderWith([
    [1, 3],
    [2, 2],
    [3, null],
    [4, 2.5],
    [5, 2],
  ]);
  assert.equal(stepsIn(path), ['step-2', 'step-4', 'step-5']);
  assert.is(readFileSync(join(path, 'latest'), 'utf8'), 'step-5\n');
  assert.is(readFileSync(join(path, 'best'), 'utf8'), 'step-2\n');
  assert.equal(readFileSync(join(path, 'model.safetensors')), readFileSync(join(path, 'step-5/model.safetensors')));
});

test('weights and moments come back', async () => {
  const path = await folderWith([[7, null]]);
  const model = await openBigram();
  loadTraining(join(path, 'step-7'), model);
  assert.is(model.parameters[0]!.data[0], 7);
  assert.is(model.parameters[1]!.secondMoment![3], 7.5);
  assert.is(model.parameters[1]!.firstMoment![3], 0);
  model.close();
  const file = SafetensorsFile.open(join(path, 'model.safetensors'));
  assert.equal([...file.tensors.keys()], ['table.weight', 'table.bias']);
  assert.equal(file.metadata, { format: 'pt', step: '7' });
  file.close();
});

test('moments that older checkpoints have of biases which balance experts are left, and of nothing else', async () => {
  const path = await folderWith([[7, null]]);
  const model = await openBigram();
  const [table, bias] = model.writableParameters();
  const without = { ...bias!, trained: false, moments: 0, firstMoment: null, secondMoment: null } as const;
  const holding = (second: typeof bias) =>
    ({ options: model.options, writableParameters: () => [table, second] }) as unknown as typeof model;
  table!.data[0] = 0;
  loadTraining(join(path, 'step-7'), holding(without));
  assert.is(table!.data[0], 7);
  const frozen = { ...without, gradient: null };
  const message = userError(() => loadTraining(join(path, 'step-7'), holding(frozen)));
  assert.match(message, /holds the tensor 'table\.bias\.first_moment', which the model does not have/);
  model.close();
});

test('a torn checkpoint is never picked, and what came after the last whole one is taken back', async () => {
  const path = await folderWith([
    [4, null],
    [8, null],
  ]);
  mkdirSync(join(path, '.step-12.1234.tmp'));
  appendFileSync(join(path, '.step-12.1234.tmp/model.safetensors'), 'half');
  appendFileSync(join(path, 'metrics.jsonl'), '{"step":9}\n{"st');
  // A crash between the checkpoint's rename and what follows from it.
  rmSync(join(path, 'latest'));
  rmSync(join(path, 'model.safetensors'));
  assert.is(RunFolder.peek(path, true)!.step, 8);
  const run = await RunFolder.open(path, { resume: true });
  run.close();
  assert.not(existsSync(join(path, '.step-12.1234.tmp')));
  assert.is(readFileSync(join(path, 'metrics.jsonl'), 'utf8'), '{"step":4}\n{"step":8}\n');
  assert.is(readFileSync(join(path, 'latest'), 'utf8'), 'step-8\n');
  assert.ok(existsSync(join(path, 'model.safetensors')));
});

test('a damaged checkpoint says which file, what, and how to go on', async () => {
  const path = await folderWith([
    [4, null],
    [8, null],
  ]);
  const model = await openBigram();
  truncateSync(join(path, 'step-8/optimizer.safetensors'), 1000);
  const message = userError(() => loadTraining(join(path, 'step-8'), model));
  assert.match(message, /step-8\/optimizer\.safetensors is not a whole safetensors file: it is cut short/);
  assert.match(message, /Remove the folder .*step-8, and the run goes on from the checkpoint before it/);
  truncateSync(join(path, 'step-8/state.json'), 30);
  const fault = await RunFolder.open(path, { resume: true }).catch(error => error);
  assert.instance(fault, UserError);
  assert.match(fault.message, /step-8\/state\.json cannot be read: .*Remove the folder/);
  rmSync(join(path, 'step-8'), { recursive: true });
  assert.is(RunFolder.peek(path, true)!.step, 4);
  model.close();
});

test('weights of another shape are refused by the tensor’s name', async () => {
  const path = await folderWith([[1, null]]);
  const model = await openBigram({}, { vocabulary: 16 });
  const message = userError(() => loadWeights(join(path, 'step-1'), model));
  assert.match(message, /tensor 'table\.weight' is \[32, 32\]; the model has \[16, 16\]/);
  model.close();
});

test('averages that a run did not keep are refused', async () => {
  const path = await folderWith([[1, null]]);
  const model = await openBigram();
  const folder = join(path, 'step-1');
  assert.match(
    userError(() => loadWeights(folder, model, true)),
    /step-1 has no averages of weights \(ema\.safetensors\), which malc train keeps with --ema/,
  );
  assert.is(weightsFile(folder, false), join(folder, 'model.safetensors'));
  model.close();
});

test('a run is not gone on with by another optimizer', () => {
  const identity = { settings, model: bigramModel, dataHash: 'd', tokenizerHash: 't' };
  const other = { ...identity, settings: { ...settings, optimizer: 'lion', ema: 0.9 } as const };
  const message = userError(() => requireSameRun('run', identity, other));
  assert.match(message, /--optimizer is lion; the run has adamw\n {2}--ema is 0\.9; the run has 0\n/);
});

test('a checkpoint is found by its run, by itself and by its role', async () => {
  const path = await folderWith([
    [1, 2],
    [2, 3],
  ]);
  assert.equal(findCheckpoint(path), { folder: join(path, 'step-2'), run: path });
  assert.equal(findCheckpoint(join(path, 'step-1')), { folder: join(path, 'step-1'), run: path });
  assert.equal(findCheckpoint(join(path, 'best')), { folder: join(path, 'step-1'), run: path });
  assert.match(
    userError(() => findCheckpoint(join(path, 'metrics.jsonl'))),
    /is a file. Give a run folder/,
  );
  assert.match(
    userError(() => findCheckpoint(join(path, 'none'))),
    /does not exist/,
  );
  const empty = newFolder();
  mkdirSync(empty);
  assert.match(
    userError(() => findCheckpoint(empty)),
    /holds no checkpoint yet/,
  );
});

const block = {
  name: 'block',
  attention: {
    ...plainAttention(4, 2, 16),
    position_encoding: { kind: 'rope', theta: 10000, dims: 16, interleaved: false, scaling: null },
    origin: 'm.mal:1',
  },
  ssm: null,
  ffn: { hidden_dim: 176, activation: 'silu', gate: true, bias: false, dropout: 0, moe: null, origin: 'm.mal:2' },
  norm: { name: 'rmsnorm', constants: { eps: 1e-5 } },
  norm_position: 'pre',
  residual: true,
  residual_scale: null,
  parallel: false,
  dropout: 0,
  origin: 'm.mal:3',
} satisfies Block;
const llama: Model = {
  ...bigramModel,
  vocab_size: 256,
  max_seq_len: 128,
  hidden_size: 64,
  blocks: [block],
  layers: [0, 0, 0],
  output: { bias: false, norm: { name: 'rmsnorm', constants: { eps: 1e-5 } }, softcap: null, scale: null },
};

test('config.json of a plain llama has the fields that transformers wrote for one', () => {
  const config = configOf(llama, 2);
  assert.equal(config.malc, llama);
  const reference = '../shared/reference/llama/config.json';
  if (!existsSync(reference)) {
    console.log(`no ${reference}: not compared`);
    return;
  }
  const expected = JSON.parse(readFileSync(reference, 'utf8'));
  // The version's own notes, a name that transformers 5 changed, and a token that no model here begins with.
  for (const key of ['transformers_version', 'dtype', 'bos_token_id', 'pad_token_id', 'pretraining_tp'])
    delete expected[key];
  for (const [key, value] of Object.entries(expected)) assert.equal(config[key], value, key);
});

test('a model with another class’s tensors says that it is one, and what none computes says that it is malc’s', () => {
  const withAttention = (changes: Partial<Attention>): Model => ({
    ...llama,
    blocks: [{ ...block, attention: { ...block.attention, ...changes } }],
  });
  const variants: readonly (readonly [Model, string])[] = [
    [withAttention({ window_size: 8 }), 'mistral'],
    [withAttention({ qkv_bias: true }), 'qwen2'],
    [withAttention({ qk_norm: block.norm }), 'qwen3'],
    [{ ...llama, blocks: [{ ...block, ffn: { ...block.ffn, activation: 'gelu' } }] }, 'llama'],
    [{ ...llama, blocks: [{ ...block, ffn: { ...block.ffn, activation: 'elu' } }] }, 'malc'],
    [{ ...llama, blocks: [{ ...block, norm_position: 'post' }] }, 'malc'],
    [{ ...llama, blocks: [block, { ...block, residual: false }], layers: [0, 1, 0] }, 'malc'],
    [{ ...llama, output: { ...llama.output, norm: { name: 'rmsnorm', constants: { eps: 1e-6 } } } }, 'malc'],
    [{ ...llama, embeddings: { ...llama.embeddings, scale: 8 } }, 'malc'],
    [{ ...llama, formulas: ['norm rmsnorm(x) = x'] }, 'malc'],
    [bigramModel, 'malc'],
  ];
  for (const [model, expected] of variants) {
    const config = configOf(model, 2);
    assert.is(config.model_type, expected);
    assert.equal(config.malc, model);
  }
});

test('the Model comes back from config.json', async () => {
  const path = newFolder();
  const run = await RunFolder.open(path, { resume: false });
  run.writeModel('model m { }\n', llama, null);
  run.close();
  assert.equal(readModelConfig(join(path, 'config.json')), llama);
  assert.is(readFileSync(join(path, 'model.mal'), 'utf8'), 'model m { }\n');
  assert.match(
    userError(() => readModelConfig(join(path, 'model.mal'))),
    /cannot be read/,
  );
  assert.match(
    userError(() => readModelConfig('package.json')),
    /has no key 'malc'/,
  );
});

test('another model, text or tokenizer is refused by the option’s name', () => {
  const saved = { settings, model: llama, dataHash: 'd', tokenizerHash: 't' };
  requireSameRun('run', saved, { ...saved, model: { ...llama, name: 'renamed', blocks: [{ ...block, origin: '' }] } });
  const wide: Model = { ...llama, blocks: [{ ...block, ffn: { ...block.ffn, hidden_dim: 512 } }] };
  const message = userError(() =>
    requireSameRun('run', saved, { ...saved, model: wide, dataHash: 'e', tokenizerHash: 'u' }),
  );
  assert.match(message, /--model: blocks\.0\.ffn\.hidden_dim is 512; the run has 176/);
  assert.match(message, /--data: the text is not the one/);
  assert.match(message, /--tokenizer is not the one/);
});

test.run();
