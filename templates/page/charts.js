// The charts: one for each number, all runs in it. They share the cursor, and are made anew when the axis, the smoothing
// or the theme changes.
/* global uPlot */
import { brief, bytes, duration, smoothed } from './numbers.js';

/** What is drawn: of a run's columns, with how numbers are written. `faint` is drawn behind, as it was measured. */
const CHARTS = [
  {
    title: 'loss',
    note: 'nats a token; rings: validation',
    wide: true,
    loss: true,
    line: run => run.columns.loss,
    points: run => run.columns.validation_loss,
  },
  { title: 'validation', note: 'bits a byte', points: run => run.columns.validation_bits_per_byte, joined: true },
  {
    title: 'validation of averages',
    note: 'nats a token, of the averaged weights',
    points: run => run.columns.averaged_validation_loss,
    joined: true,
  },
  { title: 'gradient norm', note: 'before clipping', line: run => run.columns.gradient_norm },
  { title: 'learning rate', note: '', line: run => run.columns.learning_rate, exact: true },
  { title: 'tokens a second', note: 'of the step alone', line: run => run.rates },
  { title: 'auxiliary loss', note: 'of routers and further tokens', line: run => run.columns.auxiliary_loss },
  {
    title: 'memory',
    note: 'of the process, or of the device',
    line: run => run.columns.memory_bytes,
    exact: true,
    write: bytes,
  },
];

const colors = ['#2f6fde', '#d9662b', '#1f9d61', '#a24bcf', '#c9a20a', '#d4447e', '#1aa3b8', '#7a6a58'];
export const colorOf = index => colors[index % colors.length];

let drawn = [];

/** Draws all charts of the runs that are shown. */
export function drawCharts(runs, { axis, smoothing, logarithmic }) {
  const place = document.getElementById('charts');
  for (const { plot } of drawn) plot.destroy();
  drawn = [];
  place.replaceChildren();
  const shown = runs.filter(run => run.shown);
  for (const chart of CHARTS) {
    const parts = shown.flatMap(run => seriesOf(chart, run, axis, smoothing));
    if (parts.length === 0) continue;
    const card = document.createElement('div');
    card.className = chart.wide ? 'card wide' : 'card';
    const heading = document.createElement('h2');
    heading.textContent = `${chart.title} `;
    const note = document.createElement('span');
    note.className = 'note';
    note.textContent = chart.note;
    heading.append(note);
    card.append(heading);
    place.append(card);
    const plot = new uPlot(optionsOf(chart, parts, card, axis, chart.loss && logarithmic), joined(parts), card);
    drawn.push({ plot, card, chart });
  }
}

/**
 * The series of a run in a chart, each with its own places on the axis; none where it has no such numbers. A run that is
 * behind others, as a seed is behind the mean of all, is a thin line without a name.
 */
function seriesOf(chart, run, axis, smoothing) {
  const places = run[axis] ?? run.columns[axis];
  const write = chart.write ?? brief;
  const part = (label, values, look) => {
    const kept = places.map((_, n) => n).filter(n => values[n] !== null && values[n] !== undefined);
    if (kept.length === 0) return [];
    return [
      {
        x: kept.map(n => places[n]),
        y: kept.map(n => values[n]),
        series: { label, value: (_, v) => write(v), ...look },
      },
    ];
  };
  const line = chart.line?.(run);
  const points = chart.points?.(run);
  const isSmoothed = line && !chart.exact && smoothing > 0;
  if (run.isBehind) {
    const look = { stroke: `${run.color}66`, width: 1, points: { show: false }, class: 'faint' };
    const values = line ?? (chart.joined ? points : null);
    return chart.exact || values === null ? [] : part('', isSmoothed ? smoothed(values, smoothing) : values, look);
  }
  return [
    ...(isSmoothed
      ? part('', line, { stroke: `${run.color}38`, width: 1, points: { show: false }, class: 'faint' })
      : []),
    ...(line
      ? part(run.record.name, isSmoothed ? smoothed(line, smoothing) : line, {
          stroke: run.color,
          width: 1.75,
          points: { show: line.length < 3 },
        })
      : []),
    ...(points
      ? part(line ? `${run.record.name}, validation` : run.record.name, points, {
          stroke: run.color,
          width: chart.joined ? 1.75 : 0,
          dash: chart.joined ? undefined : [2, 4],
          points: { show: true, size: 7, width: 1.5, fill: style('--card') },
        })
      : []),
  ];
}

/** uPlot's table: all places on the axis, and for each series its value there or nothing. */
const joined = parts => uPlot.join(parts.map(({ x, y }) => [x, y]));

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function optionsOf(chart, parts, card, axis, logarithmic) {
  const write = chart.write ?? brief;
  const along = axis === 'elapsed' ? duration : brief;
  const look = { stroke: style('--quiet'), grid: { stroke: style('--line'), width: 1 }, ticks: { show: false } };
  return {
    width: card.clientWidth - 32,
    height: chart.wide ? 320 : 210,
    cursor: { sync: { key: 'runs' }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    axes: [
      { ...look, values: (_, places) => places.map(along) },
      { ...look, size: 62, values: (_, values) => values.map(value => (value === null ? '' : write(value))) },
    ],
    series: [
      { label: axis === 'elapsed' ? 'time' : axis, value: (_, v) => (v === null ? '' : along(v)) },
      ...parts.map(({ series }) => ({ spanGaps: true, ...series })),
    ],
    legend: { live: true },
  };
}

addEventListener('resize', () => {
  for (const { plot, card, chart } of drawn)
    plot.setSize({ width: card.clientWidth - 32, height: chart.wide ? 320 : 210 });
});
