// The commands, in the order in which a user meets them.
import { bench } from './bench.ts';
import { check } from './check.ts';
import type { Command } from './command.ts';
import { compile } from './compile.ts';
import { completionOf } from './completion.ts';
import { data } from './data.ts';
import { doctor } from './doctor.ts';
import { explain } from './explain.ts';
import { exportModel } from './export.ts';
import { fmt } from './fmt.ts';
import { generate } from './generate.ts';
import { importModel } from './import.ts';
import { info } from './info.ts';
import { quickstart } from './quickstart.ts';
import { show } from './show.ts';
import { sweep } from './sweep.ts';
import { train } from './train.ts';
import { trainTokenizer } from './train-tokenizer.ts';
import { verify } from './verify.ts';

const work: readonly Command[] = [
  quickstart,
  check,
  fmt,
  info,
  explain,
  compile,
  trainTokenizer,
  data,
  train,
  sweep,
  show,
  generate,
  importModel,
  exportModel,
  verify,
  bench,
  doctor,
];

export const commands: readonly Command[] = [...work, completionOf(work)];
