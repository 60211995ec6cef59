// Position encodings as graph: rotary tables with their scalings, the rotation itself, and fixed sinusoids.
import type { PositionEncoding, RopeScaling } from '../check/model.ts';
import type { Builder } from '../graph/builder.ts';
import { type Dimension, time } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { mapOver, mapWide, plus } from '../ops/map.ts';
import { partners } from '../ops/pair.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  divide,
  multiply,
  negate,
  operand,
  type Scalar,
  select,
  subtract,
} from '../scalar/expression.ts';

export type Rope = Extract<PositionEncoding, { kind: 'rope' }>;

export interface RotaryTables {
  /** cos and signed sin of each position's angles: [time, head_dim]. */
  readonly cos: Node;
  readonly sin: Node;
}

/**
 * Tables of rotary position embedding (RoFormer, Su et al. 2021): pair i of a head turns by position * theta^(-2 i / dims).
 * In the half-split order of most checkpoints pair i is elements i and i + dims / 2; interleaved, 2 i and 2 i + 1.
 * @param positions of each token in its text, [time]
 * @param from the first element that turns: those before it and after its `dims` stay
 */
export function rotaryTables(
  builder: Builder,
  positions: Node,
  headDim: Dimension,
  { dims, theta, interleaved, scaling }: Rope,
  from: number,
): RotaryTables {
  const element = subtract(coordinate(headDim.name), constant(from));
  const isFirst = interleaved
    ? apply('equal', element, multiply(constant(2), apply('floor', multiply(constant(0.5), element))))
    : apply('less', element, constant(dims / 2));
  const pairIndex = interleaved
    ? apply('floor', multiply(constant(0.5), element))
    : select(isFirst, element, subtract(element, constant(dims / 2)));
  const angle = multiply(operand(0), scaledFrequency(pairIndex, dims, theta, scaling));
  const factor = constant(attentionFactor(scaling));
  const table = (label: string, expression: Scalar, of: Node) =>
    builder.within(label, '', () => mapOver(builder, [time, headDim], expression, [of]));
  // The angle is a node of its own, so that it is computed once for both tables.
  const angles = table('rotary_angle', angle, positions);
  const cosine = multiply(factor, apply('cos', operand(0)));
  const sine = multiply(factor, apply('sin', operand(0)));
  const beforeEnd = apply('less', element, constant(dims));
  const turning = from === 0 ? beforeEnd : apply('and', apply('lessEqual', constant(0), element), beforeEnd);
  const turns = (inside: Scalar, outside: number) =>
    dims === headDim.size ? inside : select(turning, inside, constant(outside));
  return {
    cos: table('rotary_cos', turns(cosine, 1), angles),
    // The first of a pair subtracts its partner, the second adds it.
    sin: table('rotary_sin', turns(select(isFirst, negate(sine), sine), 0), angles),
  };
}

/** theta^(-2 i / dims), stretched for long contexts. */
function scaledFrequency(pairIndex: Scalar, dims: number, theta: number, scaling: RopeScaling | null): Scalar {
  const frequencyOf = (base: number) => apply('exp', multiply(pairIndex, constant((-2 * Math.log(base)) / dims)));
  const plain = frequencyOf(theta);
  /** The plain frequency where `share` is 1, that divided by the factor where it is 0. */
  const mixed = (share: Scalar, factor: number) =>
    multiply(plain, add(multiply(constant(1 / factor), subtract(constant(1), share)), share));
  switch (scaling?.kind) {
    case undefined:
      return plain;
    case 'linear':
      return multiply(plain, constant(1 / scaling.factor));
    case 'ntk':
      return frequencyOf(theta * scaling.factor ** (dims / (dims - 2)));
    case 'llama3': {
      // Meta's Llama 3.1: by how often a pair turns in the original context; slow ones are stretched, fast ones kept.
      const { low_freq_factor: low, high_freq_factor: high, original_max_positions: original } = scaling;
      const turnsInContext = multiply(plain, constant(original / (2 * Math.PI)));
      return mixed(clamp(divide(subtract(turnsInContext, constant(low)), constant(high - low))), scaling.factor);
    }
    case 'yarn': {
      // YaRN (Peng et al. 2023), as transformers computes it: the pair that turns `rotations` times in the context.
      const pairTurning = (rotations: number) =>
        (dims * Math.log(scaling.original_max_positions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
      const low = Math.max(Math.floor(pairTurning(scaling.beta_fast)), 0);
      const high = Math.min(Math.ceil(pairTurning(scaling.beta_slow)), dims - 1);
      const ramp = clamp(divide(subtract(pairIndex, constant(low)), constant(Math.max(high - low, 0.001))));
      return mixed(subtract(constant(1), ramp), scaling.factor);
    }
  }
}

const clamp = (x: Scalar): Scalar => apply('min', apply('max', x, constant(0)), constant(1));

/** YaRN's factor on cosines and sines, which sharpens attention over a longer context. */
function attentionFactor(scaling: RopeScaling | null): number {
  if (scaling?.kind !== 'yarn') return 1;
  return scaling.attention_factor ?? (scaling.factor <= 1 ? 1 : 0.1 * Math.log(scaling.factor) + 1);
}

/** Turns each pair of x's head elements, from `from` on, by its position's angle. */
export function rotate(builder: Builder, x: Node, rope: Rope, { cos, sin }: RotaryTables, from = 0): Node {
  const { dims: span, interleaved } = rope;
  const partner = partners(builder, x, { dimension: 'head_dim', from, span, interleaved });
  const turned = add(multiply(operand(0), operand(1)), multiply(operand(2), operand(3)));
  return mapWide(builder, turned, [x, cos, partner, sin]);
}

/**
 * x plus fixed sinusoids (Vaswani et al. 2017, section 3.5): element 2 i is sin(position / 10000^(2 i / hidden)), element
 * 2 i + 1 its cosine.
 */
export function addSinusoids(builder: Builder, x: Node, positions: Node, hidden: Dimension): Node {
  const element = coordinate(hidden.name);
  const pairIndex = apply('floor', multiply(constant(0.5), element));
  const frequency = apply('exp', multiply(pairIndex, constant((-2 * Math.log(10000)) / hidden.size!)));
  const angle = multiply(operand(0), frequency);
  const isEven = apply('equal', element, multiply(constant(2), pairIndex));
  const table = builder.within('sinusoids', '', () =>
    mapOver(builder, [time, hidden], select(isEven, apply('sin', angle), apply('cos', angle)), [positions]),
  );
  return plus(builder, x, table);
}
