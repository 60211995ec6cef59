// What a plot is: a story as text with choices and slots.

export interface Plot {
  /** Slots of the plot's own. Of each list one record is dealt; its slots go together. */
  readonly deals: readonly (readonly Readonly<Record<string, string>>[])[];
  /**
   * Paragraphs with blank lines between them: choices are `[one|another]`, slots `{hero}`. The first paragraph follows
   * on an opening that has named the hero; the last is the moral.
   */
  readonly text: string;
}

/** The deals for a single slot: one of these words. */
export const oneOf = (slot: string, words: string) => words.split(', ').map(word => ({ [slot]: word }));
