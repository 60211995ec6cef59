// Emits within-capacity: one pass over the choices in the order of the tokens, counting what each expert took.

import { countText } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { ownName } from '../../emission/writer.ts';
import type { CapacityAttributes } from '../../ops/within-capacity.ts';
import { parameterList } from './kernel-source.ts';
import { type Emit, input, output } from './simple.ts';

export const withinCapacity: Emit = (writer, node, name) => {
  const [index] = node.inputs;
  const { experts, limit } = node.attributes as CapacityAttributes;
  const [from, to] = [name(index!), name(node)];
  const tokens = countText(node.dimensions.slice(0, -1));
  const list = [...sizeArguments([node.dimensions]), input(index!, from), output(node, to)];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    writer.line(`int64_t taken[${experts}] = { 0 };`);
    writer.line(`const int64_t capacity = (int64_t)ceil(${limit} * (double)(${tokens}));`);
    writer.line(`for (int64_t n = 0; n < ${countText(node.dimensions)}; n++)`);
    writer.inner(() => writer.line(`${to}[n] = taken[${from}[n]]++ < capacity ? 1.0f : 0.0f;`));
  });
  return list;
};
