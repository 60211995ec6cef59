// What layers keep from one decoding call to the next: caches that grow by the call's positions, and states that each call
// replaces.
import { context, type Dimension, sequences } from '../graph/dimension.ts';
import type { Node, Output } from '../graph/graph.ts';
import { append } from '../ops/append.ts';
import type { Site } from './site.ts';

/** Memory of a layer: input `cache.NAME` of its decoding graph. */
export interface Cache {
  readonly name: string;
  readonly dimensions: readonly Dimension[];
  /** A state is read under its name and left as output `next.NAME`; other caches are written in place. */
  readonly isState: boolean;
}

export class Decoding {
  readonly caches: Cache[] = [];
  /** The states after the call. */
  readonly outputs: Output[] = [];
  private readonly site: Site;

  constructor(site: Site) {
    this.site = site;
  }

  /** Position of each text's first new token. */
  get starts(): Node {
    return this.site.shared('starts');
  }

  /** Where each text's new tokens end among those of all. */
  get ends(): Node {
    return this.site.shared('ends');
  }

  /** The cache of all positions so far, after this call's [batch, time, ...] were written into it. */
  append(name: string, fresh: Node): Node {
    const { builder } = this.site;
    const cache = this.declare(name, [sequences, context, ...fresh.dimensions.slice(2)], false);
    return builder.suffixed('_cache', () => builder.apply(append, [cache, fresh, this.starts, this.ends], null));
  }

  /** Each text's state before this call: zeros at its start. `next` makes of it what the next call reads. */
  state(name: string, dims: readonly Dimension[], next: (state: Node) => Node): Node {
    const state = this.declare(name, [sequences, ...dims], true);
    this.outputs.push({ name: `next.${name}`, node: next(state), accumulate: false });
    return state;
  }

  private declare(name: string, dimensions: readonly Dimension[], isState: boolean): Node {
    this.caches.push({ name, dimensions, isState });
    return this.site.builder.input(`cache.${name}`, dimensions);
  }
}
