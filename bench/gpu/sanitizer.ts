// The part that looks for what tests do not see: compute-sanitizer over training steps of small models.
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { call, lastLines, programWords } from './programs.ts';

interface Sanitized extends Item {
  readonly tool: string;
  readonly model: string;
  /** The tool's own summary. */
  readonly summary: string;
}

/** Small enough for racecheck, which makes programs a hundred times slower. */
const configurations = [
  ['nano:2:48', 'f32'],
  ['nano:2:48', 'bf16'],
  ['hybrid-tiny:1:48', 'bf16'],
] as const;
const tools = ['memcheck', 'racecheck', 'synccheck'] as const;
/** For one tool on one model. */
const SECONDS = 60;

export const sanitizer: Part = {
  name: 'sanitizer',
  title: 'compute-sanitizer',
  seconds: 90,
  async measure({ dry, report }) {
    const { code } = await call('compute-sanitizer', ['--version'], { seconds: 30 });
    const isThere = code === 0 && !dry;
    for (const tool of isThere ? tools : tools.slice(0, 1))
      for (const [model, dtype] of isThere ? configurations : configurations.slice(0, 1)) {
        const program = [process.execPath, ...programWords('bench/gpu/run.ts'), '--turn', model, '--dtype', dtype];
        // Without the tool the program alone shows that it runs.
        const watched = isThere ? ['compute-sanitizer', '--tool', tool, '--error-exitcode', '9', ...program] : program;
        const words = [...watched.slice(1), ...(dry ? ['--dry'] : [])];
        const { code, output } = await call(watched[0]!, words, { seconds: SECONDS });
        const summary = /(?:ERROR|RACECHECK) SUMMARY: .*/.exec(output)?.[0] ?? (isThere ? 'no summary' : 'not there');
        const failed = code === 0 ? null : lastLines(output, 20);
        report<Sanitized>({ tool, model: `${model} ${dtype}`, summary, failed });
      }
  },
  table: items =>
    markdownTable(
      ['tool', 'model', 'found'],
      (items as readonly Sanitized[]).map(({ tool, model, summary }) => [tool, model, summary]),
    ),
};
