// Colour on terminals only: NO_COLOR and FORCE_COLOR are obeyed, and a pipe gets plain text.
import { inspect } from 'node:util';

export type Color = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Whether text for this stream may be coloured (no-color.org). */
export function hasColor(stream: NodeJS.WriteStream): boolean {
  if (process.env.NO_COLOR) return false;
  if (process.env.FORCE_COLOR) return process.env.FORCE_COLOR !== '0';
  return stream.isTTY === true && process.env.TERM !== 'dumb';
}

/** The text in a colour, where stdout shows colours. */
export function paint(color: Color, text: string): string {
  if (!hasColor(process.stdout)) return text;
  const [on, off] = inspect.colors[color]!;
  return `\u001b[${on}m${text}\u001b[${off}m`;
}
