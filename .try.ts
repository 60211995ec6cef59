import { train } from './runtime/commands/train.ts';
import { generate } from './runtime/commands/generate.ts';
const [cmd, json] = process.argv.slice(2);
const command = cmd === 'train' ? train : generate;
const args: Record<string, unknown> = {};
for (const [n, o] of Object.entries(command.options)) if (o.default !== undefined) args[n] = o.default;
await command.run({ ...args, ...JSON.parse(json!) });
