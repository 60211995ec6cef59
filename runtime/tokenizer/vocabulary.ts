// The tokens of a tokenizer, by id and by spelling: those of the model, and the added ones.

export class Vocabulary {
  /** The spelling of each id; undefined where an id is not used. */
  readonly tokens: readonly (string | undefined)[];
  readonly #ids: ReadonlyMap<string, number>;

  constructor(tokens: readonly (string | undefined)[]) {
    this.tokens = tokens;
    const ids = new Map<string, number>();
    tokens.forEach((token, id) => {
      if (token !== undefined) ids.set(token, id);
    });
    this.#ids = ids;
  }

  /** One more than the largest id. */
  get size(): number {
    return this.tokens.length;
  }

  id(token: string): number | undefined {
    return this.#ids.get(token);
  }
}
