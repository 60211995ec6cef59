// malc sweep: what a file may say and how faults are told; equal parameters; runs that stop, go on, fail and no longer fit;
// the table and the page.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { countParameters } from '../compiler/check/count.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { sweep as command, rules } from '../runtime/commands/sweep.ts';
import { trainer } from '../runtime/commands/sweep-trainer.ts';
import { ModelFile } from '../runtime/sweep/model-text.ts';
import { readSweep } from '../runtime/sweep/read-sweep.ts';
import { readPlan, resultsOf, runPath } from '../runtime/sweep/results.ts';
import { nearestCount } from '../runtime/sweep/solve.ts';
import { runSweep } from '../runtime/sweep/sweep.ts';
import { resultTable } from '../runtime/sweep/table.ts';
import type { Trainer } from '../runtime/sweep/trainer.ts';
import { startHub } from './fixtures/hub-server.ts';

fc.configureGlobal({ includeErrorInReport: true });

const test = suite('sweep');
const root = mkdtempSync(join(tmpdir(), 'malc-sweep-test-'));
const inRoot = (name: string) => join(root, name);
const write = (name: string, text: string) => {
  writeFileSync(inRoot(name), text);
  return inRoot(name);
};
test.after(() => rmSync(root, { recursive: true }));

const model = `let width = 16
let heads = 2
let inner = 8 * heads
attention a { num_heads: heads }
ffn f { hidden_dim: inner }
block b { attention: a  ffn: f }
model small { vocab_size: 280  max_seq_len: 16  hidden_size: width  num_layers: 1  block: b }
`;
write('small.mal', model);
write('text.txt', 'The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n'.repeat(80));

const head = 'model: "small.mal"\ndata: "text.txt"\n';
const short = 'train { steps: 6  batch-size: 2  seq-len: 8  threads: 1  self-check: false }\n';

/** The message of the error that a file gives, in one line. */
function faultOf(text: string): string {
  const path = write('wrong.sweep', text);
  try {
    readSweep(path, rules);
  } catch (error) {
    assert.instance(error, UserError);
    return (error as Error).message.replaceAll(path, 'FILE').replaceAll(/\s+/g, ' ');
  }
  return 'none';
}

test('every fault of a file is told with its place and its remedy', () => {
  const faults: readonly (readonly [text: string, says: RegExp])[] = [
    ['modle: "x.mal"\nvariant a { }', /a sweep has no `modle` with a value --> FILE:1:1 .* did you mean `model`\?/],
    ['trian { steps: 3 }', /a sweep has no `trian` --> FILE:1:1 .* did you mean `train`\?/],
    ['train { stesp: 3 }\nvariant a { }', /malc train has no option `stesp` --> FILE:1:9 .* did you mean `steps`\?/],
    ['train { steps: 0 }\nvariant a { }', /`steps` is `0`; a whole number of at least 1 is needed --> FILE:1:16/],
    ['train { schedule: cosin }\nvariant a { }', /`schedule` is one of cosine, .*, not `cosin`/],
    ['train { resume: true }\nvariant a { }', /a sweep sets `resume` itself .* goes on by itself/],
    ['train { seed: 3 }\nvariant a { }', /a sweep sets `seed` itself .* `seeds: \[1, 2, 3\]`/],
    ['train { lr: [1e-3, 2e-3] }\nvariant a { }', /`lr` takes one value .* belongs into a `grid`/],
    ['steps: 3\nvariant a { }', /a sweep has no `steps` with a value .* belong into `train \{ \.\.\. \}`/],
    ['variant: a', /a sweep has no `variant` with a value .* write `variant NAME \{ \.\.\. \}`/],
    ['variant a { }\nvariant a { lr: 1 }', /there are two variants `a` --> FILE:2:9/],
    ['variant a { lr: 1 lr: 2 }', /`lr` is said twice --> FILE:1:19/],
    ['variant a { width: wide }', /`width` is no option of malc train, and a constant is a number --> FILE:1:20/],
    ['variant a { lr: 1 }\ngrid { lr: [1, 2] }', /the variant `a` and the grid both say `lr`/],
    ['model: "x.mal"', /FILE compares nothing .* add `variant NAME \{ \.\.\. \}`/],
    ['equal: speed\nvariant a { }', /`speed` cannot be held equal .* parameters, flops or tokens can/],
    ['equal: parameters\nvariant a { }', /equal parameters need a constant .* `equal: parameters \{ by: width \}`/],
    ['equal: parameters { by: lr }\nvariant a { }', /`lr` is an option of malc train .* name a `let`/],
    [
      'equal: parameters { by: w  multple: 8 }\nvariant a { }',
      /has no property `multple` .* did you mean `multiple`\?/,
    ],
    ['equal: flops\nvariant a { steps: 3 }', /`steps` follows from `equal: flops` --> FILE:2:13/],
    ['seeds: [1, 1]\nvariant a { }', /a seed is named twice/],
    ['seeds: 3\nvariant a { }', /seeds are a list .* `seeds: \[1, 2, 3\]`/],
    ['data: storys\nvariant a { }', /`storys` is no text in quotes .* did you mean `stories`\?/],
    ['data: "a.txt" { b: 1 }\nvariant a { }', /`data` has a value and no properties/],
    ['train { steps: 1  tokens: 2 }\nvariant a { }', /`steps` and `tokens` say the same in two ways/],
    ['train { batch-size: auto }\nvariant a { }', /`batch-size` is `auto`; a whole number of at least 1/],
    ['grid { lr: [1e-3, 1e-3] }', /two variants are called `lr=1e-3`/],
    ['seeds: [1.5]\nvariant a { }', /`seed` is `1.5`; a whole number/],
    ['grid { lr: [1, 2 }', /`\}` stands where `\]` belongs --> FILE:1:18/],
    ['variant a {', /this `\{` is never closed --> FILE:1:11/],
    ['model:', /the file ends where a number, a word or a text in quotes belongs --> FILE:1:7/],
    [
      'grid { lr: [1e-1, 1e-2, 1e-3, 1e-4] batch-size: [1,2,3,4,5,6,7,8] beta1: [0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8] beta2: [0.1,0.2,0.3,0.4] }',
      /asks for 1024 runs; at most 1000/,
    ],
  ];
  for (const [text, says] of faults) {
    const told = faultOf(text);
    assert.ok(says.test(told), `${text}\n${told}`);
  }
  const several = faultOf('train { stesp: 3  lr: 0 }\nvariant a { lr: no }');
  assert.is(several.match(/error:/g)?.length, 3, several);
});

test('listed variants stand at every point of the grid, and their own options before those of all', () => {
  const path = write(
    'product.sweep',
    `${head}train { steps: 9  lr: 1e-2 }\nvariant a { }\nvariant b { tokens: 64  heads: 4 }\ngrid { lr: [1e-3, 2e-3]  width: [16, 32] }`,
  );
  const { variants, seeds, name, data } = readSweep(path, rules);
  const suffixes = ['lr=1e-3,width=16', 'lr=1e-3,width=32', 'lr=2e-3,width=16', 'lr=2e-3,width=32'];
  assert.equal(
    variants.map(variant => variant.name),
    ['a', 'b'].flatMap(label => suffixes.map(suffix => `${label},${suffix}`)),
  );
  assert.equal(variants[7]!.options, { model: inRoot('small.mal'), tokens: 64, lr: 2e-3 });
  assert.equal(variants[7]!.constants, { heads: '4', width: '32' });
  assert.equal([seeds, name, data], [[1337], 'product', [inRoot('text.txt')]]);
});

test('the nearest count is found, also where some numbers give no model', () => {
  const cases = fc.record({
    slope: fc.integer({ min: 1, max: 5000 }),
    base: fc.integer({ min: 0, max: 1_000_000 }),
    power: fc.constantFrom(1, 2),
    target: fc.integer({ min: 0, max: 3_000_000 }),
    multiple: fc.integer({ min: 1, max: 16 }),
    divisor: fc.integer({ min: 1, max: 12 }),
  });
  fc.assert(
    fc.property(cases, ({ slope, base, power, target, multiple, divisor }) => {
      const countOf = (value: number) => (value % divisor === 0 ? base + slope * value ** power : null);
      const found = nearestCount(countOf, target, multiple)!;
      assert.is(found.value % multiple, 0);
      assert.is(countOf(found.value), found.count);
      // The neighbours among the valid numbers are no nearer.
      for (const side of [-1, 1]) {
        let other = found.value + side * multiple;
        while (other > 0 && countOf(other) === null) other += side * multiple;
        if (other > 0) assert.ok(Math.abs(countOf(other)! - target) >= Math.abs(found.count - target), `${other}`);
      }
    }),
    { numRuns: 300, seed: 7 },
  );
  assert.is(
    nearestCount(() => null, 10),
    null,
  );
});

test('a constant is found so that a model has as many parameters as another', () => {
  const file = new ModelFile(inRoot('small.mal'), undefined);
  const count = (constants: Readonly<Record<string, string>>) => countParameters(file.with(constants).model).total;
  const constants = fc.record({
    heads: fc.constantFrom(1, 2, 4),
    width: fc.constantFrom(16, 24, 32),
    inner: fc.integer({ min: 64, max: 512 }),
  });
  fc.assert(
    fc.property(constants, ({ heads, width, inner }) => {
      const target = count({ heads: '2', width: '16', inner: String(16 * inner) });
      const own = { heads: String(heads), width: String(width) };
      const countOf = (value: number) => count({ ...own, inner: String(value) });
      const { value, count: reached } = nearestCount(countOf, target)!;
      const step = countOf(value + 1) - reached;
      assert.ok(value === 1 || 2 * Math.abs(reached - target) <= step, `${reached} for ${target}, in steps of ${step}`);
    }),
    { numRuns: 8, seed: 3 },
  );
});

/** A trainer that measures nothing, and tells each step. */
const quickly = (onStep: (step: number) => void = () => {}): Trainer => ({
  ...trainer,
  measure: async () => ({ bytes: 1000, secondsPerStep: 0.01 }),
  train: (options, { step, note }) =>
    trainer.train(options, {
      note,
      step(record) {
        step(record);
        onStep(record.step);
      },
    }),
});

interface Ran {
  readonly ending: string;
  readonly output: string;
}

async function runFile(path: string, folder: string, uses: Trainer, dryRun = false): Promise<Ran> {
  const written: string[] = [];
  const screen = { write: (text: string) => written.push(text) };
  const options = { sweep: readSweep(path, rules), folder, data: null, dryRun, trainer: uses, screen };
  const ending = await runSweep(options);
  return { ending, output: written.join('') };
}

const refusal = (path: string, folder: string): Promise<string> =>
  runFile(path, folder, quickly()).then(
    () => 'none',
    (error: Error) => (error instanceof UserError ? error.message : `internal: ${error.stack}`),
  );

const variants = 'variant narrow { }\nvariant wide { width: 32 }\nvariant wild { lr: 1e30  grad-clip: 0 }\n';
const whole = `${head}seeds: [1, 2]\n${short}${variants}`;

test('a sweep stops where it is asked to, goes on to the same bits, and tells of what failed', async () => {
  const path = write('whole.sweep', whole);
  const folder = inRoot('runs/whole');
  let steps = 0;
  // In the second run, after its third step.
  const stopping = quickly(() => ++steps === 9 && process.emit('SIGINT'));
  const first = await runFile(path, folder, stopping);
  assert.is(first.ending, 'interrupted');
  assert.match(first.output, /1\/6 {2}narrow {2}seed 1 {2}val loss \d/);
  const stopped = readPlan(folder);
  const states = () =>
    resultsOf(folder, stopped).variants.flatMap(({ name, runs }) =>
      runs.map(run => [name, run.seed, run.state].join(' ')),
    );
  assert.ok(states().includes('wide 1 stopped') && states().includes('wide 2 waiting'), states().join());
  const made = readFileSync(join(runPath(folder, 'narrow', 1), 'run.json'), 'utf8');

  const mark = join(runPath(folder, 'wide', 1), '.training-77-5@elsewhere');
  writeFileSync(mark, '');
  assert.match(await refusal(path, folder), /in use by a training on the machine elsewhere .* rm .*wide\/seed-1/);
  rmSync(mark);

  const second = await runFile(path, folder, quickly());
  assert.is(second.ending, 'done');
  assert.not.match(second.output, /narrow {2}seed 1/, 'what is done is not done again');
  assert.is(readFileSync(join(runPath(folder, 'narrow', 1), 'run.json'), 'utf8'), made);
  assert.match(second.output, /wild, seed 1: step \d+: the loss is/);
  assert.match(second.output, /wild .* 0 of 2, 2 failed/);
  const results = JSON.parse(readFileSync(join(folder, 'results.json'), 'utf8'));
  assert.is(results.variants.at(-1).name, 'wild', 'the lowest loss first, none last');
  assert.ok(results.variants[0].loss.mean <= results.variants[1].loss.mean && results.variants[0].loss.deviation > 0);
  const csv = readFileSync(join(folder, 'results.csv'), 'utf8').trim();
  assert.match(csv, /^variant,seed,state,.*\n(narrow|wide),1,done,/);

  // The stopped one is what `malc train` makes of it without a stop.
  const uninterrupted = inRoot('runs/uninterrupted');
  const options = JSON.parse(readFileSync(join(runPath(folder, 'wide', 1), 'run.json'), 'utf8'));
  await trainer.train({ ...options, output: uninterrupted }, { step() {}, note() {} });
  const weights = (run: string) => readFileSync(join(run, 'model.safetensors')).toString('base64');
  assert.is(weights(runPath(folder, 'wide', 1)), weights(uninterrupted));

  const third = await runFile(path, folder, quickly());
  assert.not.match(third.output, /\d\/6/, 'nothing is left to do');
});

test('a changed file says which runs no longer fit; what does not concern them is taken', async () => {
  const folder = inRoot('runs/whole');
  const change = (from: string, to: string) => write('changed.sweep', whole.replace(from, to));
  const models = await refusal(change('width: 32', 'width: 48'), folder);
  assert.match(models, /no longer fit:\n {2}wide: its model: .* is 48; the run has 32/);
  assert.match(models, /rm -r .*runs\/whole\/wide$/);
  const options = await refusal(change('steps: 6', 'steps: 7'), folder);
  assert.match(options, / {2}narrow: steps is 7; the run has 6\n {2}wide: /);
  write('other.txt', 'Another text altogether, about cats and mice and cheese.\n'.repeat(90));
  assert.match(await refusal(change('text.txt', 'other.txt'), folder), /--data: the text is not the one/);
  const before = readdirSync(join(folder, 'wide')).sort();
  const more = await runFile(change(variants, `# a note\n${variants}variant slow { lr: 1e-5 }\n`), folder, quickly());
  assert.match(more.output, /8\/8 {2}slow {2}seed 2 {2}val loss/);
  assert.equal(readdirSync(join(folder, 'wide')).sort(), before);
  write('small.mal', `# only a comment\n${model}`);
  assert.is((await runFile(inRoot('changed.sweep'), folder, quickly())).ending, 'done');
});

test('a sweep keeps to the commit of a data set that it began with', async () => {
  const [early, late] = ['a', 'b'].map(digit => digit.repeat(40)) as [string, string];
  const revisions = { main: early };
  const texts = { [early]: 'The cat sat on the mat.\n', [late]: 'A dog ran into the fog.\n' };
  const commits = Object.fromEntries(Object.entries(texts).map(([id, line]) => [id, { 'text.txt': line.repeat(80) }]));
  const hub = await startHub({ 'us/cats': { revisions, commits } });
  const { HF_ENDPOINT } = process.env;
  process.env.HF_ENDPOINT = hub.url;
  try {
    const text = `model: "small.mal"\ndata: "hf:us/cats"\nseeds: [1, 2, 3]\n${short}variant a { }\n`;
    const path = write('hub.sweep', text);
    const folder = inRoot('runs/hub');
    let steps = 0;
    const moving = quickly(() => {
      steps += 1;
      if (steps === 3) revisions.main = late;
      if (steps === 9) process.emit('SIGINT');
    });
    assert.is((await runFile(path, folder, moving)).ending, 'interrupted');
    assert.is((await runFile(path, folder, quickly())).ending, 'done');
    const dataOf = (seed: number) =>
      JSON.parse(readFileSync(join(runPath(folder, 'a', seed), 'run.json'), 'utf8')).data;
    for (const seed of [1, 2, 3]) assert.equal(dataOf(seed), [`hf:us/cats@${early}:default:train`]);
  } finally {
    hub.close();
    if (HF_ENDPOINT === undefined) delete process.env.HF_ENDPOINT;
    else process.env.HF_ENDPOINT = HF_ENDPOINT;
  }
});

test('tokens, operations or parameters are equal, and what misses is shown', async () => {
  const plan = async (name: string, text: string) =>
    (await runFile(write(`${name}.sweep`, text), inRoot(`runs/${name}`), quickly(), true)).output;
  const tokens = await plan('tokens', `${head}equal: tokens\n${short}grid { batch-size: [2, 4] }`);
  assert.match(tokens, /batch-size=2 .* 96 +6 .*\n +batch-size=4 .* 96 +3 /);
  const flops = await plan('flops', `${head}equal: flops\n${short}variant a { }\nvariant b { width: 32 }`);
  assert.match(flops, / b .* \([+−][\d.]+ %\) +48 +3 /);
  const parameters = await plan(
    'parameters',
    `${head}equal: parameters { by: inner }\n${short}variant a { inner: 400 }\nvariant b { width: 24 }`,
  );
  assert.match(parameters, / b +[\d,]+ \([+−]0\.\d+ %\)/);
  assert.match(parameters, /2 runs, of seed 1337: .* in all/);
  assert.not.ok(readdirSync(inRoot('runs')).some(name => ['tokens', 'flops', 'parameters'].includes(name)));
  const idle = `${head}equal: parameters { by: heads }\n${short}variant a { }\nvariant b { inner: 64 }`;
  assert.match(await refusal(write('idle', idle), inRoot('idle-runs')), /`heads` does not change how many parameters/);
  const unknown = `${head}${short}variant a { widht: 3 }`;
  assert.match(
    await refusal(write('unknown', unknown), inRoot('no')),
    /no constant `widht`[\s\S]*did you mean `width`\?/,
  );
  const impossible = `${head}${short}variant a { heads: 3 }`;
  assert.match(await refusal(write('impossible', impossible), inRoot('no')), /small\.mal:[\s\S]*let heads = 3|heads/);
  assert.match(await refusal(write('bare', `${short}variant a { }`), inRoot('no')), /names no data/);
  assert.match(await refusal(write('bare', `data: "text.txt"\n${short}variant a { }`), inRoot('no')), /names no model/);
  assert.match(await refusal(write('bare', whole), root), /holds something that is no sweep/);
});

test('the command measures what a dry run tells, and writes nothing', async () => {
  const path = write('dry.sweep', `${head}${short}variant a { }`);
  const before = readdirSync(root).sort();
  const { write: written } = process.stdout;
  let output = '';
  const keep = (text: string | Uint8Array) => {
    output += text;
    return true;
  };
  process.stdout.write = keep;
  try {
    await command.run({ file: path, output: inRoot('never'), 'dry-run': true, table: false });
  } finally {
    process.stdout.write = written;
  }
  assert.match(output, /trying a [\s\S]* a +[\d,]+ .*[KM]iB +\d+s\n/);
  assert.match(output, /a dry run: nothing was written/);
  assert.equal(readdirSync(root).sort(), before);
});

test('the table and the page show every variant', () => {
  const folder = inRoot('runs/whole');
  const table = resultTable(resultsOf(folder, readPlan(folder)));
  assert.match(table, /variant +val loss +bits\/byte +parameters +FLOPs +tokens +tokens\/s +memory +seeds/);
  assert.match(table, /wide +\d\.\d{4} ± \d\.\d{4}/);
  const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
  if (chromium === undefined) {
    console.log('  no Chromium: the page is not opened in a browser');
    return;
  }
  const quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
  const own = [`--user-data-dir=${inRoot('browser')}`, '--virtual-time-budget=2000', '--dump-dom'];
  const words = [
    ...quiet,
    '--disable-component-update',
    '--disable-sync',
    ...own,
    `file://${join(folder, 'page.html')}`,
  ];
  const dom = execFileSync(chromium, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const text = dom.replace(/<(script|style)\b[\s\S]*?<\/\1>/g, '');
  assert.match(text, /<h2>changed: 4 variants<\/h2>/);
  assert.match(text, /seed 1 failed: step \d+: the loss is/);
  assert.match(text, /\d\.\d{4} ± \d\.\d{4}/);
  assert.match(text, /<summary>Runs \(\d\)<\/summary>/);
});

test.run();
