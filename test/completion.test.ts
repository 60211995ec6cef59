// What shells offer after TAB: commands, options and their choices, as the scripts say it in the shells themselves.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../runtime/commands/command.ts';
import { completionOf } from '../runtime/commands/completion.ts';
import { commands } from '../runtime/commands/index.ts';

const test = suite('completion');
const completion = completionOf(commands);

async function scriptFor(shell: string): Promise<string> {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => void lines.push(line);
  try {
    await completion.run({ shell });
  } finally {
    console.log = log;
  }
  return lines.join('\n');
}

test('bash completes commands, options and choices, and leaves values to files', async () => {
  const script = await scriptFor('bash');
  const offers = (...words: string[]) => {
    const list = words.map(word => `'${word}'`).join(' ');
    const ask = `${script}\nCOMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _malc; echo "\${COMPREPLY[@]}"`;
    return execFileSync('bash', ['-c', ask], { encoding: 'utf8' }).trim().split(' ');
  };
  assert.equal(offers('malc', 'tr'), ['train-tokenizer', 'train']);
  assert.equal(offers('malc', 'train', '--schedule', ''), ['cosine', 'linear', 'wsd', 'constant']);
  assert.equal(offers('malc', 'train', '--sch'), ['--schedule']);
  assert.equal(offers('malc', 'train', '-d', ''), ['']);
  for (const { name, options } of commands)
    for (const option of Object.keys(options)) assert.ok(offers('malc', name, `--${option}`).includes(`--${option}`));
});

for (const shell of ['zsh', 'fish'])
  test(`${shell} takes its script`, async () => {
    if (spawnSync(shell, ['--version']).error) {
      console.log(`  no ${shell}: its script is not tried`);
      return;
    }
    const file = join(mkdtempSync(join(tmpdir(), 'malc-completion-')), 'script');
    try {
      writeFileSync(file, await scriptFor(shell));
      const { status, stderr } = spawnSync(shell, ['-n', file], { encoding: 'utf8' });
      assert.equal([status, stderr], [0, '']);
    } finally {
      rmSync(dirname(file), { recursive: true });
    }
  });

test('another shell is refused by name', async () => {
  const error = await completion.run({ shell: 'tcsh' }).catch(fault => fault);
  assert.ok(error instanceof UsageError && /knows bash, zsh, fish, not 'tcsh'/.test(error.message));
});

test.run();
