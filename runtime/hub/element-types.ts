// The element types of safetensors: their sizes, and how the two halves become float32.

/** Bytes of one element. */
export const elementBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

export type Dtype = keyof typeof elementBytes;

export const isDtype = (value: unknown): value is Dtype =>
  typeof value === 'string' && Object.hasOwn(elementBytes, value);

/** The two-byte types that float32 holds exactly, each with what writes its elements, given as bits, as float32. */
export const widening: Partial<Record<Dtype, (bits: Uint16Array, into: Float32Array) => void>> = {
  F16(bits, into) {
    for (let i = 0; i < bits.length; i++) into[i] = fromHalf(bits[i]!);
  },
  BF16(bits, into) {
    // The upper half of a float32.
    const words = new Uint32Array(into.buffer, into.byteOffset, into.length);
    for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  },
};

/** IEEE 754 binary16: one bit of sign, five of exponent, ten of fraction. */
function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
