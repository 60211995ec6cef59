// What a part of the GPU run is: a process of its own with a time limit, that reports items as it finds them.

/** One thing that a part found: plain data, and why it is not as it should be. */
export interface Item {
  /** Null or absent where all is well. */
  readonly failed?: string | null;
}

/** What a part is given. */
export interface Context {
  /** True where there is no GPU and everything runs in small on the CPU, to try the run itself. */
  readonly dry: boolean;
  /** Seconds until the part is ended, whatever it does. */
  readonly seconds: number;
  /** Keeps an item: it is in the results even if the part dies right after. */
  readonly report: <T extends Item>(item: T) => void;
}

export interface Part {
  readonly name: string;
  /** The heading of its table. */
  readonly title: string;
  /** The most seconds that it takes; less where the run has less left. */
  readonly seconds: number;
  readonly measure: (context: Context) => Promise<void>;
  /** Markdown of what it reported. */
  readonly table: (items: readonly Item[]) => string;
}

/** A part as it went. */
export interface PartResult {
  readonly name: string;
  /** `cut off`: it was still running at its limit; `not run`: no time was left. */
  readonly status: 'running' | 'done' | 'failed' | 'cut off' | 'not run';
  readonly seconds: number;
  readonly items: readonly Item[];
  /** The end of what it printed, where it failed. */
  readonly output: string | null;
  /** Mean of the device's clock in MHz and power in watts meanwhile; null where nothing tells them. */
  readonly clock: { readonly mhz: number; readonly watts: number } | null;
}

/** A Markdown table; numbers stand to the right. */
export function markdownTable(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const isNumber = columns.map((_, n) => rows.length > 0 && rows.every(row => /^[-\d.,% ]*$/.test(String(row[n]))));
  const lines = [columns, isNumber.map(right => (right ? '--:' : '---')), ...rows];
  return lines.map(cells => `| ${cells.map(cell => String(cell).replaceAll('|', '\\|')).join(' | ')} |`).join('\n');
}
