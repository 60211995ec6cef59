// How fast tokenizers are trained and texts encoded: node --import tsx bench/tokenizer.ts TEXT [VOCABULARY]
//
// One line of JSON for each: seconds, megabytes a second of text, processor seconds of all threads, and the most memory
// that the process took until then. bench/peers/against_tokenizers.py does the same with the Hugging Face library.
import { statSync } from 'node:fs';
import { readTextPieces } from '../runtime/data/text-pieces.ts';
import { cutFor, encodePieces } from '../runtime/tokenizer/encode.ts';
import { lineCut } from '../runtime/tokenizer/split.ts';
import { trainTokenizerInThreads } from '../runtime/tokenizer/train.ts';

const [path, vocabulary = '32000'] = process.argv.slice(2);
if (path === undefined) throw new Error('usage: node --import tsx bench/tokenizer.ts TEXT [VOCABULARY]');
const bytes = statSync(path).size;

async function measured<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  const start = performance.now();
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - start) / 1000;
  console.log(
    JSON.stringify({
      name,
      seconds: Number(seconds.toFixed(2)),
      megabytesPerSecond: Number((bytes / 1e6 / seconds).toFixed(1)),
      processorSeconds: Number(((user + system) / 1e6).toFixed(2)),
      peakMegabytes: Math.round(process.resourceUsage().maxRSS / 1000),
    }),
  );
  return result;
}

const tokenizer = await measured('train', () =>
  trainTokenizerInThreads(readTextPieces(path, lineCut), { vocabSize: Number(vocabulary) }),
);
async function* pieces() {
  for await (const text of readTextPieces(path!, cutFor(tokenizer))) yield { text, breaks: [] };
}
await measured('encode', async () => {
  let tokens = 0;
  for await (const ids of encodePieces(pieces(), tokenizer, bytes)) tokens += ids.length;
  return tokens;
});
