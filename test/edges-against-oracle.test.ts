// The compiled C program against the float64 reference evaluation of its graph at the edges of what may be written: one of
// everything, one sequence, one position, kinds with names alike, modules around a recurrent block.
import { suite } from 'uvu';
import { edgeModel } from './edge-models.ts';
import { hold, open } from './held-against-oracle.ts';

const test = suite('edges against oracle');

for (const name of ['smallest', 'alike', 'further'])
  for (const fuse of [true, false])
    test(`${name}${fuse ? '' : ', without fusion'}: one sequence, one position, and more`, async () => {
      const model = edgeModel(name);
      const most = Math.min(7, model.max_seq_len);
      const native = await open(model, { fuse }, { batch: 2, time: most });
      for (const [batch, time] of [
        [1, 1],
        [2, 1],
        [1, 2],
        [2, most],
      ] as const)
        if (time <= most) await hold(native, model, batch, time, 3);
      native.close();
    });

test.run();
