// A generated model library, loaded: malc.h as a class. One NativeModel is one arena of parameters, moments, activations.
import { MachineError } from '../compiler/diagnostic.ts';
import type { CudaDevice } from './cuda-device.ts';
import { requireSeed } from './data/random.ts';
import { callAsync, loadLibrary, type Pointer, viewFloats } from './ffi.ts';
import type { SamplerOptions } from './generate/sampler.ts';
import {
  ABI,
  AVERAGE,
  DATA,
  DEVICE,
  emptyResult,
  FIRST_MOMENT,
  type Functions,
  GRADIENT,
  type NativeResult,
  NO_MEMORY,
  nativeOptions,
  nativeSampler,
  OK,
  PARTS,
  PROTOTYPES,
  SECOND_MOMENT,
} from './interface.ts';
import { describeMemory } from './show/quantities.ts';

export interface NativeOptions {
  /** Sequences in one micro-batch, at most. */
  readonly maxBatch: number;
  /** Positions in one call, at most. */
  readonly maxTime: number;
  /** Positions that the key-value cache holds; 0 for no cache. */
  readonly maxContext: number;
  /** Without it there are no gradients, no moments and no saved activations. */
  readonly training: boolean;
  /** Absent: as OpenMP chooses. */
  readonly threads?: number | undefined;
  /** Of what training drops at random; 0 where absent. */
  readonly seed?: number | undefined;
  /** In training, whether a moving average of each weight is kept. Default false. */
  readonly averages?: boolean | undefined;
  /** The token that ends a document, of a program that masks documents; none where absent. */
  readonly separator?: number | undefined;
  /** The GPU whose memory the model takes; the CPU's where absent. */
  readonly device?: CudaDevice | null;
}

/** Native memory to be read: a Float32Array without what writes. */
export type NativeFloats = Omit<
  Readonly<Float32Array>,
  'set' | 'fill' | 'copyWithin' | 'reverse' | 'sort' | 'subarray'
>;

/**
 * A parameter by its Hugging Face name. The arrays are the native memory itself, and change as it does; those of a device
 * with memory of its own are copies, as it was when the property was read.
 */
export interface NativeParameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** True where weight decay applies. */
  readonly decays: boolean;
  /**
   * False where no gradient moves it: of what is frozen, and for a bias that balances experts, of which `gradient` holds
   * the experts' loads.
   */
  readonly trained: boolean;
  readonly data: NativeFloats;
  /** How many moments training keeps of it, as the program's optimizer needs them. */
  readonly moments: 0 | 1 | 2;
  /** Null where the model was not opened for training, and of what is frozen. */
  readonly gradient: NativeFloats | null;
  /** Null likewise, and where the optimizer has no such moment of it. */
  readonly firstMoment: NativeFloats | null;
  readonly secondMoment: NativeFloats | null;
  /** Null where no averages are kept, and of what is frozen. */
  readonly average: NativeFloats | null;
}

/** The same, to be written. */
export interface WritableParameter extends NativeParameter {
  readonly data: Float32Array;
  readonly gradient: Float32Array | null;
  readonly firstMoment: Float32Array | null;
  readonly secondMoment: Float32Array | null;
  readonly average: Float32Array | null;
}

/** Bytes of each part of a model's memory. Forms are weights as products read them besides. */
export type MemoryParts = Readonly<Record<(typeof PARTS)[number], number>>;

/** What one update of the weights goes by; the program's optimizer does not read what it has no use for. */
export interface Update {
  readonly learningRate: number;
  readonly weightDecay: number;
  /** Global gradient norm above which gradients are scaled down; 0 for none. */
  readonly clipNorm: number;
  /** Of AdamW and Lion. */
  readonly beta1: number;
  readonly beta2: number;
  /** Of AdamW. */
  readonly epsilon: number;
  /** Of SGD, and of the matrices that Muon moves; 0 where absent. */
  readonly momentum?: number;
  /** What the averages of weights keep of themselves; 0 where absent. */
  readonly average?: number;
  /** The number of this update, from 1. */
  readonly update: number;
}

export interface StepResult {
  /** Mean negative log-likelihood in nats over the scored positions. */
  readonly loss: number;
  /** Before clipping; 0 where no gradient was computed. */
  readonly gradientNorm: number;
  /** What was added to the loss besides: of routers, and of predictions further ahead. */
  readonly auxiliary: number;
  readonly scored: number;
}

/** What a profile knows of a launch. */
export interface LaunchTime {
  /** `FUNCTION/KERNEL`. */
  readonly name: string;
  readonly seconds: number;
  readonly calls: number;
}

interface CallSize {
  readonly batch: number;
  readonly time: number;
  /** Role of each token's message; 0 everywhere where absent. */
  readonly roles?: Int32Array;
}

/** Sequences that decoding goes on with, of tokens [batch][time]. */
interface DecodeSize extends CallSize {
  /** Position of each sequence's first token. */
  readonly starts: Int32Array;
  /** How many of each sequence's `time` tokens are there; all where absent. */
  readonly counts?: Int32Array;
}

export class NativeModel {
  readonly architecture: string;
  readonly vocabularySize: number;
  readonly options: NativeOptions;
  /** What the arena takes, exactly. */
  readonly bytes: number;
  readonly #native: Functions;
  #pointer: Pointer | null;
  #parameters: readonly WritableParameter[] | null = null;
  /** Whether weights may have been written since the program made what products read of them. */
  #isStale = false;
  #running: string | null = null;

  private constructor(native: Functions, pointer: Pointer, options: NativeOptions, bytes: number) {
    this.#native = native;
    this.#pointer = pointer;
    this.options = options;
    this.bytes = bytes;
    this.architecture = native.malc_architecture();
    // The embedding comes first in every generated program, and its rows are the vocabulary.
    this.vocabularySize = Number(native.malc_parameter_dimension(0, 0));
  }

  /** Bytes of a model of this library with these options; null where it refuses them. Nothing is allocated. */
  static bytesOf(libraryPath: string, options: NativeOptions): number | null {
    const bytes = Number(loadFunctions(libraryPath).malc_bytes(nativeOptions(options)));
    return bytes < 0 ? null : bytes;
  }

  /**
   * Loads a library and allocates a model. Its weights are zero until `initialize` or until they are written.
   *
   * @throws MachineError where the memory cannot be had; the message says how much was asked for.
   */
  static open(libraryPath: string, options: NativeOptions): NativeModel {
    const native = loadFunctions(libraryPath);
    const given = nativeOptions(options);
    const bytes = Number(native.malc_bytes(given));
    const created: [Pointer | null] = [null];
    const code = native.malc_create(given, created);
    if (code === NO_MEMORY) {
      const { device } = options;
      const owner = device ? `${device.name}, of ${describeMemory(device.memory)},` : 'this machine';
      throw new MachineError(
        `the model needs ${describeMemory(bytes)} (${bytes} bytes) of memory, which ${owner} could not give. ` +
          `Use a smaller batch size, a shorter sequence length or a smaller model${options.training ? ', or --recompute block' : ''}.`,
      );
    }
    if (code === DEVICE) throw new MachineError(native.malc_message(null));
    if (code !== OK || created[0] === null) throw new Error(`malc_create: ${native.malc_message(null)}`);
    return new NativeModel(native, created[0], options, bytes);
  }

  /** What `bytes` are. */
  get parts(): MemoryParts {
    const options = nativeOptions(this.options);
    const sizes = PARTS.map((part, number) => [part, Number(this.#native.malc_part_bytes(options, number))]);
    return Object.fromEntries(sizes) as MemoryParts;
  }

  /** All parameters in the library's order, for reading. The arrays must not be touched after `close`. */
  get parameters(): readonly NativeParameter[] {
    return this.#describeParameters();
  }

  /**
   * All parameters for writing, before the next call: it begins with making what products read of the weights anew. To
   * write again after it, ask again.
   */
  writableParameters(): readonly WritableParameter[] {
    this.#isStale = true;
    return this.#describeParameters();
  }

  #describeParameters(): readonly WritableParameter[] {
    this.#open();
    this.#parameters ??= Array.from({ length: this.#native.malc_parameter_count() }, (_, index) =>
      describeParameter(this.#native, () => this.#open(), index),
    );
    return this.#parameters;
  }

  /** Draws the initial weights, the same for the same seed on every machine, and clears the moments; averages are the weights. */
  async initialize(seed: number): Promise<void> {
    await this.#call('malc_initialize', seed);
  }

  /** Exchanges all weights with their averages: `work` computes with these, and finds the weights among the averages. */
  async withAverages<Result>(work: () => Promise<Result>): Promise<Result> {
    await this.#call('malc_swap_averages');
    try {
      return await work();
    } finally {
      await this.#call('malc_swap_averages');
    }
  }

  /**
   * One step over `microBatches` x `batch` sequences of `time` tokens, all scored positions weighted alike. With `update`
   * null the gradients are computed and left in place, and no weight moves.
   *
   * @param tokens [microBatches][batch][time]
   * @param labels the token that each position must predict, or -1 where it is not scored
   * @param size.roles role of each token's message, for a model with role embeddings; 0 everywhere where absent
   */
  async step(
    tokens: Int32Array,
    labels: Int32Array,
    size: { microBatches: number; batch: number; time: number; update: Update | null; roles?: Int32Array },
  ): Promise<StepResult> {
    const { microBatches, batch, time, update, roles = null } = size;
    requireLength('step', tokens, microBatches * batch * time);
    requireLength('step', labels, microBatches * batch * time);
    if (roles) requireLength('step', roles, microBatches * batch * time);
    const nativeUpdate = update && {
      learning_rate: update.learningRate,
      weight_decay: update.weightDecay,
      clip_norm: update.clipNorm,
      beta1: update.beta1,
      beta2: update.beta2,
      epsilon: update.epsilon,
      momentum: update.momentum ?? 0,
      average: update.average ?? 0,
      update: update.update,
    };
    const result = emptyResult();
    await this.#call('malc_step', tokens, labels, roles, microBatches, batch, time, nativeUpdate, result);
    return readResult(result);
  }

  /** The loss of [batch][time] tokens, without gradients. */
  async evaluate(tokens: Int32Array, labels: Int32Array, size: CallSize): Promise<StepResult> {
    requireLength('evaluate', tokens, size.batch * size.time);
    requireLength('evaluate', labels, size.batch * size.time);
    const result = emptyResult();
    await this.#call('malc_evaluate', tokens, labels, size.roles ?? null, size.batch, size.time, result);
    return readResult(result);
  }

  /** Logits of every position: [batch][time][vocabulary]. */
  async forward(tokens: Int32Array, size: CallSize): Promise<Float32Array> {
    requireLength('forward', tokens, size.batch * size.time);
    const logits = new Float32Array(size.batch * size.time * this.vocabularySize);
    await this.#call('malc_forward', tokens, size.roles ?? null, size.batch, size.time, logits);
    return logits;
  }

  /**
   * Appends the first tokens of each sequence, as many as its count says, to its key-value cache at its start, and returns
   * the logits that follow the last of them: [batch][vocabulary], zeros where the count is 0. A start of 0 begins a new
   * text; any other goes on where the text's last call ended, or, unless the model has a recurrent state, before.
   */
  async decode(tokens: Int32Array, size: DecodeSize): Promise<Float32Array> {
    const { batch, time, starts, counts, roles } = this.#checkDecoding('decode', tokens, size);
    const logits = new Float32Array(batch * this.vocabularySize);
    await this.#call('malc_decode', tokens, roles, batch, time, starts, counts, logits);
    return logits;
  }

  /** Whether the program chooses tokens itself, so that logits need not leave its device. */
  get chooses(): boolean {
    return this.#native.malc_chooses() === 1;
  }

  /**
   * Does what `decode` does, and chooses the token that follows each sequence's last as its sampler says, with the numbers
   * that `sampleToken` draws: [batch], -1 where the count is 0 and `NOT_A_NUMBER` where a logit is none. The text that the
   * repetition penalty sees is what calls have brought since its start. Only where the program `chooses`.
   */
  async choose(tokens: Int32Array, size: DecodeSize, samplers: readonly SamplerOptions[]): Promise<Int32Array> {
    const { batch, time, starts, counts, roles } = this.#checkDecoding('choose', tokens, size);
    if (samplers.length !== batch) throw new Error(`choose: ${batch} samplers expected, ${samplers.length} given`);
    for (const { seed } of samplers) requireSeed(seed);
    const chosen = new Int32Array(batch);
    const given = samplers.map(nativeSampler);
    await this.#call('malc_choose', tokens, roles, batch, time, starts, counts, given, chosen);
    return chosen;
  }

  /** Time and calls of each launch since the model was opened or the profile reset; none without a profile. */
  profile(): LaunchTime[] {
    const pointer = this.#open();
    return Array.from({ length: this.#native.malc_profile_count() }, (_, launch) => ({
      name: this.#native.malc_profile_name(launch),
      seconds: this.#native.malc_profile_seconds(pointer, launch),
      calls: Number(this.#native.malc_profile_calls(pointer, launch)),
    }));
  }

  resetProfile(): void {
    this.#native.malc_profile_reset(this.#open());
  }

  /** Frees the native memory. Afterwards every method throws, and arrays of `parameters` must not be touched. */
  close(): void {
    if (this.#pointer === null) return;
    if (this.#running) throw new Error(`the model cannot be closed while ${this.#running} runs`);
    this.#native.malc_destroy(this.#pointer);
    this.#pointer = null;
    this.#parameters = null;
  }

  #open(): Pointer {
    if (this.#pointer === null) throw new Error('the model was closed');
    return this.#pointer;
  }

  #checkDecoding(method: string, tokens: Int32Array, size: DecodeSize) {
    const { batch, time, starts, counts = null, roles = null } = size;
    requireLength(method, tokens, batch * time);
    requireLength(method, starts, batch, 'starts');
    if (counts) requireLength(method, counts, batch, 'counts');
    if (roles) requireLength(method, roles, batch * time, 'roles');
    return { batch, time, starts, counts, roles };
  }

  /** Runs one native function off the main thread. malc.h allows one call at a time; a second is a fault of the caller. */
  async #call(name: keyof Functions, ...values: unknown[]): Promise<void> {
    const pointer = this.#open();
    if (this.#running)
      throw new Error(`${name} was called while ${this.#running} runs; a model does one thing at a time`);
    this.#running = name;
    try {
      if (this.#isStale) await callAsync(this.#native.malc_refresh, pointer);
      this.#isStale = false;
      const code = await callAsync(this.#native[name], pointer, ...values);
      if (code !== OK) throw new Error(`${name}: ${this.#native.malc_message(pointer)}`);
    } finally {
      this.#running = null;
    }
  }
}

function loadFunctions(libraryPath: string): Functions {
  const native = loadLibrary(libraryPath, PROTOTYPES);
  const abi = native.malc_abi();
  if (abi !== ABI) throw new Error(`${libraryPath} speaks version ${abi} of malc.h, this program version ${ABI}`);
  return native;
}

function describeParameter(native: Functions, open: () => Pointer, index: number): WritableParameter {
  const shape = Array.from({ length: native.malc_parameter_rank(index) }, (_, axis) =>
    Number(native.malc_parameter_dimension(index, axis)),
  );
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  const name: string = native.malc_parameter_name(index);
  const views: (Float32Array | undefined)[] = [];
  /** The address is asked for each time: on a device it is then that a copy is brought up to date. */
  const view = (what: number): Float32Array | null => {
    const address: Pointer | null = native.malc_parameter_address(open(), index, what);
    if (!address) return null;
    views[what] ??= viewFloats(address, size);
    return views[what];
  };
  return {
    name,
    shape,
    decays: native.malc_parameter_decays(index) === 1,
    trained: native.malc_parameter_trained(index) === 1,
    moments: native.malc_parameter_moments(index),
    get data() {
      const data = view(DATA);
      if (!data) throw new Error(`parameter ${name} cannot be read: ${native.malc_message(open())}`);
      return data;
    },
    get gradient() {
      return view(GRADIENT);
    },
    get firstMoment() {
      return view(FIRST_MOMENT);
    },
    get secondMoment() {
      return view(SECOND_MOMENT);
    },
    get average() {
      return view(AVERAGE);
    },
  };
}

function readResult(result: NativeResult): StepResult {
  const { loss, gradient_norm: gradientNorm, auxiliary, scored } = result;
  return { loss, gradientNorm, auxiliary, scored: Number(scored) };
}

function requireLength(method: string, values: Int32Array, expected: number, what = 'tokens'): void {
  if (values.length !== expected) throw new Error(`${method}: ${expected} ${what} expected, ${values.length} given`);
}
