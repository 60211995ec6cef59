// Emits the maps of a kernel for one element: each as a local constant, in the order in which they are needed.
import type { Node } from '../graph/graph.ts';
import type { MapAttributes } from '../ops/map.ts';
import type { PadAttributes } from '../ops/pad.ts';
import type { PairAttributes } from '../ops/pair.ts';
import type { RandomAttributes } from '../ops/random.ts';
import type { SliceAttributes } from '../ops/slice.ts';
import type { Coordinates } from './index-text.ts';
import { offsetText } from './index-text.ts';
import { printScalar } from './scalar.ts';
import type { Writer } from './writer.ts';

export interface ElementOptions {
  /** Members of the kernel that are computed here, element by element. */
  readonly inside: ReadonlySet<Node>;
  /** The C text of an element of a value that is not computed here. */
  readonly read: (node: Node, at: Coordinates) => string;
  /** What a computed element is called. */
  readonly nameOf: (node: Node) => string;
  /** What an input as a whole is called. */
  readonly bufferOf: (node: Node) => string;
  /** In force inside the loop that is being written: how far each pair's partner is, or what its coordinate is. */
  readonly segment: ReadonlyMap<string, number | string>;
  /** As Spelling of scalar.ts has it. */
  readonly comparesIntegers?: boolean;
  /** Where a scope around this one computes elements too: its names are not taken again. */
  readonly outer?: Elements;
}

/** Emits into `writer`; values are remembered for the place that they were computed for. */
export class Elements {
  private readonly known = new Map<string, string>();
  private readonly used: Set<string>;
  private readonly writer: Writer;
  private readonly options: ElementOptions;

  constructor(writer: Writer, options: ElementOptions) {
    this.writer = writer;
    this.options = options;
    this.used = new Set(options.outer?.used);
  }

  /** The name or text of a node's element at these coordinates. */
  value(node: Node, at: Coordinates): string {
    if (node.primitive?.kernel === 'inline') return this.inline(node, at);
    if (!this.options.inside.has(node)) return this.options.read(node, at);
    if (node.primitive!.name === 'pair')
      return this.value(node.inputs[0]!, this.partnerOf(node.attributes as PairAttributes, at));
    const key = `${node.id}@${[...at].join()}`;
    const known = this.known.get(key);
    if (known) return known;
    const name = this.declare(this.fresh(this.options.nameOf(node)), this.expression(node, at));
    this.known.set(key, name);
    return name;
  }

  /** An element of what has no place in memory. */
  private inline(node: Node, at: Coordinates): string {
    const key = `${node.id}@${[...at].join()}`;
    const known = this.known.get(key);
    if (known) return known;
    const name = this.declare(this.fresh(this.options.nameOf(node)), this.inlineText(node, at));
    this.known.set(key, name);
    return name;
  }

  private inlineText(node: Node, at: Coordinates): string {
    const [input] = node.inputs as [Node];
    switch (node.primitive!.name) {
      case 'random': {
        const { site, dimensions } = node.attributes as RandomAttributes;
        const element = `(uint64_t)(${offsetText(dimensions.slice(1), at)})`;
        const place = `${at.get(dimensions[0]!.name)}, ${site}`;
        return `malc_uniform(${this.options.bufferOf(input)}, ${place}, (uint32_t)${element}, ${element} >> 32)`;
      }
      case 'slice': {
        const { dimension, from, to } = node.attributes as SliceAttributes;
        return this.value(input, moved(at, to.name, from, dimension));
      }
      case 'pad': {
        const { dimension, from, to } = node.attributes as PadAttributes;
        const here = at.get(to.name)!;
        const { size } = input.dimensions.find(dim => dim.name === dimension)!;
        const end = from + size! < to.size! ? [`${here} < ${from + size!}`] : [];
        const reached = [...(from > 0 ? [`${here} >= ${from}`] : []), ...end].join(' && ');
        return `${reached || 'true'} ? ${this.value(input, moved(at, to.name, -from, dimension))} : 0.0f`;
      }
    }
    throw new Error(`${node.primitive!.name} is not inline`);
  }

  /** What is stored for an element: its expression where nothing else reads it, else the constant that the others read. */
  stored(node: Node, at: Coordinates, readers: readonly Node[]): string {
    const isReadAgain = readers.some(reader => reader.inputs.includes(node));
    const isMap = this.options.inside.has(node) && node.primitive!.name === 'map';
    return isMap && !isReadAgain ? this.expression(node, at) : this.value(node, at);
  }

  /** The C expression of a map's element. */
  private expression(node: Node, at: Coordinates): string {
    const { expression } = node.attributes as MapAttributes;
    return printScalar(
      expression,
      {
        operand: index => this.value(node.inputs[index]!, at),
        coordinate: name => atom(at.get(name)!),
        comparesIntegers: this.options.comparesIntegers ?? false,
      },
      shared => this.declare(this.fresh('shared'), shared),
    );
  }

  /** The name, or one with a number where this scope has it already: an element and its partner. */
  private fresh(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.used.has(name); n++) name = `${wanted}_${n}`;
    this.used.add(name);
    return name;
  }

  private declare(name: string, text: string): string {
    if (/^[A-Za-z_]\w*$/.test(text)) return text;
    this.writer.line(`const float ${name} = ${text};`);
    return name;
  }

  private partnerOf({ dimension }: PairAttributes, at: Coordinates): Coordinates {
    const partner = this.options.segment.get(dimension) ?? 0;
    return typeof partner === 'string' ? new Map([...at, [dimension, partner]]) : moved(at, dimension, partner);
  }
}

/** The place so many positions on along a dimension, which may be called otherwise there. */
function moved(at: Coordinates, dimension: string, distance: number, there = dimension): Coordinates {
  const here = at.get(dimension)!;
  const place = distance === 0 ? here : `${here} ${distance < 0 ? '-' : '+'} ${Math.abs(distance)}`;
  return new Map([...[...at].filter(([name]) => name !== dimension), [there, place]]);
}

const atom = (text: string) => (/^\w+$/.test(text) ? text : `(${text})`);
