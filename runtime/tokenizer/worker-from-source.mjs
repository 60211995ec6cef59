// Runs worker.ts as it is, in development: tsx, which does that for the main thread, does not follow into threads.
import { register } from 'tsx/esm/api';

register();
await import('./worker.ts');
