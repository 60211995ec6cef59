// A program that measures products: a model's own kernels in several ways each, on buffers of the sizes that a step has, which
// templates/cuda/tune.h runs by turns.
import { ownName, Writer, withName } from '../../emission/writer.ts';
import { readPackageFile } from '../../package-files.ts';
import type { Extent } from '../../plan/extent.ts';
import { storedExtent } from '../../plan/storage.ts';
import { renderTemplate } from '../../template.ts';
import { allIncludedBy } from './included.ts';
import type { Argument } from './kernel-source.ts';
import { launcherName } from './launcher.ts';
import type { QueuedKernel } from './queued-kernel.ts';
import { describeChoice, type ProductChoice, type TunableProduct } from './tunable.ts';

/** A product, and the ways that are measured. */
export interface Trial {
  readonly product: TunableProduct;
  readonly choices: readonly ProductChoice[];
}

/** Kernels of a translation unit: few, so that all cores have something to compile. */
const ofUnit = 3;
/** Of products, as programs include them. */
const headers = [
  ...['launch.h', 'random.h', 'rows.h', 'sequences.h'],
  ...['product_f32.h', 'product_bf16.h', 'product_sm90.h', 'cublas.h'],
];

/** Sizes that a step knows. */
const known: ReadonlySet<string> = new Set(['batch', 'time']);

/** Whether a product's sizes are those of a training step: what decoding does with its cache is not measured. */
export function isOfStep(product: TunableProduct): boolean {
  const { arguments: list } = product.emit({ schedule: null, library: false });
  const names = list.flatMap(argument => {
    if (argument.kind === 'size') return [argument.name];
    if (argument.kind === 'workspace') return argument.extents.flatMap(({ runtime }) => runtime);
    return 'node' in argument ? argument.node.dimensions.flatMap(dim => (dim.size === null ? [dim.name] : [])) : [];
  });
  return names.every(name => known.has(name));
}

/** The files of the program: each `.cu` is a translation unit. */
export function emitTuner(trials: readonly Trial[]): Record<string, string> {
  const measured = trials.map(({ product, choices }, n) => ({
    product,
    ways: choices.map((choice, way) => ({ choice, name: `product_${n}_${way}`, kernel: product.emit(choice) })),
  }));
  const kernels = measured.flatMap(({ ways }) => ways);
  const units = Array.from({ length: Math.ceil(kernels.length / ofUnit) }, (_, n) => {
    const own = kernels.slice(n * ofUnit, (n + 1) * ofUnit);
    const texts = own.map(({ kernel, name }) => withName(kernel.text, name));
    return {
      file: `products_${n + 1}.cu`,
      title: 'products, in one of several ways each',
      headers,
      kernels: texts.join('\n').trimEnd(),
      declarations: own.map(({ kernel, name }) => withName(kernel.declaration, name)).join('\n'),
    };
  });
  const products = measured.map(({ product, ways }) => ({
    title: product.name,
    ways: switchText(ways),
    buffers: buffersOf(product, ways[0]!.kernel),
    workspaces: ways.map(({ choice, kernel }) => ({ bytes: workspaceText(kernel), asks: String(choice.library) })),
  }));
  const files: Record<string, string> = {
    ...Object.fromEntries(units.map(unit => [unit.file, renderTemplate('cuda/unit.cu.hbs', unit)])),
    'kernels.h': renderTemplate('cuda/kernels.h.hbs', { units }),
    'tune.cu': renderTemplate('cuda/tune.cu.hbs', { products }),
  };
  const read = (name: string) => files[name] ?? readPackageFile(`templates/cuda/${name}`);
  return { ...files, ...Object.fromEntries(allIncludedBy(Object.values(files).join('\n'), read)) };
}

interface Way {
  readonly choice: ProductChoice;
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
        throw new Error('products have no arguments of their own');
      default:
        return `trial.at(${buffer++})`;
    }
  });
  return `${launcherName(ownName).replace(ownName, name)}(${['trial.queue', ...given].join(', ')})`;
}

/** The bytes of each buffer that a launcher takes, as C++ text over batch and time, and how it is filled. */
function buffersOf({ storageOf }: TunableProduct, { arguments: list }: QueuedKernel) {
  return list.flatMap(argument => {
    if (argument.kind === 'copy') {
      const { rows, stride } = argument.copy;
      return [{ bytes: String(2 * rows * stride), filling: 'narrow' }];
    }
    if (argument.kind !== 'input' && argument.kind !== 'output') return [];
    const { node } = argument;
    const storage = storageOf(node);
    const bytes = bytesText([storedExtent(node, storage)]);
    return [{ bytes, filling: node.dtype === 'i32' ? 'zeros' : storage === 'bf16' ? 'narrow' : 'floats' }];
  });
}

const workspaceText = ({ arguments: list }: QueuedKernel): string =>
  bytesText(list.flatMap(argument => (argument.kind === 'workspace' ? argument.extents : [])));

/** Bytes of so many floats. */
const bytesText = (extents: readonly Extent[]): string =>
  extents.map(({ runtime, count }) => [...runtime, count * Float32Array.BYTES_PER_ELEMENT].join(' * ')).join(' + ') ||
  '0';
