// What devices can do at most by their data sheets, which shares of the peak (MFU) are of.

/** Dense bf16 products summed in float32, operations a second: NVIDIA's data sheets, of the SXM modules. */
const peaks: readonly (readonly [name: RegExp, operations: number])[] = [
  [/\b(?:H100|H200|GH200)\b/, 989.4e12],
  [/\bA100\b/, 311.9e12],
  [/\bB200\b/, 2250e12],
];

/** The peak of a device by the name that its driver gives; null where none is known. */
export function peakOf(name: string): number | null {
  return peaks.find(([pattern]) => pattern.test(name))?.[1] ?? null;
}
