// What layers keep from one decoding call to the next: caches that grow by the call's positions, and states that each call
// replaces.
import { batch, context, type Dimension } from '../graph/dimension.ts';
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

  /** Position of the call's first token. */
  get start(): Node {
    return this.site.shared('start');
  }

  /** The cache of all positions so far, after this call's [batch, time, ...] were written into it. */
  append(name: string, fresh: Node): Node {
    const { builder } = this.site;
    const cache = this.declare(name, [batch, context, ...fresh.dimensions.slice(2)], false);
    return builder.suffixed('_cache', () => builder.apply(append, [cache, fresh, this.start], null));
  }

  /** The state before this call: zeros at the start of a text. `next` makes of it what the next call reads. */
  state(name: string, dims: readonly Dimension[], next: (state: Node) => Node): Node {
    const state = this.declare(name, dims, true);
    this.outputs.push({ name: `next.${name}`, node: next(state), accumulate: false });
    return state;
  }

  private declare(name: string, dimensions: readonly Dimension[], isState: boolean): Node {
    this.caches.push({ name, dimensions, isState });
    return this.site.builder.input(`cache.${name}`, dimensions);
  }
}
