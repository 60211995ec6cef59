// The closed set of primitives. Everything else in the language is composed of these.
import type { Primitive } from '../graph/graph.ts';
import { append } from './append.ts';
import { attention } from './attention.ts';
import { attentionGradient } from './attention-gradient.ts';
import { contract } from './contract.ts';
import { contractEach } from './contract-each.ts';
import { convolution } from './convolution.ts';
import { convolutionGradient } from './convolution-gradient.ts';
import { gather } from './gather.ts';
import { grouped } from './grouped.ts';
import { groupedGradient } from './grouped-gradient.ts';
import { map } from './map.ts';
import { pad } from './pad.ts';
import { pair } from './pair.ts';
import { random } from './random.ts';
import { recent } from './recent.ts';
import { reduce } from './reduce.ts';
import { scan } from './scan.ts';
import { scanGradient } from './scan-gradient.ts';
import { scatterAdd } from './scatter-add.ts';
import { slice } from './slice.ts';
import { topK } from './top-k.ts';
import { withinCapacity } from './within-capacity.ts';

export const primitives = [
  map,
  reduce,
  contract,
  gather,
  scatterAdd,
  pair,
  pad,
  slice,
  random,
  attention,
  attentionGradient,
  append,
  convolution,
  convolutionGradient,
  recent,
  scan,
  scanGradient,
  topK,
  withinCapacity,
  grouped,
  groupedGradient,
  contractEach,
] as unknown as readonly Primitive[];
