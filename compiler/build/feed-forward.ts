// The feed-forward network as graph: down(act(gate(x)) * up(x)), or without a gate down(act(up(x))).
import type { FeedForward } from '../check/model.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { mapWide, plus } from '../ops/map.ts';
import { multiply, operand } from '../scalar/expression.ts';
import { dropout } from './dropout.ts';
import { buildExperts } from './experts.ts';
import { applyFormula, linear } from './layers.ts';
import type { Site } from './site.ts';

/** The network of a block, back in the stream: one that every token passes, or experts. */
export function buildFeedForward(site: Site, ffn: FeedForward, x: Node, hidden: Dimension): Node {
  if (ffn.moe === null) return network(site, ffn, 'mlp', ffn.hidden_dim, x, hidden);
  const { shared_experts: count } = ffn.moe;
  const routed = buildExperts(site, ffn, ffn.moe, x, hidden);
  if (count === 0) return routed;
  // Experts that every token passes are one network as wide as they are together.
  const shared = network(site, ffn, 'mlp.shared_experts', count * ffn.hidden_dim, x, hidden);
  return site.builder.within('experts_output', ffn.origin, () => plus(site.builder, routed, shared));
}

function network(site: Site, ffn: FeedForward, name: string, size: number, x: Node, hidden: Dimension): Node {
  const { builder } = site;
  const { origin, bias } = ffn;
  const width = dimension('ffn', size);
  const inner = activated(site, ffn, (label, part) =>
    builder.within(label, origin, () => linear(site, `${name}.${part}`, x, [hidden], [width], { bias })),
  );
  return builder.within('feed_forward_output', origin, () =>
    linear(site, `${name}.down_proj`, inner, [width], [hidden], { bias, residual: true }),
  );
}

/** The values that go down again; `project` makes the gate and what it is multiplied with. */
export function activated(site: Site, ffn: FeedForward, project: (label: string, part: string) => Node): Node {
  const { builder } = site;
  const { activation, gate: isGated, origin } = ffn;
  const label = isGated ? 'gated' : 'activated';
  const [first, second] = isGated
    ? [project('gate', 'gate_proj'), project('up', 'up_proj')]
    : [project('up', 'up_proj')];
  return builder.within(label, origin, () => {
    const activate = () => applyFormula(site, activation, [first!]);
    const value = second ? builder.within('opened_gate', origin, activate) : activate();
    const product = second ? mapWide(builder, multiply(operand(0), operand(1)), [value, second]) : value;
    return dropout(site, product, ffn.dropout);
  });
}
