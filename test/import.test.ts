// Models that transformers saved: where each tensor's rows go, which tensors are refused, and that what is imported and
// exported again is the same, bit for bit.
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { architectureNames } from '../runtime/hub/architecture.ts';
import { readModelConfig } from '../runtime/hub/config.ts';
import { exportRun } from '../runtime/hub/export.ts';
import { importFolder } from '../runtime/hub/import.ts';
import { layoutOf } from '../runtime/hub/layout.ts';
import { readConfig } from '../runtime/hub/read-config.ts';
import { SafetensorsFile, writeSafetensors } from '../runtime/hub/safetensors.ts';
import { saveAsRun } from '../runtime/hub/save-run.ts';
import { findCheckpoint, RunFolder } from '../runtime/train/run-folder.ts';
import { minimal } from './fixtures/hugging-face.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('import');
const root = mkdtempSync(join(tmpdir(), 'malc-import-'));
test.after(() => rmSync(root, { recursive: true }));

let folders = 0;
const newFolder = () => {
  const path = join(root, `folder-${folders++}`);
  mkdirSync(path);
  return path;
};

/** A folder whose tensors have the values 0, 1, 2, ... */
async function writeFolder(config: Readonly<Record<string, unknown>>): Promise<string> {
  const path = newFolder();
  const { model, architecture } = readConfig(config, 'm', 'config.json');
  const tensors = layoutOf(architecture, model).map(({ name, shape }) => ({
    name,
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, index) => index),
  }));
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  await writeSafetensors(join(path, 'model.safetensors'), tensors);
  return path;
}

/** The parameters of a folder by malc's names. */
function parametersIn(path: string): Map<string, { shape: readonly number[]; data: Float32Array }> {
  const { tensors } = importFolder(path);
  const parameters = new Map(
    tensors.parameters().map(({ name, shape, data }) => [name, { shape, data: data.slice() }]),
  );
  tensors.close();
  return parameters;
}

/** Which rows of a tensor of [rows, 8] with the values 0, 1, 2, ... a parameter has. */
const rowsOf = ({ data }: { data: Float32Array }) =>
  Array.from({ length: data.length / 8 }, (_, row) => {
    assert.equal(
      [...data.subarray(row * 8, row * 8 + 8)],
      Array.from({ length: 8 }, (_, i) => data[row * 8]! + i),
    );
    return data[row * 8]! / 8;
  });

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

test('gpt2: fused and transposed', async () => {
  const parameters = parametersIn(await writeFolder(minimal.gpt2!));
  // The file's element [i, o] of [8, 24] is 24 i + o; rows of the fused matrix are q, k and v, 8 each.
  const layer = 'model.layers.1.self_attn';
  for (const [part, letter] of ['q', 'k', 'v'].entries()) {
    const { shape, data } = parameters.get(`${layer}.${letter}_proj.weight`)!;
    assert.equal(shape, [8, 8]);
    assert.ok(data.every((value, index) => value === 24 * (index % 8) + 8 * part + Math.floor(index / 8)));
    assert.equal([...parameters.get(`${layer}.${letter}_proj.bias`)!.data], range(8 * part, 8 * part + 8));
  }
  const { shape, data } = parameters.get('model.layers.0.mlp.down_proj.weight')!;
  assert.equal(shape, [8, 32]);
  assert.ok(data.every((value, index) => value === 8 * (index % 32) + Math.floor(index / 32)));
});

test('gpt_neox: fused head by head', async () => {
  const parameters = parametersIn(await writeFolder(minimal.gpt_neox!));
  const rows = (letter: string) => rowsOf(parameters.get(`model.layers.0.self_attn.${letter}_proj.weight`)!);
  assert.equal(rows('q'), [0, 1, 2, 3, 12, 13, 14, 15]);
  assert.equal(rows('k'), [4, 5, 6, 7, 16, 17, 18, 19]);
  assert.equal(rows('v'), [8, 9, 10, 11, 20, 21, 22, 23]);
  assert.equal([...parameters.get('model.layers.1.self_attn.k_proj.bias')!.data], rows('k'));
  assert.ok(parameters.has('lm_head.weight'));
});

test('phi3: q, k, v and gate, up one below the other', async () => {
  const parameters = parametersIn(await writeFolder(minimal.phi3!));
  const rows = (name: string) => rowsOf(parameters.get(`model.layers.0.${name}.weight`)!);
  assert.equal(rows('self_attn.q_proj'), range(0, 8));
  assert.equal(rows('self_attn.k_proj'), range(8, 12));
  assert.equal(rows('self_attn.v_proj'), range(12, 16));
  assert.equal(rows('mlp.gate_proj'), range(0, 12));
  assert.equal(rows('mlp.up_proj'), range(12, 24));
});

test('qwen3: a norm for each head, and names that are malc’s own', async () => {
  const parameters = parametersIn(await writeFolder(minimal.qwen3!));
  assert.equal(parameters.get('model.layers.1.self_attn.q_norm.weight')!.shape, [4]);
  assert.equal(parameters.get('model.layers.1.self_attn.k_proj.weight')!.shape, [4, 8]);
});

/** The one element that each parameter's tensor has under this index. */
const at = (tensor: { shape: readonly number[]; data: Float32Array }, ...index: readonly number[]) => {
  assert.is(tensor.shape.length, index.length);
  return tensor.data[index.reduce((offset, i, axis) => offset * tensor.shape[axis]! + i, 0)];
};

test('experts: one parameter in a tensor for each, or two in one tensor', async () => {
  const path = await writeFolder(minimal.mixtral!);
  const parameters = parametersIn(path);
  const name = (part: string) => `model.layers.1.mlp.experts.${part}_proj.weight`;
  for (const part of ['gate', 'up']) {
    assert.equal(parameters.get(name(part))!.shape, [3, 12, 8]);
    // Each expert's tensor begins at 0.
    for (const expert of [0, 1, 2]) assert.is(at(parameters.get(name(part))!, expert, 2, 3), 2 * 8 + 3);
  }
  assert.equal(parameters.get(name('down'))!.shape, [3, 8, 12]);
  await rewrite(path, tensors => {
    for (const layer of [0, 1]) {
      const old = `model.layers.${layer}.block_sparse_moe`;
      const fused = `model.layers.${layer}.mlp`;
      for (const each of [...tensors.keys()]) if (each.startsWith(`${old}.experts.`)) tensors.delete(each);
      tensors.set(`${fused}.gate.weight`, tensors.get(`${old}.gate.weight`)!);
      tensors.delete(`${old}.gate.weight`);
      const counting = (shape: readonly number[]) => ({
        shape,
        data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, index) => index),
      });
      tensors.set(`${fused}.experts.gate_up_proj`, counting([3, 24, 8]));
      tensors.set(`${fused}.experts.down_proj`, counting([3, 8, 12]));
    }
  });
  const fused = parametersIn(path);
  assert.is(at(fused.get(name('gate'))!, 1, 2, 3), (1 * 24 + 2) * 8 + 3);
  assert.is(at(fused.get(name('up'))!, 1, 2, 3), (1 * 24 + 12 + 2) * 8 + 3);
  assert.is(at(fused.get(name('down'))!, 2, 3, 4), (2 * 8 + 3) * 12 + 4);
});

test('deepseek_v3: latents with their rope, heads of keys and values, and what modules ahead are made of', async () => {
  const path = await writeFolder(minimal.deepseek_v3!);
  const parameters = parametersIn(path);
  const attention = (part: string) => parameters.get(`model.layers.1.self_attn.${part}.weight`)!;
  assert.equal(rowsOf(attention('kv_a_proj')), range(0, 6));
  assert.equal(rowsOf(attention('k_rope_proj')), range(6, 8));
  // A head has 4 rows of keys, then 3 of values, each of the latent's 6 columns.
  assert.equal(
    [attention('k_b_proj').shape, attention('v_b_proj').shape],
    [
      [8, 6],
      [6, 6],
    ],
  );
  assert.equal(
    [at(attention('k_b_proj'), 5, 1), at(attention('v_b_proj'), 4, 1)],
    [(7 + 1) * 6 + 1, (7 + 4 + 1) * 6 + 1],
  );
  assert.equal([...parameters.get('model.layers.1.mlp.gate.e_score_correction_bias')!.data], [0, 1, 2, 3]);
  await rewrite(path, tensors =>
    tensors.set('model.layers.2.eh_proj.weight', { shape: [1], data: new Float32Array(1) }),
  );
  assert.equal(parametersIn(path), parameters);
});

test('mamba: both halves, the parts of x_proj, and a filter with a dimension of 1', async () => {
  const path = await writeFolder(minimal.mamba!);
  const parameters = parametersIn(path);
  const mixer = (part: string) => parameters.get(`model.layers.0.mixer.${part}`)!;
  assert.equal(rowsOf(mixer('x_proj_in.weight')), range(0, 16));
  assert.equal(rowsOf(mixer('z_proj_in.weight')), range(16, 32));
  assert.equal([at(mixer('dt_in_proj.weight'), 1, 0), at(mixer('b_proj.weight'), 0, 0)], [16, 2 * 16]);
  assert.is(at(mixer('c_proj.weight'), 2, 15), (2 + 3 + 2) * 16 + 15);
  assert.equal(mixer('conv1d.weight').shape, [16, 4]);
});

/** Writes the folder's tensors again, changed. */
async function rewrite(
  path: string,
  change: (tensors: Map<string, { shape: readonly number[]; data: Float32Array }>) => void,
): Promise<string> {
  const file = SafetensorsFile.open(join(path, 'model.safetensors'));
  const tensors = new Map([...file.tensors].map(([name, { shape }]) => [name, { shape, data: file.read(name) }]));
  file.close();
  change(tensors);
  await writeSafetensors(
    join(path, 'model.safetensors'),
    [...tensors].map(([name, tensor]) => ({ name, ...tensor })),
  );
  return path;
}

test('missing, misshaped and unknown tensors are named', async () => {
  const path = await rewrite(await writeFolder(minimal.gpt2!), tensors => {
    tensors.delete('transformer.h.1.ln_1.bias');
    tensors.set('transformer.ln_f.weight', { shape: [4], data: new Float32Array(4) });
    tensors.set('score.weight', { shape: [1], data: new Float32Array(1) });
  });
  const message = userError(() => importFolder(path));
  assert.match(message, /'transformer\.h\.1\.ln_1\.bias' is missing/);
  assert.match(message, /'transformer\.ln_f\.weight' is \[4\] and should be \[8\]/);
  assert.match(message, /'score\.weight' belongs to no part of a GPT2LMHeadModel/);
});

test('older files: no prefix, buffers, a tied head stored twice', async () => {
  const path = await writeFolder(minimal.gpt2!);
  const before = parametersIn(path);
  await rewrite(path, tensors => {
    for (const [name, tensor] of [...tensors]) {
      tensors.delete(name);
      tensors.set(name.replace('transformer.', ''), tensor);
    }
    tensors.set('h.1.attn.bias', { shape: [1, 1, 2, 2], data: new Float32Array(4) });
    tensors.set('lm_head.weight', tensors.get('wte.weight')!);
  });
  assert.equal(parametersIn(path), before);
  await rewrite(path, tensors => tensors.set('lm_head.weight', { shape: [6, 8], data: new Float32Array(48) }));
  assert.match(
    userError(() => importFolder(path)),
    /'lm_head\.weight' differs from 'wte\.weight'/,
  );
});

test('weights in pieces', async () => {
  const path = await writeFolder(minimal.llama!);
  const before = parametersIn(path);
  const file = SafetensorsFile.open(join(path, 'model.safetensors'));
  const tensors = [...file.tensors].map(([name, { shape }]) => ({ name, shape, data: file.read(name) }));
  file.close();
  rmSync(join(path, 'model.safetensors'));
  assert.match(
    userError(() => importFolder(path)),
    /holds neither model\.safetensors nor model\.safetensors\.index/,
  );
  const pieces = { 'a.safetensors': tensors.slice(0, 5), 'b.safetensors': tensors.slice(5) };
  const map: Record<string, string> = {};
  for (const [name, piece] of Object.entries(pieces)) {
    await writeSafetensors(join(path, name), piece);
    for (const tensor of piece) map[tensor.name] = name;
  }
  const index = join(path, 'model.safetensors.index.json');
  writeFileSync(index, JSON.stringify({ metadata: {}, weight_map: map }));
  assert.equal(parametersIn(path), before);
  renameSync(join(path, 'b.safetensors'), join(path, 'c.safetensors'));
  assert.match(
    userError(() => importFolder(path)),
    /there is no .*b\.safetensors/,
  );
  writeFileSync(index, JSON.stringify({ weight_map: { x: '../a.safetensors' } }));
  assert.match(
    userError(() => importFolder(path)),
    /no weight_map of tensors to files of the same folder/,
  );
});

/** Imports a folder into a run and exports that run again. */
async function roundTrip(path: string): Promise<{ run: string; exported: string }> {
  const [run, exported] = [newFolder(), newFolder()];
  const imported = importFolder(path);
  try {
    await saveAsRun(imported, path, run);
  } finally {
    imported.tensors.close();
  }
  await exportRun(findCheckpoint(run), exported);
  assert.equal(withoutName(readModelConfig(join(run, 'config.json'))), withoutName(imported.model));
  return { run, exported };
}

const withoutName = ({ name: _, ...model }: Model) => model;

function requireSameTensors(expected: string, actual: string): void {
  const [a, b] = [expected, actual].map(path => SafetensorsFile.open(join(path, 'model.safetensors'))) as [
    SafetensorsFile,
    SafetensorsFile,
  ];
  assert.equal([...a.tensors.keys()].sort(), [...b.tensors.keys()].sort());
  for (const [name, { shape }] of a.tensors) {
    assert.equal(b.tensors.get(name)!.shape, shape, name);
    assert.ok(Buffer.from(a.read(name).buffer).equals(Buffer.from(b.read(name).buffer)), name);
  }
  a.close();
  b.close();
}

test('imported and exported again, the tensors are the same, and so is the model', async () => {
  for (const config of Object.values(minimal)) {
    const path = await writeFolder(config);
    const { exported } = await roundTrip(path);
    requireSameTensors(path, exported);
    assert.equal(withoutName(importedModel(exported)), withoutName(importedModel(path)));
  }
});

function importedModel(path: string): Model {
  const { model, tensors } = importFolder(path);
  tensors.close();
  return model;
}

const references = ['test/fixtures/reference', '../shared/reference'];
test('so are those that transformers saved', async () => {
  for (const root of references) {
    if (!existsSync(root)) {
      console.log(`no ${root}: its files of transformers are not tested`);
      continue;
    }
    for (const name of readdirSync(root).filter(each => existsSync(join(root, each, 'config.json')))) {
      const { exported } = await roundTrip(join(root, name));
      requireSameTensors(join(root, name), exported);
      assert.equal(withoutName(importedModel(exported)), withoutName(importedModel(join(root, name))));
    }
  }
});

test('an imported model is no run to be resumed, and is not overwritten', async () => {
  const { run, exported } = await roundTrip(await writeFolder(minimal.llama!));
  assert.match(
    userError(() => RunFolder.peek(run, false)),
    /already holds a run/,
  );
  assert.match(
    userError(() => RunFolder.peek(run, true)),
    /holds an imported model, not a run/,
  );
  const again = await exportRun(findCheckpoint(run), exported).catch(error => error);
  assert.match(again.message, /already holds a model\. Choose another --output/);
});

test('a run of a model that no class computes is not exported: every obstacle is named', async () => {
  const { run } = await roundTrip(await writeFolder(minimal.llama!));
  const copy = newFolder();
  cpSync(run, copy, { recursive: true });
  const config = JSON.parse(readFileSync(join(copy, 'config.json'), 'utf8'));
  config.malc.output.softcap = 30;
  writeFileSync(join(copy, 'config.json'), JSON.stringify(config));
  const fault = await exportRun(findCheckpoint(copy), newFolder()).catch(error => error);
  assert.instance(fault, UserError);
  const reasons = (fault.message as string).split('\n').slice(1);
  const named = reasons.flatMap(line => line.slice(line.lastIndexOf(': ') + 2).split(', '));
  assert.equal(named.sort(), [...architectureNames()].sort());
  assert.is(reasons.filter(line => /^ {2}output\.softcap is 30 .*: .*\bllama\b/.test(line)).length, 1);
  assert.is(new Set(reasons.map(line => line.slice(0, line.lastIndexOf(': ')))).size, reasons.length, 'each once');
});

test.run();
