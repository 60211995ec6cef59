// State spaces and modules for further tokens as programs for CUDA, run by the emulator: the scan and the convolution of
// shapes that share work out differently, whole programs against the oracle, and what PyTorch computed of Mamba.
import fc from 'fast-check';
import { suite } from 'uvu';
import { runOnCuda } from './cuda/run-graph.ts';
import { emulatorAvailable } from './simt/build.ts';
import { endsOf, holdAgainstReference, holdPieces, pieceGraph, type Shape, wholeGraph } from './state-space-graphs.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda states');

if (await emulatorAvailable()) {
  /** From one thread a channel to a whole warp; a number of threads that has none of the state; more than a block's channels. */
  const shapes: readonly Shape[] = [
    { channels: 3, states: 1, kernel: 2 },
    { channels: 200, states: 3, kernel: 4 },
    { channels: 33, states: 16, kernel: 4 },
    { channels: 9, states: 21, kernel: 17 },
    { channels: 5, states: 130, kernel: 3 },
    { channels: 2, states: 1100, kernel: 40 },
  ];
  const whole = shapes.map(wholeGraph);
  const piece = shapes.map(pieceGraph);
  const headers = ['scan_forward.h', 'scan_backward.h', 'convolution.h'];
  const run = await runOnCuda([...whole, ...piece], headers);

  for (const [n, { channels, states, kernel }] of shapes.entries())
    test(`${channels} channels, a state of ${states}, a filter of ${kernel}: the reference, and the bits of the whole`, () => {
      for (const [batch, time] of [
        [2, 37],
        [3, 1],
      ] as const)
        holdAgainstReference(run, whole[n]!, { batch, time }, 31 + n);
      holdAgainstReference(run, piece[n]!, { batch: 1, time: 22, sequences: 4 }, 41 + n, endsOf([0, 1, 18, 3]));
      holdPieces(run, { whole: whole[n]!, piece: piece[n]!, shape: shapes[n]! }, 2, [3, 17, 1], 51 + n);
    });
}

test.run();
