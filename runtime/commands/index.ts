// The commands, in the order in which a user meets them.
import { check } from './check.ts';
import type { Command } from './command.ts';
import { compile } from './compile.ts';
import { doctor } from './doctor.ts';
import { generate } from './generate.ts';
import { info } from './info.ts';
import { quickstart } from './quickstart.ts';
import { train } from './train.ts';
import { trainTokenizer } from './train-tokenizer.ts';

export const commands: readonly Command[] = [quickstart, check, info, compile, trainTokenizer, train, generate, doctor];
