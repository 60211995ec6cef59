// What is chosen for the products of a launch where it is not the cost model's first choice: runtime/autotune-cuda.ts measures.

export interface ProductChoice {
  /** Whether cuBLASLt multiplies, where the machine that runs the program has it. */
  readonly library?: boolean;
}
