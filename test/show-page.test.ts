// The page of runs: what it reads of a run folder, also while that grows, what its server answers; and the page itself in
// a browser, where there is one.
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readModel } from '../compiler/check/read-model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { pageOf } from '../runtime/show/page/page.ts';
import { readProgress, readRun, withDistinctNames } from '../runtime/show/page/run-record.ts';
import { servePage } from '../runtime/show/page/serve.ts';
import { RunFolder } from '../runtime/train/run-folder.ts';

const test = suite('show page');
const root = mkdtempSync(join(tmpdir(), 'malc-show-'));
test.after(() => rmSync(root, { recursive: true }));

const line = (step: number, more = {}) => {
  const record = { step, loss: 9 / step, gradient_norm: 1, learning_rate: 1e-3, tokens: 512 * step, seconds: 0.5 };
  return `${JSON.stringify({ ...record, memory_bytes: 1e8, ...more })}\n`;
};

/** A run of three steps of the model nano, in a folder of its own. */
async function makeRun(name: string, options: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const path = join(root, name);
  const { model, text } = readModel('nano');
  const run = await RunFolder.open(path, { resume: false });
  run.writeModel(`${text}# </script> is no end of anything\n`, model, null);
  run.writeOptions({ 'batch-size': 2, 'seq-len': 32, steps: 3, target: 'cpu', dtype: 'f32', ...options });
  run.metrics.append([1, 2].map(step => line(step)).join(''));
  run.metrics.append(line(3, { validation_loss: 3.5, validation_bits_per_byte: 1.25, averaged_validation_loss: 3.25 }));
  run.samples.append('## step 2\n\nfirst\n\n## step 3\n\nsecond <b>text</b>\n\n');
  run.close();
  return path;
}

test('a run is read column by column, with its samples, its model and its kernels', async () => {
  const path = await makeRun('whole');
  const { columns, next, samples, training } = readProgress(path, 0);
  assert.equal(columns.step, [1, 2, 3]);
  assert.equal(columns.validation_loss, [null, null, 3.5]);
  assert.equal(columns.averaged_validation_loss, [null, null, 3.25]);
  assert.equal(samples, [
    { step: 2, text: 'first' },
    { step: 3, text: 'second <b>text</b>' },
  ]);
  assert.not(training);
  assert.equal(readProgress(path, next).columns.step, []);
  const { model, kernels } = readRun(path);
  assert.equal([model.name, model.blocks], ['nano', [{ name: 'block', layers: 2 }]]);
  const names = kernels.map(({ name }) => name);
  assert.ok(names.includes('block_query_key_value') && names.includes('update'), names.join());
  assert.not(
    names.some(name => name.includes('cache')),
    'none of generation',
  );
  assert.is(kernels.find(({ name }) => name === 'block_query_key_value')!.launches, 2);
});

test('what is being written waits; what was taken back makes all anew', async () => {
  const path = await makeRun('growing');
  const metrics = join(path, 'metrics.jsonl');
  const before = readProgress(path, 0);
  const fourth = line(4);
  appendFileSync(metrics, fourth.slice(0, 20));
  assert.equal(readProgress(path, before.next).columns.step, []);
  appendFileSync(metrics, fourth.slice(20));
  const after = readProgress(path, before.next);
  assert.equal([after.columns.step, after.anew], [[4], false]);
  truncateSync(metrics, line(1).length);
  const again = readProgress(path, after.next);
  assert.equal([again.columns.step, again.anew], [[1], true]);
  // Beyond the place again, where another line is now.
  appendFileSync(metrics, [2, 3, 4, 5].map(step => line(step, { auxiliary_loss: 0.125 })).join(''));
  const beyond = readProgress(path, after.next);
  assert.equal([beyond.columns.step, beyond.anew], [[1, 2, 3, 4, 5], true]);
});

test('samples are sent when there are new ones, or when what was known is void', async () => {
  const path = await makeRun('sampled');
  const { next, samples, sampleBytes } = readProgress(path, 0);
  assert.is(samples!.length, 2);
  assert.is(readProgress(path, next, sampleBytes).samples, null);
  appendFileSync(join(path, 'samples.md'), '## step 4\n\nthird\n\n');
  assert.is(readProgress(path, next, sampleBytes).samples!.length, 3);
  truncateSync(join(path, 'metrics.jsonl'), line(1).length);
  const taken = readProgress(path, next, readProgress(path, next).sampleBytes);
  assert.equal([taken.anew, taken.samples!.length], [true, 3]);
});

test('runs whose folders are called alike are told apart by as much of their paths as it takes', async () => {
  const paths: string[] = [];
  for (const name of ['one/seed', 'two/seed', 'other']) paths.push(await makeRun(name));
  const names = withDistinctNames(paths.map(readRun)).map(({ name }) => name);
  assert.equal(names, ['one/seed', 'two/seed', 'other']);
});

test('a folder without a run is refused by name', () => {
  assert.throws(
    () => readRun(root),
    (error: Error) => error instanceof UserError && error.message.startsWith(`${root} holds no run`),
  );
});

test('the server gives the page, what came since, and nothing else', async () => {
  const record = readRun(await makeRun('served'));
  const source = { runs: () => [record], sweep: () => null };
  const { url, server } = await servePage(source, 0);
  try {
    const page = await (await fetch(url)).text();
    assert.match(page, '<title>served · malc</title>');
    const { columns, next } = readProgress(record.path, 0);
    const asked = async (from: number) =>
      (await (await fetch(`${url}progress?run=0&from=${from}`)).json()) as ReturnType<typeof readProgress>;
    assert.equal((await asked(next)).columns.step, []);
    assert.equal((await asked(0)).columns, columns);
    for (const wrong of ['progress?run=1&from=0', 'progress?run=0&from=-1', 'progress', 'metrics.jsonl', '/', '/[x'])
      assert.is((await fetch(url + wrong)).status, 404, wrong);
    const statusFor = (host: string) =>
      new Promise(resolve => get(url, { headers: { host } }, ({ statusCode }) => resolve(statusCode)));
    assert.is(await statusFor('localhost:1234'), 200, 'through a forwarded port');
    assert.is(await statusFor('elsewhere.example'), 403, 'a name of somebody else that leads here');
    const taken = await servePage(source, Number(new URL(url).port)).catch((error: Error) => error);
    assert.ok(taken instanceof UserError && /is taken; choose another --port/.test(taken.message));
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('a browser shows every run, its curves and its tables, from a file alone', async () => {
  const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
  if (chromium === undefined) {
    console.log('  no Chromium: the page is not opened in a browser');
    return;
  }
  const runs = [];
  // One whose patience came to its end, and one whose has not.
  const patient = await makeRun('patient', { steps: 9, patience: 1 });
  appendFileSync(join(patient, 'metrics.jsonl'), line(4, { validation_loss: 3.75 }));
  const stopped = await makeRun('stopped-one', { steps: 9, patience: 2 });
  for (const path of [await makeRun('left'), await makeRun('right'), patient, stopped]) {
    runs.push({ record: readRun(path), progress: readProgress(path, 0) });
  }
  const file = join(root, 'page.html');
  writeFileSync(file, pageOf(runs, false));
  const quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
  const own = [`--user-data-dir=${join(root, 'browser')}`, '--virtual-time-budget=2000', '--dump-dom'];
  const words = [...quiet, '--disable-component-update', '--disable-sync', ...own, `file://${file}`];
  const dom = execFileSync(chromium, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const text = dom.replace(/<(script|style)\b[\s\S]*?<\/\1>/g, '');
  for (const name of ['left', 'right']) assert.ok(text.split(name).length > 3, `${name} stands in table and legends`);
  assert.match(text, '3 / 3');
  const stateOf = (name: string) => new RegExp(`${name}</td>.*?<td class="note">([^<]*)</td>`).exec(text)?.[1];
  assert.equal(['left', 'patient', 'stopped-one'].map(stateOf), ['done', 'ended early', 'stopped']);
  assert.match(text, 'second &lt;b&gt;text&lt;/b&gt;');
  assert.match(text, 'block_query_key_value');
  assert.match(text, '# &lt;/script&gt; is no end of anything');
  assert.is(text.match(/<canvas/g)?.length, 7, 'a chart for each number that the runs have');
});

test.run();
