// Emits top-k, by groups or over all scores, on top of templates/cpu/grouped.h.

import { countText } from '../../emission/index-text.ts';
import { sizeArguments } from '../../emission/kernel-outputs.ts';
import { ownName } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { TopKAttributes } from '../../ops/top-k.ts';
import { parameterList } from './kernel-source.ts';
import { parallelFor } from './loops.ts';
import { type Emit, input, output } from './simple.ts';

export const topK: Emit = (writer, node, name) => {
  const { chosen, groups, top_groups, group_score } = node.attributes as TopKAttributes;
  const [scores] = node.inputs as [Node];
  const [from, to] = [name(scores), name(node)];
  const candidates = scores.dimensions.at(-1)!.size!;
  const size = candidates / groups;
  const list = [...sizeArguments([scores.dimensions]), input(scores, from), output(node, to)];
  writer.block(`static void ${ownName}(${parameterList(list)})`, () => {
    parallelFor(writer, countText(scores.dimensions.slice(0, -1)), String(candidates));
    writer.loop('row', '0', countText(scores.dimensions.slice(0, -1)), () => {
      writer.line(`const float *row_scores = ${from} + row * ${candidates};`);
      writer.line(`int32_t *row_chosen = ${to} + row * ${chosen.size};`);
      if (top_groups === groups) {
        writer.line(`malc_top_k(row_chosen, ${chosen.size}, row_scores, ${candidates});`);
        return;
      }
      const count = group_score === 'top2' ? 2 : 1;
      writer.line(`float group_scores[${groups}], open_scores[${top_groups * size}];`);
      writer.line(`int32_t open[${top_groups}];`);
      writer.line(`for (int64_t g = 0; g < ${groups}; g++)`);
      writer.inner(() =>
        writer.line(`group_scores[g] = malc_group_score(row_scores + g * ${size}, ${size}, ${count});`),
      );
      writer.line(`malc_top_k(open, ${top_groups}, group_scores, ${groups});`);
      writer.line(`for (int64_t g = 0; g < ${top_groups}; g++)`);
      writer.inner(() =>
        writer.line(`memcpy(open_scores + g * ${size}, row_scores + open[g] * ${size}, ${size} * sizeof(float));`),
      );
      writer.line(`malc_top_k(row_chosen, ${chosen.size}, open_scores, ${top_groups * size});`);
      writer.line(`for (int64_t k = 0; k < ${chosen.size}; k++)`);
      writer.inner(() =>
        writer.line(`row_chosen[k] = open[row_chosen[k] / ${size}] * ${size} + row_chosen[k] % ${size};`),
      );
    });
  });
  return list;
};
