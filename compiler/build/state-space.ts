// Mamba's mixer as graph (Gu and Dao 2023, arXiv:2312.00752, figure 3 and algorithm 2): a causal convolution, then a scan
// whose step sizes and in- and outputs depend on the token, gated.
import type { StateSpace } from '../check/model.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { multiplyMatrices } from '../ops/contract.ts';
import { convolve } from '../ops/convolution.ts';
import { mapWide, plus } from '../ops/map.ts';
import { recentOf } from '../ops/recent.ts';
import { scanned, scanState } from '../ops/scan.ts';
import { add, apply, multiply, negate, operand } from '../scalar/expression.ts';
import type { MixerInputs } from './attention.ts';
import { applyFormula, linear } from './layers.ts';
import { zeros } from './parameters.ts';
import type { Site } from './site.ts';

/** The mixer, back in the stream. */
export function buildStateSpace(site: Site, settings: StateSpace, { x, hidden, decoding }: MixerInputs): Node {
  const { builder, parameters } = site;
  const { origin, expand, state_dim, conv_kernel, dt_rank } = settings;
  const inner = dimension('channels', expand * hidden.size!);
  const state = dimension('state', state_dim);
  const kernel = dimension('kernel', conv_kernel);
  const rank = dimension('dt_rank', dt_rank);
  const called = (label: string, build: () => Node) => builder.within(label, origin, build);
  const project = (label: string, name: string, from: Node, inside: Dimension, to: Dimension, bias = false) =>
    called(label, () => linear(site, `mixer.${name}`, from, [inside], [to], { bias }));

  const raw = project('ssm_input', 'x_proj_in', x, hidden, inner);
  const gate = project('ssm_gate', 'z_proj_in', x, hidden, inner);
  const values = called('ssm_values', () => {
    // The variance of PyTorch's uniform numbers between -1 / sqrt(kernel) and 1 / sqrt(kernel).
    const deviation = 1 / Math.sqrt(3 * conv_kernel);
    const filter = parameters.matrix('mixer.conv1d.weight', [inner], [kernel], deviation, false);
    const bias = parameters.vector('mixer.conv1d.bias', [inner], zeros);
    const memory = dimension('memory', conv_kernel - 1);
    const before =
      decoding && conv_kernel > 1
        ? decoding.state('convolution', [memory, inner], old => recentOf(builder, raw, old, decoding.ends))
        : null;
    const convolved = called('ssm_convolved', () =>
      convolve(builder, before ? [raw, filter, before, decoding!.ends] : [raw, filter]),
    );
    return applyFormula(site, 'silu', [plus(builder, convolved, bias)]);
  });

  const narrow = project('ssm_step_input', 'dt_in_proj', values, inner, rank);
  const into = project('ssm_b', 'b_proj', values, inner, state);
  const outOf = project('ssm_c', 'c_proj', values, inner, state);
  const delta = called('ssm_step', () => {
    const weight = parameters.matrix('mixer.dt_proj.weight', [inner], [rank], 1 / Math.sqrt(3 * dt_rank));
    const bias = parameters.vector('mixer.dt_proj.bias', [inner], { kind: 'time_step' });
    const product = multiplyMatrices(builder, narrow, weight, [...narrow.dimensions.slice(0, 2), inner]);
    return applyFormula(site, 'softplus', [plus(builder, product, bias)]);
  });
  const decay = called('ssm_decay', () => {
    const values = Array.from({ length: state_dim }, (_, n) => Math.log(n + 1));
    const logarithm = parameters.matrix('mixer.A_log', [inner], [state], { kind: 'cycle', values }, false);
    return mapWide(builder, negate(apply('exp', operand(0))), [logarithm]);
  });
  const mixed = called('ssm_scan', () => {
    const operands = [values, delta, decay, into, outOf];
    if (!decoding) return scanned(builder, operands);
    const { ends } = decoding;
    const start = decoding.state('scan', [inner, state], old => scanState(builder, [...operands, old, ends]));
    return scanned(builder, [...operands, start, ends]);
  });
  const skip = parameters.vector('mixer.D', [inner], { kind: 'cycle', values: [1] });
  const gated = called('ssm_gated', () => {
    const sum = add(operand(0), multiply(operand(1), operand(2)));
    const opened = called('ssm_opened_gate', () => applyFormula(site, 'silu', [gate]));
    return mapWide(builder, multiply(sum, operand(3)), [mixed, skip, values, opened]);
  });
  return called('ssm_output', () =>
    linear(site, 'mixer.out_proj', gated, [inner], [hidden], { bias: false, residual: true }),
  );
}
