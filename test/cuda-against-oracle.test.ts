// Random small architectures compiled for CUDA, in the emulator, against the float64 reference evaluation of their graphs:
// every third of those that native-against-oracle.test.ts has the CPU compute.
import fc from 'fast-check';
import { suite } from 'uvu';
import { openEmulated } from './cuda/build.ts';
import { hold } from './held-against-oracle.ts';
import { randomModel } from './random-models.ts';
import { emulatorAvailable } from './simt/build.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda against oracle');
const available = await emulatorAvailable();
if (!available) console.log('no g++ that the emulator can use: random models are not run on CUDA');

const models = fc.sample(randomModel, { seed: 20, numRuns: 24 });
for (const [n, model] of available ? models.entries() : []) {
  if (n % 3 !== 1) continue;
  const fuse = n !== 10;
  test(`model ${n}${fuse ? '' : ', without fusion'}: logits, loss, gradients, causality, decoding`, async () => {
    const native = await openEmulated(model, { dtype: 'f32', fuse }, { batch: 2, time: 7 });
    await hold(native, model, 2, 7, n + 1);
    native.close();
  });
}

test.run();
