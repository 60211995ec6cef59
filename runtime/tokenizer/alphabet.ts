// The byte alphabet of GPT-2: each of the 256 bytes as one printable character, so that JSON can spell any bytes.
// Printable bytes of Latin-1 stand for themselves; the 68 others take the characters from U+0100 on, in order.
// Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.

const printable = (byte: number) =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

/** The character of each byte. */
export const byteCharacters: readonly string[] = (() => {
  let other = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : other++));
})();

const characterBytes = new Map(byteCharacters.map((character, byte) => [character, byte]));

/** The 256 characters in the order of their code points: the order in which trainers of byte-level BPE number them. */
export const alphabet: readonly string[] = [...byteCharacters].sort((a, b) => (a < b ? -1 : 1));

/** The bytes that a spelling stands for, or null where it holds a character outside the alphabet. */
export function spelledBytes(spelling: string): Uint8Array | null {
  const bytes = new Uint8Array(spelling.length);
  for (let i = 0; i < spelling.length; i++) {
    const byte = characterBytes.get(spelling[i]!);
    if (byte === undefined) return null;
    bytes[i] = byte;
  }
  return bytes;
}

/** A text's UTF-8 in characters of the alphabet. */
export function bytesSpelled(text: string): string {
  let spelling = '';
  for (const byte of Buffer.from(text)) spelling += byteCharacters[byte];
  return spelling;
}
