// Dropout (Srivastava et al. 2014): in training, elements are zero with a probability and the others grow by as much, so
// that their mean stays. The random numbers depend on the step and on each element's place, on nothing else.
import type { Node } from '../graph/graph.ts';
import { mapWide } from '../ops/map.ts';
import { random } from '../ops/random.ts';
import { apply, constant, multiply, operand, select } from '../scalar/expression.ts';
import type { Site } from './site.ts';

/** x with a share of its elements dropped, at a place of its own; x itself where nothing is dropped. */
export function dropout(site: Site, x: Node, share: number): Node {
  if (share === 0 || site.decoding) return x;
  const { builder } = site;
  const attributes = { dimensions: x.dimensions, site: site.nextSite() };
  const drawn = builder.suffixed('_draw', () => builder.apply(random, [site.shared('noise')], attributes));
  const kept = select(apply('less', operand(1), constant(share)), constant(0), constant(1 / (1 - share)));
  return builder.suffixed('_kept', () =>
    mapWide(builder, multiply(operand(0), select(operand(2), kept, constant(1))), [x, drawn, site.shared('training')]),
  );
}
