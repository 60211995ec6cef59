// Events for TensorBoard: a file of TFRecords, each an Event message of protocol buffers. Numbers of fields are those of
// tensorflow/core/util/event.proto and framework/summary.proto; framing is that of tensorflow/core/lib/io/record_writer.h.
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Journal, type StepRecord } from './metrics.ts';

/** What TensorBoard shows of a record, under these names. */
const SCALARS = {
  'loss/train': 'loss',
  'loss/validation': 'validation_loss',
  'loss/validation_bits_per_byte': 'validation_bits_per_byte',
  'loss/averaged_validation': 'averaged_validation_loss',
  'loss/auxiliary': 'auxiliary_loss',
  'step/gradient_norm': 'gradient_norm',
  'step/learning_rate': 'learning_rate',
  'step/seconds': 'seconds',
  'step/memory_bytes': 'memory_bytes',
} as const satisfies Record<string, Exclude<keyof StepRecord, 'validation_losses'>>;

/** The events of one process: of a run that is resumed the next file says that what came after its first step is void. */
export class EventFile {
  readonly #journal: Journal;

  /**
   * @param step the first step that is going to be written
   * @throws WriteError as the journal's, here and later.
   */
  constructor(folder: string, step: number) {
    const began = Math.floor(Date.now() / 1000);
    this.#journal = new Journal(join(folder, `events.out.tfevents.${began}.${hostname()}.${process.pid}`));
    this.#write(0, bytesField(3, Buffer.from('brain.Event:2')));
    const start = 1;
    this.#write(step, bytesField(7, numberField(1, start)));
  }

  step(record: StepRecord): void {
    const scalars = Object.entries(SCALARS).map(([tag, name]) => [tag, record[name]] as const);
    const sources = Object.entries(record.validation_losses ?? {}).map(
      ([name, loss]) => [`loss/validation/${name}`, loss] as const,
    );
    const values = [...scalars, ...sources].flatMap(([tag, value]) =>
      value === undefined ? [] : [bytesField(1, Buffer.concat([textField(1, tag), floatField(2, value)]))],
    );
    this.#write(record.step, bytesField(5, Buffer.concat(values)));
  }

  /** A text, as the plugin `text` shows it: a tensor of strings (type 7) with one element. */
  sample(step: number, text: string): void {
    const shape = bytesField(2, bytesField(2, numberField(1, 1)));
    const tensor = Buffer.concat([numberField(1, 7), shape, textField(8, text)]);
    const plugin = bytesField(1, textField(1, 'text'));
    const value = Buffer.concat([textField(1, 'sample'), bytesField(8, tensor), bytesField(9, plugin)]);
    this.#write(step, bytesField(5, bytesField(1, value)));
  }

  close(): void {
    this.#journal.close();
  }

  #write(step: number, what: Buffer): void {
    const time = Buffer.alloc(8);
    time.writeDoubleLE(Date.now() / 1000);
    const event = Buffer.concat([tagOf(1, 1), time, numberField(2, step), what]);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(event.length));
    this.#journal.append(Buffer.concat([length, maskedChecksum(length), event, maskedChecksum(event)]));
  }
}

// ---- Protocol buffers: https://protobuf.dev/programming-guides/encoding ----

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

const tagOf = (field: number, wire: number): Buffer => varint(field * 8 + wire);
const numberField = (field: number, value: number): Buffer => Buffer.concat([tagOf(field, 0), varint(value)]);
const bytesField = (field: number, value: Buffer): Buffer =>
  Buffer.concat([tagOf(field, 2), varint(value.length), value]);
const textField = (field: number, value: string): Buffer => bytesField(field, Buffer.from(value));

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tagOf(field, 5), bytes]);
}

// ---- CRC-32C (RFC 3720, appendix B.4), masked as TFRecords have it ----

const CHECKSUMS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

function maskedChecksum(bytes: Uint8Array): Buffer {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = (sum >>> 8) ^ CHECKSUMS[(sum ^ byte) & 0xff]!;
  sum = ~sum >>> 0;
  const masked = Buffer.alloc(4);
  masked.writeUInt32LE((((sum >>> 15) | (sum << 17)) + 0xa282ead8) >>> 0);
  return masked;
}
