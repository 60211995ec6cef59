// A program that measures what can be computed in several ways: a model's own kernels, on buffers of the sizes that a step has,
// which templates/cuda/tune.h runs by turns.
import { ownName, Writer, withName } from '../../emission/writer.ts';
import { documentBounds } from '../../ops/attention.ts';
import { readPackageFile } from '../../package-files.ts';
import type { Extent } from '../../plan/extent.ts';
import { storedExtent } from '../../plan/storage.ts';
import { renderTemplate } from '../../template.ts';
import { allIncludedBy } from './included.ts';
import { headersFor } from './index.ts';
import type { Argument } from './kernel-source.ts';
import { launcherName } from './launcher.ts';
import type { QueuedKernel } from './queued-kernel.ts';
import { type Choice, describeChoice, type Tunable } from './tunable.ts';
import { unitHeaders } from './units.ts';

/** A computation, and the ways that are measured. */
export interface Trial {
  readonly tunable: Tunable;
  readonly choices: readonly Choice[];
}

/** Kernels of a translation unit: few, so that all cores have something to compile. */
const ofUnit = 3;

/** Sizes that a step knows. */
const known: ReadonlySet<string> = new Set(['batch', 'time']);

/** Whether the sizes are those of a training step: what decoding does with its cache is not measured. */
export function isOfStep(tunable: Tunable): boolean {
  const { arguments: list } = tunable.emit({ schedule: null, library: false });
  const names = list.flatMap(argument => {
    if (argument.kind === 'size') return [argument.name];
    if (argument.kind === 'workspace') return argument.extents.flatMap(({ runtime }) => runtime);
    return 'node' in argument ? argument.node.dimensions.flatMap(dim => (dim.size === null ? [dim.name] : [])) : [];
  });
  return names.every(name => known.has(name));
}

/** The files of the program: each `.cu` is a translation unit. */
export function emitTuner(trials: readonly Trial[]): Record<string, string> {
  const measured = trials.map(({ tunable, choices }, n) => ({
    tunable,
    ways: choices.map((choice, way) => ({ choice, name: `kernel_${n}_${way}`, kernel: tunable.emit(choice) })),
  }));
  const kernels = measured.flatMap(({ tunable: { kind }, ways }) => ways.map(way => ({ ...way, kind })));
  const headersOf = headersFor('bf16');
  const units = Array.from({ length: Math.ceil(kernels.length / ofUnit) }, (_, n) => {
    const own = kernels.slice(n * ofUnit, (n + 1) * ofUnit);
    const texts = own.map(({ kernel, name }) => withName(kernel.text, name));
    return {
      file: `kernels_${n + 1}.cu`,
      title: 'kernels, each computing in one of several ways',
      headers: [...new Set([...unitHeaders, ...own.flatMap(({ kind }) => headersOf(kind)), 'cublas.h'])],
      kernels: texts.join('\n').trimEnd(),
      declarations: own.map(({ kernel, name }) => withName(kernel.declaration, name)).join('\n'),
    };
  });
  const computations = measured.map(({ tunable, ways }) => ({
    title: tunable.name,
    ways: switchText(ways),
    buffers: buffersOf(tunable, ways[0]!.kernel),
    workspaces: ways.map(({ choice, kernel }) => ({ bytes: workspaceText(kernel), asks: String(choice.library) })),
  }));
  const files: Record<string, string> = {
    ...Object.fromEntries(units.map(unit => [unit.file, renderTemplate('cuda/unit.cu.hbs', unit)])),
    'kernels.h': renderTemplate('cuda/kernels.h.hbs', { units }),
    'tune.cu': renderTemplate('cuda/tune.cu.hbs', { computations }),
  };
  const read = (name: string) => files[name] ?? readPackageFile(`templates/cuda/${name}`);
  return { ...files, ...Object.fromEntries(allIncludedBy(Object.values(files).join('\n'), read)) };
}

interface Way {
  readonly choice: Choice;
  readonly name: string;
  readonly kernel: QueuedKernel;
}

/** Queues a launch in one of several ways. */
function switchText(ways: readonly Way[]): string {
  const writer = new Writer();
  writer.inner(() =>
    writer.block('switch (way)', () => {
      ways.forEach(({ choice, name, kernel }, n) => {
        writer.line(`case ${n}: // ${describeChoice(choice)}`);
        writer.inner(() => writer.line(`return ${callText(kernel, name)};`));
      });
    }),
  );
  return writer.toString().trimEnd();
}

/** The call of a launcher, over a malc_trial of tune.h. */
function callText({ arguments: list }: QueuedKernel, name: string): string {
  let buffer = 0;
  const given = list.map((argument: Argument) => {
    switch (argument.kind) {
      case 'size':
        return argument.name;
      case 'adds':
        return 'false';
      case 'workspace':
        return 'trial.workspace';
      case 'text':
        throw new Error('what is tuned has no arguments of its own');
      default:
        return `trial.at(${buffer++})`;
    }
  });
  return `${launcherName(ownName).replace(ownName, name)}(${['trial.queue', ...given].join(', ')})`;
}

/** The bytes of each buffer that a launcher takes, as C++ text over batch and time, and how it is filled. */
function buffersOf({ storageOf, experts }: Tunable, { arguments: list }: QueuedKernel) {
  return list.flatMap(argument => {
    if (argument.kind === 'copy') {
      const { rows, stride } = argument.copy;
      return [{ bytes: String(2 * rows * stride), filling: 'narrow', count: '0' }];
    }
    if (argument.kind !== 'input' && argument.kind !== 'output') return [];
    const { node } = argument;
    const storage = storageOf(node);
    const bytes = bytesText([storedExtent(node, storage)]);
    if (node.dimensions.at(-1)?.name === documentBounds.name)
      return [{ bytes, filling: 'bounds', count: '(unsigned)time' }];
    if (node.dtype === 'i32') return [{ bytes, filling: 'integers', count: String(experts) }];
    return [{ bytes, filling: storage === 'bf16' ? 'narrow' : 'floats', count: '0' }];
  });
}

const workspaceText = ({ arguments: list }: QueuedKernel): string =>
  bytesText(list.flatMap(argument => (argument.kind === 'workspace' ? argument.extents : [])));

/** Bytes of so many floats. */
const bytesText = (extents: readonly Extent[]): string =>
  extents.map(({ runtime, count }) => [...runtime, count * Float32Array.BYTES_PER_ELEMENT].join(' * ')).join(' + ') ||
  '0';
