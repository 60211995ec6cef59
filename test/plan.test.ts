// The memory plan: two values that are live at the same time never share a float; and where outputs lie.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, graphsOf } from '../compiler/build/program.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { KernelLibrary } from '../compiler/emission/kernel-library.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, constantCount, dimension, time } from '../compiler/graph/dimension.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import { mapOver } from '../compiler/ops/map.ts';
import { sum } from '../compiler/ops/reduce.ts';
import { compose } from '../compiler/passes/compose.ts';
import { planMemory } from '../compiler/plan/plan.ts';
import { storedAsFloat } from '../compiler/plan/storage.ts';
import { multiply, operand } from '../compiler/scalar/expression.ts';
import { emitFunction } from '../compiler/targets/cpu/functions.ts';
import { randomModel } from './random-models.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('plan');

/** Runs the launches on the plan's memory, each float marked with the value that lies there. */
function holdPlan(graph: Graph, fused: boolean): void {
  const schedule = fuse(graph, { fuse: fused });
  const { placements, totals } = planMemory(graph, schedule);
  const memory = new Map<string, (Node | undefined)[]>();
  const cells = (node: Node) => {
    const { growth, offset } = placements.get(node)!;
    const count = constantCount(node.dimensions);
    assert.ok(offset % 16 === 0 && offset + count <= totals.get(growth)!, `${node.label} lies in its memory`);
    if (!memory.has(growth)) memory.set(growth, []);
    return { group: memory.get(growth)!, offset, count };
  };
  for (const kernel of schedule.kernels) {
    // All are written before any is read: a kernel's outputs must not lie where its inputs do.
    for (const node of kernel.outputs.filter(output => placements.has(output))) {
      const { group, offset, count } = cells(node);
      for (let i = offset; i < offset + count; i++) group[i] = node;
    }
    for (const node of [...kernel.inputs, ...kernel.outputs].filter(value => placements.has(value))) {
      const { group, offset, count } = cells(node);
      for (let i = offset; i < offset + count; i++)
        assert.is(group[i], node, `${graph.name}: ${node.label} was overwritten by ${group[i]?.label}`);
    }
  }
}

test('no value is overwritten while it is needed', () => {
  fc.assert(
    fc.property(randomModel, fc.boolean(), (model, fused) => {
      for (const graph of graphsOf(buildProgram(model, standardLibrary())))
        holdPlan(fused ? compose(graph) : graph, fused);
    }),
    { numRuns: 30, seed: 11 },
  );
});

test('a gradient of two parameters is added to both, each time anew', () => {
  const builder = new Builder();
  const hidden = dimension('hidden', 4);
  const x = builder.input('x', [batch, time, hidden]);
  const squares = mapOver(builder, x.dimensions, multiply(operand(0), operand(0)), [x]);
  const node = builder.within('shared', '', () => sum(builder, squares, ['batch', 'time']));
  const names = ['gradient.first', 'gradient.second'];
  const outputs = names.map(name => ({ name, node, accumulate: true }));
  const graph = makeGraph('both', outputs);
  const schedule = fuse(graph, { fuse: true });
  const lowered = { graph, schedule, plan: planMemory(graph, schedule), storage: storedAsFloat };
  const { text } = emitFunction(lowered, 'stage', 'const float *x', label => label, new KernelLibrary([]));
  for (const name of names) assert.match(text, `${name}[i] += shared_sum[i];`);
});

test.run();
