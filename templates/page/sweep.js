// A sweep: its variants beside each other, what they came to, and their curves as means over the seeds.
import { brief, bytes } from './numbers.js';

/** What is drawn of the runs that are shown: each, thin, and for each variant with several the mean of them. */
export function variantsOf(runs) {
  const shown = runs.filter(run => run.shown);
  const names = [...new Set(shown.map(run => run.record.variant))];
  return names.flatMap(name => {
    const seeds = shown.filter(run => run.record.variant === name);
    const record = { ...seeds[0].record, name };
    if (seeds.length === 1) return [{ ...seeds[0], record }];
    return [...seeds.map(run => ({ ...run, isBehind: true })), { ...meanOf(seeds), record }];
  });
}

/** The mean of the runs of a variant, at each step of those that have come so far. */
function meanOf(seeds) {
  const longest = seeds.reduce((a, b) => (b.columns.step.length > a.columns.step.length ? b : a));
  const over = pick =>
    longest.columns.step.map((_, n) => {
      const values = seeds.map(run => pick(run)[n]).filter(value => value !== null && value !== undefined);
      return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
    });
  const overEach = part =>
    Object.fromEntries(Object.keys(longest[part]).map(name => [name, over(run => run[part][name] ?? [])]));
  const [columns, sources] = [overEach('columns'), overEach('sources')];
  return { ...longest, columns, sources, rates: over(run => run.rates), elapsed: over(run => run.elapsed) };
}

const HEAD = [
  'variant',
  'validation loss',
  '',
  'bits a byte',
  'parameters',
  'FLOPs',
  'tokens',
  'tokens/s',
  'memory',
  'seeds',
];
const NAMES = [0, 2];

/** The table of the results, the lowest loss first. A click on a variant shows or hides its curves. */
export function drawSweep(sweep, runs, redraw) {
  const place = document.getElementById('sweep');
  place.hidden = false;
  const held = sweep.equal === null ? '' : ` at equal ${sweep.equal === 'flops' ? 'FLOPs' : sweep.equal}`;
  place.querySelector('h2').textContent = `${sweep.name}: ${sweep.variants.length} variants${held}`;
  const ended = sweep.variants.flatMap(variant => variant.runs.filter(isEnded).map(run => run.loss));
  const range = [Math.min(...ended), Math.max(...ended)];
  const table = document.createElement('table');
  const head = document.createElement('tr');
  for (const [n, text] of HEAD.entries()) head.append(cell(text, NAMES.includes(n) ? '' : 'number', 'th'));
  table.append(head, ...sweep.variants.flatMap(variant => rowsOf(variant, runs, range, redraw)));
  place.querySelector('div').replaceChildren(table);
}

const isEnded = ({ state }) => state === 'done' || state === 'patience';

function rowsOf(variant, runs, range, redraw) {
  const own = runs.filter(run => run.record.variant === variant.name);
  const row = document.createElement('tr');
  const name = cell('', 'choose');
  const swatch = document.createElement('span');
  swatch.className = 'swatch';
  swatch.style.background = own[0]?.color ?? 'var(--line)';
  name.append(swatch, variant.name);
  name.title = 'Show or hide its curves';
  name.onclick = () => {
    const shown = !own.some(run => run.shown);
    for (const run of own) run.shown = shown;
    redraw();
  };
  const dots = cell('', '');
  dots.append(dotsOf(variant, own[0]?.color, range));
  const numbers = [
    brief(variant.parameters),
    brief(variant.flops),
    brief(variant.tokens),
    brief(variant.tokensPerSecond),
    bytes(variant.memory),
    `${variant.runs.filter(isEnded).length} of ${variant.runs.length}`,
  ];
  row.append(name, cell(spread(variant.loss, 4), 'number'), dots, cell(spread(variant.bitsPerByte, 3), 'number'));
  row.append(...numbers.map(text => cell(text, 'number')));
  if (own.length > 0 && !own.some(run => run.shown)) row.classList.add('hidden-run');
  const reasons = variant.runs.filter(({ reason }) => reason !== null);
  return [
    row,
    ...reasons.map(({ seed, reason }) => reasonRow(`seed ${seed} failed: ${reason.split('\n')[0]}`, reason)),
  ];
}

/** Each seed's loss as a point between the lowest and the highest of all. */
function dotsOf(variant, color, [lowest, highest]) {
  const made = document.createElement('span');
  made.className = 'dots';
  for (const { loss, seed } of variant.runs.filter(isEnded)) {
    const dot = document.createElement('i');
    dot.style.left = `${highest === lowest ? 50 : (100 * (loss - lowest)) / (highest - lowest)}%`;
    dot.style.background = color;
    dot.title = `seed ${seed}: ${loss.toFixed(4)}`;
    made.append(dot);
  }
  return made;
}

function reasonRow(text, whole) {
  const row = document.createElement('tr');
  const only = cell(text, 'note reason');
  only.title = whole;
  only.colSpan = HEAD.length;
  row.append(only);
  return row;
}

function cell(text, className, name = 'td') {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function spread(value, digits) {
  if (value === null) return '';
  return `${value.mean.toFixed(digits)}${value.deviation === null ? '' : ` ± ${value.deviation.toFixed(digits)}`}`;
}
