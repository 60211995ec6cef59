// Tests of `compile`, `doctor` and the bundle: the program as it is shipped, run as a user runs it.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ship } from './fixtures/shipped.ts';

const repository = dirname(dirname(fileURLToPath(import.meta.url)));
const { folder, run, remove } = ship();

const model = `attention a { num_heads: 2 }
ffn f { hidden_dim: 24 activation: gelu gate: false }
block b { attention: a ffn: f }
model small { vocab_size: 40 hidden_size: 16 num_layers: 2 max_seq_len: 16 block: b }
`;

const commands = suite('commands');

commands.before(() => writeFileSync(join(folder, 'small.mal'), model));
commands.after(remove);

commands('fmt - lays the standard input out', async () => {
  const piped = (words: readonly string[]) => run(['fmt', ...words], {}, 'model m{}');
  assert.is((await piped(['-'])).stdout, 'model m { }\n');
  const { status, stdout } = await piped(['small.mal', '-', '--check']);
  assert.equal({ status, stdout }, { status: 1, stdout: 'small.mal\nstandard input\n' });
});

commands('malc lists every command in the order of use', async () => {
  const listed = [...(await run([])).stdout.matchAll(/^ {2}malc ([\w-]+)/gm)].map(([, name]) => name);
  const expected = [
    'quickstart',
    'check',
    'fmt',
    'info',
    'explain',
    'compile',
    'train-tokenizer',
    'data',
    'train',
    'sweep',
    'show',
    'generate',
    'import',
    'export',
    'verify',
    'bench',
    'doctor',
    'completion',
  ];
  assert.equal(listed, expected);
});

commands('compile writes the source, the plan and the library', async () => {
  const { status, stdout, stderr } = await run(['compile', 'small.mal', '-o', 'out', '--time']);
  assert.is(status, 0, stderr);
  assert.is(stdout, '');
  assert.match(stderr, /^total +[\d.]+ ms$/m);
  const files = readdirSync(join(folder, 'out'));
  for (const name of ['model.c', 'plan.json', 'model.so'])
    assert.ok(files.includes(name), `${name} is not in ${files}`);
  assert.not.ok(files.some(name => name.includes('tmp')));
  assert.type(JSON.parse(readFileSync(join(folder, 'out/plan.json'), 'utf8')), 'object');
});

commands('compile --dump prints stages, the unknown one refused by name', async () => {
  const all = await run(['compile', 'small.mal', '-o', 'dumped', '--dump', 'all']);
  assert.is(all.status, 0, all.stderr);
  const names = [...all.stdout.matchAll(/^== (.+)$/gm)].map(([, name]) => name!);
  assert.ok(names.length >= 3, names.join());
  assert.match((await run(['compile', 'small.mal', '-o', 'dumped', '--dump', names[0]!])).stdout, /\S/);
  const unknown = await run(['compile', 'small.mal', '-o', 'none', '--dump', 'nonsense']);
  assert.is(unknown.status, 1);
  for (const name of names) assert.match(unknown.stderr, name);
  assert.not.ok(existsSync(join(folder, 'none')));
});

commands('compile refuses what is not there yet, and writes nothing', async () => {
  const metal = await run(['compile', 'small.mal', '-o', 'none', '--target', 'metal']);
  assert.is(metal.status, 1);
  assert.match(metal.stderr, 'error: the target metal is planned and not there yet; use --target cpu or cuda');
  const cpu = await run(['compile', 'small.mal', '-o', 'none', '--arch', 'sm_80']);
  assert.is(cpu.status, 1);
  assert.match(cpu.stderr, 'error: --arch names GPUs, and is for --target cuda; leave it out with --target cpu');
  const { status, stderr } = await run(['compile', 'no-such.mal', '-o', 'none']);
  assert.is(status, 1);
  assert.match(stderr, 'no-such.mal');
  assert.not.ok(existsSync(join(folder, 'none')));
});

commands('a model trained, exported and imported again writes the same text', async () => {
  const done = async (line: string) => {
    const { status, stdout, stderr } = await run(line.split(' '));
    assert.is(status, 0, stderr);
    return stdout;
  };
  writeFileSync(join(folder, 'text.txt'), 'the cat sat on the mat, and the dog sat on the cat\n'.repeat(40));
  writeFileSync(
    join(folder, 'llama.mal'),
    `model small { vocab_size: 270 hidden_size: 16 num_layers: 1 max_seq_len: 16
      block { attention { num_heads: 2 } ffn { hidden_dim: 24 moe { experts: 3 top_k: 2 } } } }`,
  );
  await done('train -m llama.mal -d text.txt -o run -b 2 --seq-len 8 --steps 4');
  await done('export run -o small');
  await done('import small -o imported');
  const written = await Promise.all(
    ['run', 'imported'].map(checkpoint => done(`generate -c ${checkpoint} -p the -m 8 --seed 5`)),
  );
  assert.match(written[0]!, /^the/);
  assert.is(written[1], written[0]);

  // Several texts are what each is alone.
  const several = 'generate -c run -m 8 --seed 5';
  const cat = await done('generate -c run -p cat -m 8 --seed 6');
  const both = await done(`${several} -p the -p cat -n 2 -b 3`);
  const texts = both.split('---\n');
  assert.is(texts.length, 4);
  assert.equal([texts[0], texts[3]], [written[0], cat]);
  writeFileSync(join(folder, 'prompts.txt'), 'the\ncat\n');
  writeFileSync(join(folder, 'prompts.jsonl'), '{"text": "the"}\n{"text": "cat", "more": 1}\n');
  const fromLines = await done(`${several} -n 2 --json --prompts-file prompts.txt`);
  assert.is(await done(`${several} -n 2 --json --prompts-file prompts.jsonl -b 1`), fromLines);
  const lines = fromLines.trimEnd().split('\n');
  const records = lines.map(line => JSON.parse(line));
  assert.equal(Object.keys(records[0]), ['prompt', 'sample', 'seed', 'text', 'tokens', 'reason']);
  assert.equal(
    records.map(({ prompt, sample, seed, text }) => [sample, seed, `${prompt}${text}\n`]),
    texts.map((text, n) => [n % 2, 5 + (n % 2), text]),
  );
  for (const [words, status, says] of [
    ['-p the --prompts-file prompts.txt', 2, /give --prompt or --prompts-file, not both/],
    ['-p the -p zqxzqxzqxzqxzqxzqxzqx', 1, /prompt 2 has \d+ tokens; the model's context of 16/],
    ['--prompts-file wrong.jsonl', 1, /wrong\.jsonl, line 2: there is no "text"; each line/],
  ] as const) {
    writeFileSync(join(folder, 'wrong.jsonl'), '{"text": "the"}\n{"prompt": "the"}\n');
    const refused = await run(`${several} ${words}`.split(' '));
    assert.is(refused.status, status);
    assert.match(refused.stderr, says);
  }
});

commands('doctor finds what this machine has', async () => {
  const { status, stdout } = await run(['doctor', '--json']);
  const report = JSON.parse(stdout);
  const names = report.findings.map(({ name }: { name: string }) => name);
  const own = ['Node', 'native calls', 'C compiler', 'processor', 'instructions', 'memory', 'disk', 'disk of cache'];
  assert.equal(names.slice(0, own.length), own);
  if (process.platform === 'linux') own.push('shared memory');
  own.push('cache', 'hub token');
  assert.equal(names.slice(0, own.length), own);
  assert.match(names.slice(own.length).join(), /^GPU.*,nvcc,cuBLASLt,compute-sanitizer$/);
  assert.is(report.ready, true, stdout);
  assert.is(status, 0);
  assert.match((await run(['doctor'])).stdout, `ok  Node               ${process.version}`);
});

commands('doctor says where the token of the hub is from, and never what it is', async () => {
  const { stdout } = await run(['doctor'], { HF_TOKEN: 'hf_secret' });
  assert.match(stdout, /^ok {2}hub token +from HF_TOKEN$/m);
  assert.not.match(stdout, /hf_secret/);
});

commands('doctor names what is missing and how to mend it, and leaves with 3', async () => {
  const noCompiler = await run(['doctor'], { CC: 'no-such-compiler' });
  assert.is(noCompiler.status, 3);
  assert.match(noCompiler.stdout, /X {3}C compiler +none\n[\s\S]*no-such-compiler[\s\S]*install/);
  assert.is(noCompiler.stderr, 'error: malc cannot work yet: see C compiler\n');
  const noCache = await run(['doctor'], { MALC_CACHE: join(folder, 'small.mal', 'cache') });
  assert.is(noCache.status, 3);
  assert.match(noCache.stdout, /X {3}cache .* cannot be written\n +set MALC_CACHE/);
});

commands('the model that README shows is right', async () => {
  const shown = /```mal\n([\s\S]+?)```/.exec(readFileSync(join(repository, 'README.md'), 'utf8'))![1]!;
  writeFileSync(join(folder, 'shown.mal'), shown);
  const { status, stdout, stderr } = await run(['check', 'shown.mal']);
  assert.is(status, 0, stderr);
  assert.match(stdout, '1,053,824 parameters');
});

commands.run();
