// Where a run of `malc train` tells of itself, and what the terminal shows of it.
import type { StepLine } from '../show/step-line.ts';
import type { TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';
import { showForecast, showOpening } from './train-tables.ts';

/** Where a run tells of itself: the terminal, or the sweep that it is one of. */
export interface Stage {
  tell(text: string): void;
  warn(text: string): void;
  /** All that the run is, before anything is compiled; false ends it there. */
  prepared(prepared: Prepared): boolean;
  /** What it is, before the first step. */
  readonly opening: typeof showOpening;
  /** The whole of a dry run, after that. */
  readonly forecast: typeof showForecast;
  line(options: ConstructorParameters<typeof StepLine>[1]): Promise<Pick<StepLine, 'step' | 'sample' | 'note'>>;
  /** How it ended. */
  report(output: string, prepared: Prepared, result: TrainResult): void;
}

function report(output: string, { validation }: Prepared, result: TrainResult): void {
  if (result.ending === 'interrupted') {
    console.log(`\nsaved at step ${result.step}; go on with: malc train --resume -o ${output}`);
    process.exitCode = 130;
    return;
  }
  const nats = result.validationLoss;
  const bits =
    nats === null || validation?.bytesPerToken === undefined
      ? ''
      : ` (${(nats / Math.LN2 / validation.bytesPerToken).toFixed(3)} bits a byte)`;
  const averaged = result.averagedLoss === null ? '' : `, of the averaged weights ${result.averagedLoss.toFixed(4)}`;
  const loss = nats === null ? '' : `, validation loss ${nats.toFixed(4)}${bits}${averaged}`;
  const early = result.ending === 'patience' ? ', as the validation loss no longer fell' : '';
  console.log(`\n${result.step} steps done${early}${loss}; write with it: malc generate -c ${output} -p "..."`);
}

/** What `malc train` shows. */
export const terminal: Stage = {
  tell: text => console.log(text),
  warn: text => console.error(text),
  prepared: () => true,
  opening: showOpening,
  forecast: showForecast,
  async line(options) {
    const { StepLine } = await import('../show/step-line.ts');
    return new StepLine(process.stdout, options);
  },
  report,
};
