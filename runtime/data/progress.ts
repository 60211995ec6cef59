// How far data is: what takes long on the way from files to tokens.

/** Bytes of what is fetched or of text, or, while a tokenizer is learned (`merge`), its tokens. */
export interface DataProgress {
  readonly phase: 'fetch' | 'read' | 'count' | 'merge' | 'tokenize';
  readonly done: number;
  /** Null where nobody knows. */
  readonly total: number | null;
}

/** Is told how far data is. */
export type OnProgress = (progress: DataProgress) => void;
