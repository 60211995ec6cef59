// The device's clock and power while a part runs: what a slow number may be the fault of.
import { spawn } from 'node:child_process';
import type { PartResult } from './part.ts';

/** Milliseconds between samples. */
const PERIOD = 500;

/** Samples until it is stopped; stopping gives the means, of samples in which the device did something. */
export function watchClock(): () => PartResult['clock'] {
  const query = ['--query-gpu=clocks.sm,power.draw,utilization.gpu', '--format=csv,noheader,nounits'];
  const child = spawn('nvidia-smi', [...query, '-lms', String(PERIOD)], { stdio: ['ignore', 'pipe', 'ignore'] });
  let text = '';
  child.on('error', () => {}); // without it there are no samples
  child.stdout.setEncoding('utf8').on('data', more => {
    text += more;
  });
  return () => {
    child.kill();
    const busy = text
      .split('\n')
      .map(line => line.split(',').map(Number))
      .filter(([mhz, watts, used]) => mhz! > 0 && watts! > 0 && used! > 0);
    if (busy.length === 0) return null;
    const mean = (place: number) => busy.reduce((sum, sample) => sum + sample[place]!, 0) / busy.length;
    return { mhz: mean(0), watts: mean(1) };
  };
}
