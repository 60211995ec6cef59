// The closed set of primitives. Everything else in the language is composed of these.
import type { Primitive } from '../graph/graph.ts';
import { append } from './append.ts';
import { attention } from './attention.ts';
import { attentionGradient } from './attention-gradient.ts';
import { contract } from './contract.ts';
import { gather } from './gather.ts';
import { map } from './map.ts';
import { pair } from './pair.ts';
import { reduce } from './reduce.ts';
import { scatterAdd } from './scatter-add.ts';

export const primitives = [
  map,
  reduce,
  contract,
  gather,
  scatterAdd,
  pair,
  attention,
  attentionGradient,
  append,
] as unknown as readonly Primitive[];
