// A text with its tokens made visible: by backgrounds that alternate where there are colors, by bars where there are none.

const BACKGROUNDS = ['48;5;24', '48;5;58'];
/** What would break the line, or not be seen. */
const marks: Readonly<Record<string, string>> = { '\n': '⏎', '\t': '⇥', '\r': '␍' };

/** @param pieces the text of each token */
export function showTokens(pieces: readonly string[], colored: boolean): string {
  const visible = pieces.map(piece => piece.replace(/[\n\t\r]/g, mark => marks[mark]!));
  if (!colored) return visible.join('|');
  return visible.map((piece, n) => `\u001b[${BACKGROUNDS[n % BACKGROUNDS.length]}m${piece}\u001b[0m`).join('');
}
