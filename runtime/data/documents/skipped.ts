// What is left out of the data, counted, and the first of it shown with its place.

const SHOWN = 5;

export class Skipped {
  #count = 0;
  readonly #show: (line: string) => void;

  constructor(show: (line: string) => void) {
    this.#show = show;
  }

  /** To be told of each line or row that is left out. */
  readonly tell = (place: string, why: string): void => {
    this.#count += 1;
    if (this.#count <= SHOWN) this.#show(`${place}: skipped: ${why}`);
  };

  /** Says how many there were, where there were any. */
  report(): void {
    if (this.#count > SHOWN) this.#show(`... and ${(this.#count - SHOWN).toLocaleString('en')} more were skipped`);
    if (this.#count > 0)
      this.#show(`${this.#count.toLocaleString('en')} in all were skipped; --strict refuses the first of them`);
  }
}
