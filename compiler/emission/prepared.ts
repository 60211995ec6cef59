// Prepared weights: forms of parameters that products read instead of the float32 values, kept beside them and made again
// whenever those change. Which forms a program needs is known once all its functions are emitted.

/** When a form exists. */
export type Need = 'never' | 'always' | 'training';

/** What the functions read of one parameter. */
export interface Prepared<Way extends string> {
  /** Rows of the matrix that they read it as: elements of the dimensions that come first. */
  readonly rows: number;
  readonly needs: Readonly<Record<Way, Need>>;
}

/** The forms that functions read, by the names of parameters that tell them apart. */
export class PreparedWeights<Way extends string> {
  private readonly byName = new Map<string, Prepared<Way>>();
  private readonly ways: readonly Way[];

  /** @param ways in which this target's products read weights, each from a form of its own */
  constructor(ways: readonly Way[]) {
    this.ways = ways;
  }

  /**
   * @param name tells the parameter from those of other stages
   * @param need `training` where only training runs the function
   */
  add(name: string, { way, rows }: { readonly way: Way; readonly rows: number }, need: 'always' | 'training'): void {
    const none = Object.fromEntries(this.ways.map(each => [each, 'never'])) as Record<Way, Need>;
    const known = this.byName.get(name) ?? { rows, needs: none };
    if (known.rows !== rows) throw new Error(`${name} is read as ${rows} rows and as ${known.rows}`);
    const before = known.needs[way];
    this.byName.set(name, { rows, needs: { ...known.needs, [way]: before === 'always' ? before : need } });
  }

  /** Undefined where products read it in no form. */
  get(name: string): Prepared<Way> | undefined {
    return this.byName.get(name);
  }

  get isEmpty(): boolean {
    return this.byName.size === 0;
  }
}
