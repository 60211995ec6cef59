// The stand-in for cuBLASLt (cublas.cpp) as a library, for MALC_CUBLAS.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';

/** Compiles it into a folder. Resolves to its path. */
export async function buildStandIn(folder: string): Promise<string> {
  const path = join(folder, 'libcublasLt.so.13');
  const headers = ['test/simt', 'templates/cuda'].map(name => `-I${packagePath(name)}`);
  const flags = ['-std=c++20', '-O1', '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror', '-Wno-psabi', '-DMALC_SIMT'];
  const words = [...flags, ...headers, packagePath('test/cuda/cublas.cpp'), '-o', path];
  await promisify(execFile)(process.env.CXX?.trim() || 'g++', words);
  return path;
}
