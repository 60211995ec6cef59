// The door to native code: the only import of koffi. Loads libraries, calls their functions, looks into their memory.
import koffi from 'koffi';

/** An address in native memory. */
export type Pointer = bigint;

/** A function of a loaded library: called directly it blocks; through `callAsync` it runs off the main thread. */
export type NativeFunction = ReturnType<ReturnType<typeof koffi.load>['func']>;

// koffi runs an asynchronous call on a stack of its own, 128 KiB unless told. Generated kernels keep tiles on the stack;
// a thread's usual 8 MiB is address space only, no memory until touched.
koffi.config({ async_stack_size: 8 * 1024 * 1024 });

/** Declares a C struct by name for later prototypes; its members may be given and read as a JavaScript object. */
export function declareStruct(name: string, members: Readonly<Record<string, string>>): void {
  koffi.struct(name, { ...members });
}

/** Declares a C type of which only pointers are used. */
export function declareOpaque(name: string): void {
  koffi.opaque(name);
}

/**
 * Loads a library and finds every function of `prototypes` (C prototypes by function name). A library stays loaded for the
 * life of the process: its OpenMP threads may be waiting in its code.
 *
 * @throws Error where the file cannot be loaded or a function is missing.
 */
export function loadLibrary<Name extends string>(
  path: string,
  prototypes: Readonly<Record<Name, string>>,
): Record<Name, NativeFunction> {
  calmOpenMP();
  const library = koffi.load(path);
  keepLoaded(path);
  const functions = {} as Record<Name, NativeFunction>;
  for (const name of Object.keys(prototypes) as Name[]) functions[name] = library.func(prototypes[name]);
  return functions;
}

/** The flag of dlopen that binds every symbol at once; its value is the same on Linux and macOS. */
const RTLD_NOW = 2;

/**
 * koffi closes its libraries when the process ends, and OpenMP goes with the last one that uses it: a thread that still
 * waits in its code would crash a process whose work is done. A second handle, never closed, keeps them in place.
 */
function keepLoaded(path: string): void {
  if (process.platform === 'win32') return;
  const open = koffi.load(null).func('void *dlopen(const char *path, int flags)');
  if (!open(path, RTLD_NOW)) throw new Error(`${path} was loaded and could not be opened again`);
}

/**
 * Calls a native function on a worker thread. Typed arrays are passed by address, without a copy; they stay alive until
 * the promise settles, because this call holds them.
 */
export function callAsync(nativeFunction: NativeFunction, ...values: unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    nativeFunction.async(...values, (error: unknown, result: unknown) => {
      values.length = 0;
      if (error) reject(error);
      else resolve(result);
    });
  });
}

/** What koffi.view can show at once; more ends the process. */
const LARGEST_VIEW_BYTES = 2 ** 32;

/**
 * `length` float32 values at `address`, without a copy. The view is valid as long as the native memory is: touching it
 * after that memory is freed is undefined.
 */
export function viewFloats(address: Pointer, length: number): Float32Array {
  const bytes = length * Float32Array.BYTES_PER_ELEMENT;
  if (bytes > LARGEST_VIEW_BYTES) {
    throw new Error(`a tensor of ${length} float32 values (${bytes} bytes) is larger than one view can show (4 GiB)`);
  }
  return new Float32Array(koffi.view(address, bytes));
}

/**
 * Waiting OpenMP threads burn a core for milliseconds by default, which starves the event loop and everything else on a
 * shared machine. They may spin for some microseconds, enough between two kernels, then sleep. The libraries read these
 * variables when they are loaded; what the user has set wins.
 */
function calmOpenMP(): void {
  const environment = process.env;
  if (environment.OMP_WAIT_POLICY !== undefined || environment.GOMP_SPINCOUNT !== undefined) return;
  environment.OMP_WAIT_POLICY = 'passive';
  environment.GOMP_SPINCOUNT = '20000'; // GNU libgomp, in turns of the loop: about 0.2 ms
  environment.KMP_BLOCKTIME ??= '1'; // LLVM libomp, in milliseconds
}
