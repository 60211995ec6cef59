// The page: what came with it, what its server says later, and everything on it besides the charts.
import { colorOf, drawCharts } from './charts.js';
import { brief, bytes, duration, last, least, median, sinceLowest } from './numbers.js';
import { drawSweep, variantsOf } from './sweep.js';

const { live, runs: given, sweep } = JSON.parse(document.getElementById('data').textContent);
const variantNames = [...new Set(given.map(({ record }) => record.variant))];
const runs = given.map(({ record, progress }, index) => ({
  record,
  // Runs that differ in their seeds alone have one colour.
  color: colorOf(sweep ? variantNames.indexOf(record.variant) : index),
  shown: true,
  columns: Object.fromEntries(Object.keys(progress.columns).map(name => [name, []])),
  losses: [],
  next: 0,
  samples: [],
  sampleBytes: 0,
  training: false,
  rates: [],
  elapsed: [],
  sources: {},
}));
runs.forEach((run, index) => void take(run, given[index].progress));

const element = id => document.getElementById(id);
const controls = { axis: element('axis'), smoothing: element('smoothing'), logarithmic: element('logarithmic') };

/** Adds what a run gained. */
function take(run, { columns, losses, next, anew, samples, sampleBytes, training }) {
  for (const [name, values] of Object.entries(columns))
    run.columns[name] = anew ? values : run.columns[name].concat(values);
  run.losses = anew ? losses : run.losses.concat(losses);
  Object.assign(run, { next, sampleBytes, training, samples: samples ?? run.samples });
  const { tokens, seconds } = run.columns;
  run.rates = tokens.map((count, n) => (n === 0 ? null : (count - tokens[n - 1]) / seconds[n]));
  let sum = 0;
  run.elapsed = seconds.map(each => (sum += each));
  run.sources = bySource(run.losses);
}

/** Columns of the losses of a mixture's sources, by their names. */
function bySource(losses) {
  const names = new Set(losses.flatMap(each => Object.keys(each ?? {})));
  return Object.fromEntries([...names].map(name => [name, losses.map(each => each?.[name] ?? null)]));
}

function make(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== '') made.textContent = text;
  return made;
}

function row(cells, name = 'td') {
  const made = make('tr', '');
  for (const cell of cells) {
    if (cell instanceof Node) made.append(cell);
    else made.append(make(name, cell.text ?? cell, { className: cell.text === undefined ? '' : 'number' }));
  }
  return made;
}

const numeric = text => ({ text });

/** The line of each run: how far it is, how good, how fast. */
function drawRuns() {
  const head = [
    'run',
    'model',
    ...['parameters', 'step', 'loss', 'best validation', 'bits a byte', 'tokens/s', 'FLOP/s', 'time'].map(numeric),
    '',
  ];
  const rows = runs.map(run => {
    const { record, columns } = run;
    const name = make('td', '', { className: 'choose', title: 'Show or hide its curves' });
    name.append(make('span', '', { className: 'swatch', style: `background:${run.color}` }), record.name);
    name.onclick = () => {
      run.shown = !run.shown;
      draw();
    };
    const rate = median(run.rates.slice(-50));
    const step = last(columns.step) ?? 0;
    const steps = record.options.steps;
    const state = run.training ? 'training' : stateOf(run, step, steps);
    const made = row([
      name,
      record.model.name,
      numeric(record.model.parameters.total.toLocaleString('en')),
      numeric(steps === undefined ? brief(step) : `${step.toLocaleString('en')} / ${steps.toLocaleString('en')}`),
      numeric(last(columns.loss)?.toFixed(4) ?? ''),
      numeric(least(columns.validation_loss)?.toFixed(4) ?? ''),
      numeric(least(columns.validation_bits_per_byte)?.toFixed(4) ?? ''),
      numeric(brief(rate)),
      numeric(brief(rate === null ? null : rate * record.model.flopsPerToken)),
      numeric(duration(last(run.elapsed) ?? 0)),
      make('td', state, { className: run.training ? 'live' : 'note' }),
    ]);
    if (!run.shown) made.classList.add('hidden-run');
    return made;
  });
  element('runs').replaceChildren(row(head, 'th'), ...rows);
}

/** How a run that nobody trains stands: at its end, at one that its patience came to, or before it. */
function stateOf({ record, columns }, step, steps) {
  if (steps === undefined || step >= steps) return 'done';
  const { patience } = record.options;
  return patience !== undefined && sinceLowest(columns.validation_loss) >= patience ? 'ended early' : 'stopped';
}

/** The samples at the step that the slider stands at, one beside the other. */
function drawSamples() {
  const shown = oneOfEach(runs.filter(run => run.shown && run.samples.length > 0));
  element('samples').hidden = shown.length === 0;
  if (shown.length === 0) return;
  const steps = [...new Set(shown.flatMap(run => run.samples.map(({ step }) => step)))].sort((a, b) => a - b);
  const place = element('sample-place');
  const stayed = Number(place.max) === 0 || Number(place.value) === Number(place.max);
  place.max = steps.length - 1;
  if (stayed) place.value = steps.length - 1;
  const step = steps[Number(place.value)];
  element('sample-step').textContent = `after step ${step.toLocaleString('en')}`;
  element('sample-texts').replaceChildren(
    ...shown.map(run => {
      const sample = run.samples.findLast(each => each.step <= step);
      const made = make('div', '');
      made.append(make('span', '', { className: 'swatch', style: `background:${run.color}` }), titleOf(run));
      made.append(make('p', sample ? sample.text : 'nothing yet'));
      return made;
    }),
  );
}

/** The runs themselves; of a sweep the first of each variant, for the others have its model. */
const oneOfEach = all =>
  sweep ? all.filter((run, n) => all.findIndex(other => other.record.variant === run.record.variant) === n) : all;

const titleOf = ({ record }) => record.variant ?? record.name;

/** Each run's model as it was written, its parameters, its options and its kernels. */
function drawModels() {
  element('models').replaceChildren(
    ...oneOfEach(runs).map(run => {
      const { model, options, kernels } = run.record;
      const card = make('div', '', { className: 'card' });
      const heading = make('h2', '');
      heading.append(make('span', '', { className: 'swatch', style: `background:${run.color}` }), titleOf(run));
      heading.append(
        make('span', ` ${model.blocks.map(({ name, layers }) => `${layers} × ${name}`).join(', ')}`, {
          className: 'note',
        }),
      );
      card.append(heading);
      if (model.description !== '') card.append(make('div', model.description, { className: 'note' }));
      card.append(folded('Model', make('pre', model.text), model.text.length < 1500));
      card.append(folded('Parameters', tableOf(['part', 'parameters'], partsOf(model.parameters))));
      if (Object.keys(options).length > 0)
        card.append(
          folded(
            'Options',
            tableOf(
              ['option', 'value'],
              Object.entries(options).map(([name, value]) => [name, String(value)]),
            ),
          ),
        );
      card.append(folded(`Kernels of a training step (${kernels.length})`, kernelTable(kernels, run.color)));
      return card;
    }),
  );
}

function folded(title, content, open = false) {
  const made = make('details', '', { open });
  const inside = make('div', '', { className: 'scroll' });
  inside.append(content);
  made.append(make('summary', title), inside);
  return made;
}

function tableOf(head, rows) {
  const table = make('table', '');
  table.append(row(head, 'th'), ...rows.map(cells => row(cells)));
  return table;
}

const partNames = { feedForward: 'feed-forward', stateSpace: 'state space', head: 'output head' };

function partsOf({ perLayer, ...parts }) {
  return Object.entries(parts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => [partNames[name] ?? name, numeric(count.toLocaleString('en'))]);
}

/** Kernels with their work for one micro-batch; bars are shares of all operations. */
function kernelTable(kernels, color) {
  const all = kernels.reduce((sum, { operations }) => sum + operations, 0);
  const head = ['kernel', numeric('launches'), numeric('FLOP'), numeric('bytes'), numeric('FLOP/byte'), ''];
  return tableOf(
    head,
    kernels.map(({ name, functions, launches, operations, bytes: moved }) => {
      const bar = make('span', '', {
        className: 'bar',
        title: `${((100 * operations) / all).toFixed(1)} % of all operations`,
      });
      bar.append(make('i', '', { style: `width:${(100 * operations) / all}%;background:${color}` }));
      const cell = make('td', '');
      cell.append(bar);
      return [
        make('td', name, { title: functions.join(', ') }),
        numeric(brief(launches)),
        numeric(brief(operations)),
        numeric(bytes(moved)),
        numeric(brief(operations / moved)),
        cell,
      ];
    }),
  );
}

function draw() {
  drawRuns();
  drawSamples();
  if (sweep) drawSweep(sweep, runs, draw);
  drawCharts(sweep ? variantsOf(runs) : runs, {
    axis: controls.axis.value,
    smoothing: Number(controls.smoothing.value),
    logarithmic: controls.logarithmic.checked,
  });
}

function chooseTheme(name) {
  document.documentElement.dataset.theme = name;
  draw();
}

async function ask(what) {
  const response = await fetch(what);
  if (!response.ok) throw new Error(await response.text());
  return await response.json();
}

const askRun = (index, from, samples) => ask(`progress?run=${index}&from=${from}&samples=${samples}`);

/** Asks for what came since; a server that is gone leaves the page as it is. */
async function follow() {
  try {
    let gained = false;
    for (const [index, run] of runs.entries()) {
      let progress = await askRun(index, run.next, run.sampleBytes);
      // A run that was resumed from an earlier step, and has passed the place since.
      if (!progress.anew && progress.columns.step[0] <= last(run.columns.step))
        progress = { ...(await askRun(index, 0, 0)), anew: true };
      gained ||= progress.next !== run.next || progress.training !== run.training;
      take(run, progress);
    }
    if (sweep && gained) {
      Object.assign(sweep, await ask('sweep'));
      const begun = sweep.variants.flatMap(({ runs: all }) => all.filter(({ steps }) => steps > 0));
      if (begun.length > runs.length) location.reload();
    }
    element('status').textContent = runs.some(run => run.training) ? 'live' : 'nothing trains';
    if (gained) draw();
  } catch (error) {
    // What fetch throws where nobody answers.
    element('status').textContent = error instanceof TypeError ? 'the server has ended' : error.message;
  }
  setTimeout(follow, 2000);
}

for (const control of Object.values(controls)) control.oninput = draw;
element('sample-place').oninput = drawSamples;
element('theme').onclick = () => chooseTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
if (sweep) {
  const fold = make('details', '');
  fold.append(make('summary', `Runs (${runs.length})`), element('runs'));
  element('all-runs').append(fold);
}
drawModels();
chooseTheme(matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
if (live) follow();
else element('status').textContent = runs.length === 1 ? runs[0].record.path : `${runs.length} runs`;
