// What Node has collected while it read, learned and compiled is given back before hours of training, which need little of
// it: other programs can have the memory, and what a run takes does not hang on when Node last tidied up.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collects all garbage of JavaScript. Takes some tens of milliseconds. */
export function collectGarbage(): void {
  // Node hides the function; a context that is made once it is shown has it.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  // The first time sweeps what it finds beside the program, and the second one gives it back to the system.
  for (let time = 0; time < 2; time++) collect();
}
