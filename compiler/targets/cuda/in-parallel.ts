// Processes side by side: compilers of several files, as many at once as there are cores.
import { availableParallelism } from 'node:os';

/** Runs a task for each item, at most as many at once as there are cores; results in the items' order. */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  task: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < items.length) {
      const number = next++;
      results[number] = await task(items[number]!);
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), items.length) }, work));
  return results;
}
