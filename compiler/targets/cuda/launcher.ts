// Emits the function that queues the launches of a computation: all that other translation units know of its kernels.
import { plus } from '../../emission/index-text.ts';
import { Names, ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { Storage } from '../../plan/storage.ts';
import {
  type Argument,
  type KernelSource,
  type Launch,
  type LibraryOperand,
  type LibraryProduct,
  parameterList,
  type TensorMap,
} from './kernel-source.ts';

export interface Launcher {
  readonly text: string;
  /** Its head, as other translation units declare it. */
  readonly declaration: string;
  /** What a call hands it after the stream. */
  readonly arguments: readonly Argument[];
}

/** Sizes that a launch may name. */
const sizes = ['batch', 'time', 'sequences', 'context'] as const;

/** What the function is called that queues the kernels of this name. */
export const launcherName = (kernel: string): string => `launch_${kernel}`;

/**
 * It takes a stream, sizes that the launches name and the kernels do not take, and the kernels' parameters, and returns the
 * first error of its launches. Where there are launches for Hopper GPUs, it asks which GPU this is; where cuBLASLt may
 * stand in, whether it can.
 */
export function emitLauncher(
  { arguments: list, launches, hopper, library }: Omit<KernelSource, 'text'>,
  storageOf: Storage,
): Launcher {
  const names = new Names();
  const others = list.filter(argument => !isValue(argument) && argument.kind !== 'size');
  const tensorMaps = hopper?.maps ?? [];
  for (const name of [...sizes, ...others.map(argumentName), ...tensorMaps.map(({ name }) => name)]) names.unique(name);
  // Values may have any name; sizes are what the grid is computed from.
  const own = list.map(argument => (isValue(argument) ? { ...argument, name: names.unique(argument.name) } : argument));
  const given = own.map(argumentName);
  const all = [...launches, ...(hopper?.launches ?? [])];
  const counts = [
    ...tensorMaps.flatMap(map => [...map.sizes, ...map.strides]),
    ...(library?.products ?? []).flatMap(({ sizes, result }) => [...sizes, result.offset, result.stride]),
  ];
  const grids = [...all.flatMap(({ grid, block, shared }) => [grid, block, shared]), ...counts].join(' ');
  const further = sizes
    .filter(name => !given.includes(name) && new RegExp(`\\b${name}\\b`).test(grids))
    .map((name): Argument => ({ kind: 'size', name }));
  const [queue, error] = [names.unique('queue'), names.unique('error')];
  const parameters = [
    `cudaStream_t ${queue}`,
    parameterList([...further, ...own], storageOf).replaceAll('__restrict__ ', ''),
  ].filter(text => text !== '');
  const declaration = `cudaError_t ${launcherName(ownName)}(${parameters.join(', ')})`;
  const call = (
    { kernel, grid, block, shared, overlaps }: Launch,
    maps: readonly string[] = [],
    handed: readonly string[] = given,
  ) => {
    const blocks = overlaps ? `malc_grid(${grid}).overlapping()` : grid;
    return `malc_launch(${[kernel, blocks, block, shared, queue, ...maps, ...handed].join(', ')})`;
  };
  const placeOf = (name: string) => given[list.findIndex(each => isNamed(each, name))]!;
  const inOrder = (to: Writer, calls: readonly string[]) => {
    if (calls.length === 1) {
      to.line(`return ${calls[0]};`);
      return;
    }
    calls.forEach((text, n) => {
      to.line(n === 0 ? `cudaError_t ${error} = ${text};` : `if (${error} == cudaSuccess) ${error} = ${text};`);
    });
    to.line(`return ${error};`);
  };
  const writer = new Writer();
  writer.block(declaration, () => {
    if (library) {
      const [plans, products, sums] = ['plans', 'products', 'sums'].map(name => names.unique(name)) as [
        string,
        string,
        string,
      ];
      writer.comment(['By cuBLASLt, where it is.']);
      writer.line(`static malc_cublas_plans<${library.products.length}> ${plans};`);
      if (library.launches.length > 0) writer.line(`float *const ${sums} = workspace + malc_cublas_floats;`);
      writer.line(`const malc_cublas_product ${products}[] = {`);
      writer.inner(() => {
        for (const product of library.products) writer.line(`${productText(product, sums, placeOf)},`);
      });
      writer.line('};');
      const multiplied = `${plans}.multiply(${products}, workspace, ${queue}, &${error})`;
      writer.block(`if (cudaError_t ${error} = cudaSuccess; ${multiplied})`, () => {
        const handed = given.map(name => (name === 'workspace' ? sums : name));
        for (const launch of library.launches)
          writer.line(`if (${error} == cudaSuccess) ${error} = ${call(launch, [], handed)};`);
        writer.line(`return ${error};`);
      });
    }
    if (hopper) {
      const encoded = hopper.maps.map(map => encodeText(map, placeOf(map.base)));
      writer.block('if (malc_on_hopper())', () => {
        if (hopper.maps.length > 0) writer.line(`CUtensorMap ${hopper.maps.map(({ name }) => name).join(', ')};`);
        inOrder(writer, [...encoded, ...hopper.launches.map(launch => call(launch, launch.maps))]);
      });
    }
    inOrder(
      writer,
      launches.map(launch => call(launch)),
    );
  });
  return { text: writer.toString(), declaration: `${declaration};`, arguments: [...further, ...list] };
}

/** Describes a tensor to TMA, by a name of the launcher's. */
export function encodeText({ name, sizes, strides, box }: TensorMap, base: string): string {
  const list = (counts: readonly string[]) => `{${counts.map(countOf).join(', ')}}`;
  return `encode_tensor_map(${[`&${name}`, base, sizes.length, list(sizes), list(strides), box.columns, box.rows].join(', ')})`;
}

/** A product as cuBLASLt is told of it. */
function productText(
  { sizes, left, right, result }: LibraryProduct,
  sums: string,
  placeOf: (name: string) => string,
): string {
  const operand = ({ base, stride, run }: LibraryOperand) => `{${placeOf(base)}, ${stride}, ${run === 'inner'}}`;
  const { output, offset, stride, narrow, adds } = result;
  const place = output === null ? plus([sums, offset]) : placeOf(output);
  return `{${[...sizes, operand(left), operand(right), place, stride, narrow, adds].join(', ')}}`;
}

/** Tensor maps count in uint64_t. */
const countOf = (text: string): string => (/^\d+$/.test(text) ? text : `static_cast<uint64_t>(${text})`);

const isNamed = (argument: Argument, name: string): boolean => isValue(argument) && argument.name === name;

type Value = Extract<Argument, { readonly node: Node }>;
const isValue = (argument: Argument): argument is Value => 'node' in argument;

/** What the kernel's parameter is called. */
function argumentName(argument: Argument): string {
  if ('name' in argument) return argument.name;
  return argument.kind === 'text' ? /\w+$/.exec(argument.declaration)![0] : argument.kind;
}
