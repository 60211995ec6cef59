// The device's clock and power while something runs: what a slow number may be the fault of.
import { spawn } from 'node:child_process';
import type { PartResult } from './part.ts';

/** Milliseconds between samples. */
const PERIOD = 500;

/** What the device did at some time. */
export interface Sample {
  /** Of performance.now(), when the sample was read. */
  readonly at: number;
  readonly mhz: number;
  readonly watts: number;
  /** Per cent of the time in which it did something. */
  readonly used: number;
}

/** Samples until it is stopped, which gives all of them; none where nvidia-smi is not there. */
export function watchDevice(): () => readonly Sample[] {
  const query = ['--query-gpu=clocks.sm,power.draw,utilization.gpu', '--format=csv,noheader,nounits'];
  const child = spawn('nvidia-smi', [...query, '-lms', String(PERIOD)], { stdio: ['ignore', 'pipe', 'ignore'] });
  const samples: Sample[] = [];
  let rest = '';
  child.on('error', () => {}); // without it there are no samples
  child.stdout.setEncoding('utf8').on('data', more => {
    const lines = `${rest}${more}`.split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const [mhz = 0, watts = 0, used = 0] = line.split(',').map(Number);
      if (mhz > 0 && watts > 0) samples.push({ at: performance.now(), mhz, watts, used });
    }
  });
  return () => {
    child.kill();
    return samples;
  };
}

/** The means of the samples in which the device did something; null where there are none. */
export function meanOf(samples: readonly Sample[]): PartResult['clock'] {
  const busy = samples.filter(({ used }) => used > 0);
  if (busy.length === 0) return null;
  const mean = (of: (sample: Sample) => number) => busy.reduce((sum, sample) => sum + of(sample), 0) / busy.length;
  return { mhz: mean(({ mhz }) => mhz), watts: mean(({ watts }) => watts) };
}
