// Runs that begin with another's weights, and leave some of them as they are: from a run, from what transformers reads, from
// a file; stopped and resumed to the same bits; and what is refused.
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { SafetensorsFile } from '../runtime/hub/safetensors.ts';
import { frozenParameters } from '../runtime/train/frozen.ts';
import { ship } from './fixtures/shipped.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('fine-tuning');
const { folder, run, remove } = ship();
test.after(remove);

const text = `model small {
  vocab_size: 270  hidden_size: 16  num_layers: 2  max_seq_len: 16
  block { attention { num_heads: 2 }  ffn { hidden_dim: 24 } }
}
`;
writeFileSync(join(folder, 'small.mal'), text);
writeFileSync(join(folder, 'text.txt'), 'the cat sat on the mat, and the dog sat on the cat\n'.repeat(40));
const { model } = check(parse(text, 'small.mal').syntax);
const frozen = frozenParameters(model!, { 'freeze-layers': 1, freeze: ['mlp'] });

async function done(line: string): Promise<string> {
  const { status, stdout, stderr } = await run(line.split(' '));
  assert.is(status, 0, stderr);
  return stdout;
}

async function refused(line: string): Promise<string> {
  const { status, stderr } = await run(line.split(' '));
  assert.ok(status === 1 || status === 2, stderr);
  return stderr;
}

/** The bytes of every tensor of a file. */
function tensorsOf(path: string): Map<string, string> {
  const file = SafetensorsFile.open(join(folder, path));
  const bytes = [...file.tensors.keys()].map(
    name => [name, Buffer.from(file.read(name).buffer).toString('base64')] as const,
  );
  file.close();
  return new Map(bytes);
}

const given = '-d text.txt --seq-len 8 --no-self-check';

test.before(async () => {
  await done(`train -m small.mal ${given} -b 4 --steps 4 -o run`);
});

test('what is frozen stays as it was, has no moments, and a resumed run ends in the same bits', async () => {
  const options = `${given} -b auto --tokens-per-step 64 --steps 3 --save-every 1 --keep 3 --freeze-layers 1 --freeze mlp`;
  const said = await done(`train --checkpoint run ${options} -o tuned`);
  assert.match(said, /^ {2}weights +\S+run$/m);
  assert.match(said, new RegExp(`^ {2}frozen +[\\d,]+ parameters, of ${frozen.length} tensors$`, 'm'));
  assert.match(said, /^ {2}batch-size +8 +auto$/m);
  const [before, after] = ['run/model.safetensors', 'tuned/step-3/model.safetensors'].map(tensorsOf);
  const stayed = [...after!].filter(([name, bytes]) => before!.get(name) === bytes).map(([name]) => name);
  assert.equal(stayed.sort(), [...frozen].sort());
  const trained = [...after!.keys()].filter(name => !frozen.includes(name));
  const moments = [...tensorsOf('tuned/step-3/optimizer.safetensors').keys()];
  assert.equal(moments.sort(), trained.flatMap(name => [`${name}.first_moment`, `${name}.second_moment`]).sort());

  rmSync(join(folder, 'tuned/step-3'), { recursive: true });
  assert.match(await refused('train --resume -o tuned --freeze-layers 0'), /--freeze-layers is 0; the run has 1/);
  assert.match(await refused('train --resume -o tuned --checkpoint run'), /goes on from step 2; leave it out/);
  await done('train --resume -o tuned --no-self-check');
  assert.equal(tensorsOf('tuned/step-3/model.safetensors'), after);
  // Its own options do it again.
  await done('train --config tuned/run.json -o again');
  assert.equal(tensorsOf('again/model.safetensors'), after);
});

test('a run begins with the same weights, wherever it has them from', async () => {
  await done('export run -o exported');
  const from = [
    ['a', '--checkpoint run/step-4'],
    ['b', '--checkpoint run/model.safetensors -m small.mal'],
    ['c', '--checkpoint exported -m small.mal -t run/tokenizer.json'],
  ] as const;
  const losses: number[] = [];
  for (const [output, words] of from) {
    await done(`train ${words} ${given} -b 4 --steps 1 -o ${output}`);
    losses.push(JSON.parse(readFileSync(join(folder, output, 'metrics.jsonl'), 'utf8').split('\n')[0]!).loss);
  }
  assert.equal(losses, [losses[0], losses[0], losses[0]]);
  const first = JSON.parse(readFileSync(join(folder, 'run/metrics.jsonl'), 'utf8').split('\n')[0]!).loss;
  assert.ok(losses[0]! < first, 'what was trained knows more');
});

test('weights that do not fit are refused before anything is written', async () => {
  const train = `${given} -b 4 --steps 1 -o none`;
  assert.match(await refused(`train --checkpoint nowhere ${train}`), /--checkpoint nowhere does not exist/);
  assert.match(
    await refused(`train --checkpoint hf:us/model ${train}`),
    /fetch one with malc import hf:us\/model -o DIR/,
  );
  copyFileSync(join(folder, 'run/model.safetensors'), join(folder, 'alone.safetensors'));
  assert.match(await refused(`train --checkpoint alone.safetensors ${train}`), /--model is needed/);
  writeFileSync(join(folder, 'other.mal'), text.replace('num_heads: 2', 'num_heads: 4'));
  assert.match(
    await refused(`train --checkpoint run -m other.mal ${train}`),
    /blocks\.0\.attention\.num_heads is 4, and 2 there/,
  );
  assert.match(await refused('train --resume -o none'), /none holds no run/);
});

test('what is to be frozen must be there, and something must be left', () => {
  const freeze = (freeze: readonly string[], layers = 0) =>
    frozenParameters(model!, { 'freeze-layers': layers, freeze });
  const says = (message: RegExp, freezing: () => unknown) => assert.match(userError(freezing), message);
  assert.equal(freeze([]), []);
  assert.equal(freeze([], 1).slice(0, 2), ['model.embed_tokens.weight', 'model.layers.0.input_layernorm.weight']);
  assert.equal(freeze(['^lm_head', 'embed']), ['model.embed_tokens.weight', 'lm_head.weight']);
  says(
    /--freeze q_prj finds no parameter; did you mean q_proj, as in model\.layers\.0\.self_attn\.q_proj\.weight\?/,
    () => freeze(['norm', 'q_prj']),
  );
  says(/--freeze 17 finds no parameter; they are called model\.embed_tokens\.weight, /, () => freeze(['17']));
  says(/--freeze \( is no regular expression/, () => freeze(['(']));
  says(/--freeze-layers is 3; small has 2 layers/, () => freeze([], 3));
  says(/nothing is left to train: --freeze-layers 2 and --freeze norm and --freeze head freezes all/, () =>
    freeze(['norm', 'head'], 2),
  );
  // What balances experts moves by their loads, not by what is learned.
  const moe = 'moe { experts: 2  top_k: 1  balance: aux_free { rate: 0.1 } }';
  const sparse = check(parse(text.replace('hidden_dim: 24', `hidden_dim: 24  ${moe}`), 'sparse.mal').syntax).model!;
  says(/nothing is left to train: --freeze weight\$ freezes all/, () =>
    frozenParameters(sparse, { 'freeze-layers': 0, freeze: ['weight$'] }),
  );
});

test.run();
