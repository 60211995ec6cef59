// TensorBoard's event files: framed and summed as TFRecords are, and holding what was told.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EventFile } from '../runtime/train/event-file.ts';

const test = suite('event file');

/** CRC-32C bit by bit, masked. */
function checksum(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0);
  }
  sum = ~sum >>> 0;
  return (((sum >>> 15) | (sum << 17)) + 0xa282ead8) >>> 0;
}

/** The events of a file, once its checksums have been held against others. */
function eventsOf(bytes: Buffer): Buffer[] {
  const events: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    assert.is(bytes.readUInt32LE(at + 8), checksum(bytes.subarray(at, at + 8)));
    const event = bytes.subarray(at + 12, at + 12 + length);
    assert.is(bytes.readUInt32LE(at + 12 + length), checksum(event));
    events.push(event);
    at += 16 + length;
  }
  return events;
}

/** Fields of a message, by number; numbers and bytes, as their wire type says. */
function fieldsOf(bytes: Buffer): (readonly [field: number, value: number | Buffer])[] {
  const fields: (readonly [number, number | Buffer])[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) fields.push([field, varint()]);
    else {
      const length = wire === 2 ? varint() : wire === 1 ? 8 : 4;
      fields.push([field, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return fields;
}

const field = (bytes: Buffer, number: number) => fieldsOf(bytes).find(([n]) => n === number)?.[1];

test('scalars and texts stand in it, after a start at the first step', () => {
  const folder = mkdtempSync(join(tmpdir(), 'malc-events-'));
  try {
    const file = new EventFile(folder, 301);
    const usual = { gradient_norm: 0.5, learning_rate: 1e-3, tokens: 99, seconds: 0.25, memory_bytes: 2 ** 33 };
    file.step({ step: 301, loss: 2.5, validation_loss: 2.75, ...usual });
    file.sample(301, 'Once upon a time …');
    file.close();
    const [name] = readdirSync(folder);
    assert.match(name!, /^events\.out\.tfevents\.\d{10}\./);
    const [version, start, step, sample] = eventsOf(readFileSync(join(folder, name!))) as [
      Buffer,
      Buffer,
      Buffer,
      Buffer,
    ];
    assert.is(String(field(version, 3)), 'brain.Event:2');
    assert.equal([field(start, 2), field(field(start, 7) as Buffer, 1)], [301, 1]);
    const values = fieldsOf(field(step, 5) as Buffer).map(([, value]) => value as Buffer);
    const scalars = values.map(value => [String(field(value, 1)), (field(value, 2) as Buffer).readFloatLE()]);
    assert.equal(Object.fromEntries(scalars), {
      'loss/train': 2.5,
      'loss/validation': 2.75,
      'step/gradient_norm': 0.5,
      'step/learning_rate': Math.fround(1e-3),
      'step/seconds': 0.25,
      'step/memory_bytes': 2 ** 33,
    });
    const text = field(field(sample, 5) as Buffer, 1) as Buffer;
    assert.is(String(field(field(text, 8) as Buffer, 8)), 'Once upon a time …');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
