// The commands of hermes-llm's README with malc in its place, shortened: https://github.com/SpaceFrontiers/hermes.
import { execFileSync } from 'node:child_process';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ship } from './fixtures/shipped.ts';

const test = suite('commands of hermes-llm');
const { folder, program, run, remove } = ship();
test.after(remove);

test.before(() => {
  const lines = Array.from({ length: 60 }, (_, n) => `the cat sat on ${n} mats, and ${7 * n} dogs ran home.`);
  writeFileSync(join(folder, 'corpus.txt'), lines.join('\n'));
  writeFileSync(join(folder, 'corpus.jsonl'), lines.map(text => `${JSON.stringify({ text })}\n`).join(''));
});

/** What a command prints, which must go well. */
async function done(line: string): Promise<string> {
  const { status, stdout, stderr } = await run(line.split(/\s+/));
  assert.is(status, 0, `${line}\n${stderr}`);
  return stdout;
}

/** What a command says that is refused. */
async function refused(line: string): Promise<string> {
  const { status, stderr } = await run(line.split(/\s+/));
  assert.is(status, 2, `${line}\n${stderr}`);
  return stderr;
}

test('train-tokenizer', async () => {
  await done('train-tokenizer --input corpus.txt --output tokenizer.json --vocab-size 280');
});

test('train, and generate from weights, config and tokenizer', async () => {
  await done(
    `train --data corpus.txt --tokenizer tokenizer.json --model nano --output checkpoints
     --lr 3e-4 --batch-size 2 --grad-accum 2 --epochs 1 --seq-len 32`,
  );
  const sampling = '--prompt Once --max-tokens 10 --temperature 0.8';
  const files = '--config checkpoints/config.json --tokenizer tokenizer.json';
  const text = await done(`generate --checkpoint checkpoints/model.safetensors ${files} ${sampling}`);
  assert.match(text, /^Once/);
  assert.is(await done(`generate --checkpoint checkpoints ${sampling}`), text);
  copyFileSync(join(folder, 'checkpoints/model.safetensors'), join(folder, 'pretrained.safetensors'));
  assert.is(await done(`generate --checkpoint pretrained.safetensors ${files} ${sampling}`), text);

  const missing = await run(`generate --checkpoint checkpoints/checkpoint_epoch_10.safetensors ${files}`.split(' '));
  assert.match(missing.stderr, /checkpoint_epoch_10\.safetensors does not exist\. checkpoints is a run: give it/);
  await done('train-tokenizer --input corpus.txt --output other.json --vocab-size 290');
  for (const checkpoint of ['checkpoints', 'pretrained.safetensors']) {
    const words = `generate --checkpoint ${checkpoint} --config checkpoints/config.json --tokenizer other.json`;
    assert.match((await run(words.split(' '))).stderr, /^error: other\.json .*--tokenizer/);
  }
});

test('train from a pipe, with lines of JSON', async () => {
  const command = `'${process.execPath}' '${program}' train --tokenizer tokenizer.json --model nano --output piped`;
  const line = `cat corpus.txt | ${command} --steps 2 --batch-size 2 --seq-len 32 --no-self-check`;
  const env = { ...process.env, MALC_CACHE: join(folder, '.cache') };
  const printed = execFileSync('sh', ['-c', line], { cwd: folder, env, encoding: 'utf8' });
  assert.match(printed, /^reading the text from standard input[\s\S]*\n2 steps done/);
  await done(
    `train --data corpus.jsonl --tokenizer tokenizer.json --model nano --output lines --num-gpus 1
     --steps 2 --batch-size 2 --seq-len 32 --no-self-check`,
  );
});

test('fine-tuning with frozen layers', async () => {
  const tune = '--data corpus.jsonl --tokenizer tokenizer.json --freeze-layers 1 --lr 5e-5 --epochs 1';
  const short = '--batch-size 2 --seq-len 32 --no-self-check';
  await done(`train --checkpoint pretrained.safetensors --model nano ${tune} ${short} --output tuned`);
  await done(`train --checkpoint checkpoints/model.safetensors ${tune} ${short} --output tuned-again`);
});

test('info of the models that it lists', async () => {
  for (const name of ['tiny', 'gpt2-small', 'well-known/mistral-7b.mal'])
    assert.match(await done(`info --model ${name}`), /parameters/);
});

test('what malc does not do yet is refused by name, with what to do', async () => {
  const dpo = await refused(
    'dpo --checkpoint pretrained.safetensors --config checkpoints/config.json --data preferences.jsonl --beta 0.1',
  );
  assert.match(dpo, /^error: there is no command dpo yet: .*\bmalc train --checkpoint RUN/);
  const gpus = await refused('train --data corpus.jsonl --tokenizer tokenizer.json --model nano --num-gpus 4');
  assert.match(gpus, /^error: --num-gpus is 4, and malc trains on one GPU so far; .*--grad-accum 4/);
});

test.run();
