// `malc doctor`: what malc needs, what this machine has of it, and the command that installs the rest.
import { accessSync, constants, existsSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { MachineError } from '../../compiler/diagnostic.ts';
import type { Finding } from '../doctor-cuda.ts';
import type { Command } from './command.ts';

const OLDEST_NODE = 20;
/** Bytes of a disk below which a run of a model worth the name may find no room for its checkpoints. */
const LITTLE_ROOM = 2 ** 30;

export const doctor: Command = {
  name: 'doctor',
  describe: 'Show what malc needs and this machine has, and how to get the rest',
  options: { json: { type: 'boolean', describe: 'Print JSON', default: false } },
  async run(args) {
    const { gpu } = await import('../doctor-cuda.ts');
    const own = [node(), await nativeCalls(), await compiler(), ...(await machine())];
    const findings = [...own, ...(await rooms()), await cache(), await hubToken(), ...(await gpu())];
    const missing = findings.filter(({ state }) => state === 'missing');
    if (args.json) console.log(JSON.stringify({ ready: missing.length === 0, findings }, null, 2));
    else console.log(table(findings));
    if (missing.length > 0) {
      throw new MachineError(`malc cannot work yet: see ${missing.map(({ name }) => name).join(', ')}`);
    }
  },
};

function node(): Finding {
  const recent = Number(process.versions.node.split('.')[0]) >= OLDEST_NODE;
  return {
    name: 'Node',
    state: recent ? 'ok' : 'missing',
    found: process.version,
    remedy: recent ? null : `install Node ${OLDEST_NODE} or newer: https://nodejs.org`,
  };
}

async function nativeCalls(): Promise<Finding> {
  const name = 'native calls';
  try {
    await import('../ffi.ts');
    return { name, state: 'ok', found: 'koffi', remedy: null };
  } catch (error) {
    const found = `koffi does not load: ${(error as Error).message.split('\n')[0]}`;
    return { name, state: 'missing', found, remedy: 'run npm install again, on this machine' };
  }
}

async function compiler(): Promise<Finding> {
  const { findCompiler } = await import('../../compiler/targets/cpu/toolchain.ts');
  const name = 'C compiler';
  try {
    const { command, version, openmp } = await findCompiler();
    const found = `${command}: ${version}, ${openmp ? 'with' : 'without'} OpenMP`;
    const remedy = openmp ? null : 'models run on one core; a gcc, or a clang with libomp, uses all of them';
    return { name, state: openmp ? 'ok' : 'limited', found, remedy };
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    return { name, state: 'missing', found: 'none', remedy: error.message };
  }
}

async function machine(): Promise<Finding[]> {
  const { describeMachine } = await import('../machine.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const { processor, cores, features, memory, memoryFree } = describeMachine();
  const sets = features.length > 0 ? features.join(', ') : 'no vector instructions that malc knows';
  return [
    { name: 'processor', state: 'ok', found: `${processor}, ${cores} ${cores === 1 ? 'core' : 'cores'}`, remedy: null },
    { name: 'instructions', state: features.length > 0 ? 'ok' : 'limited', found: sets, remedy: null },
    {
      name: 'memory',
      state: 'ok',
      found: `${describeMemory(memory)}, ${describeMemory(memoryFree)} free`,
      remedy: null,
    },
  ];
}

/** Where runs are written, where the cache lies, and the memory that processes share. */
async function rooms(): Promise<Finding[]> {
  const { cacheFolder } = await import('../cache.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const roomIn = (folder: string): number => {
    const { bavail, bsize } = statfsSync(nearestThere(folder));
    return bavail * bsize;
  };
  const disk = (name: string, folder: string, remedy: string): Finding => {
    const free = roomIn(folder);
    const isLittle = free < LITTLE_ROOM;
    const found = `${describeMemory(free)} free at ${folder}`;
    return { name, state: isLittle ? 'limited' : 'ok', found, remedy: isLittle ? remedy : null };
  };
  const shared = '/dev/shm';
  return [
    disk(
      'disk',
      process.cwd(),
      'runs are written here, twelve bytes a parameter and checkpoint; --output names another',
    ),
    disk(
      'disk of cache',
      cacheFolder(),
      'programs and tokens are kept here; set MALC_CACHE to a folder of another disk',
    ),
    ...(existsSync(shared)
      ? [
          {
            name: 'shared memory',
            state: 'ok',
            found: `${describeMemory(roomIn(shared))} free at ${shared}`,
            remedy: null,
          } as const,
        ]
      : []),
  ];
}

/** The folder, or the nearest above it that exists. */
function nearestThere(folder: string): string {
  return existsSync(folder) ? folder : nearestThere(dirname(folder));
}

async function hubToken(): Promise<Finding> {
  const { findToken } = await import('../hub/client.ts');
  const name = 'hub token';
  const token = findToken();
  if (token !== null) return { name, state: 'ok', found: `from ${token.from}`, remedy: null };
  const remedy =
    'only for private and gated models and data: make one at https://huggingface.co/settings/tokens, then: export HF_TOKEN=...';
  return { name, state: 'absent', found: 'none', remedy };
}

async function cache(): Promise<Finding> {
  const { cacheFolder } = await import('../cache.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const folder = cacheFolder();
  const name = 'cache';
  if (!writable(folder)) {
    return {
      name,
      state: 'missing',
      found: `${folder} cannot be written`,
      remedy: 'set MALC_CACHE to a folder that can',
    };
  }
  const found = existsSync(folder) ? `${folder}, ${describeMemory(sizeOf(folder))}` : `${folder}, empty`;
  return { name, state: 'ok', found, remedy: null };
}

/** Whether a folder can be written, or made. */
function writable(folder: string): boolean {
  const nearest = nearestThere(folder);
  try {
    accessSync(nearest, constants.W_OK);
    return statSync(nearest).isDirectory();
  } catch {
    return false;
  }
}

function sizeOf(folder: string): number {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const sizes = entries.filter(entry => entry.isFile()).map(entry => statSync(join(entry.parentPath, entry.name)).size);
  return sizes.reduce((sum, size) => sum + size, 0);
}

function table(findings: readonly Finding[]): string {
  const marks = { ok: 'ok', absent: '-', limited: '!', missing: 'X' } as const;
  const width = Math.max(...findings.map(({ name }) => name.length));
  const indent = ' '.repeat(width + 6);
  const lines = findings.map(({ name, state, found, remedy }) => {
    const line = `${marks[state].padEnd(2)}  ${name.padEnd(width)}  ${found}`;
    return remedy === null ? line : `${line}\n${indent}${remedy.replaceAll('\n', `\n${indent}`)}`;
  });
  return lines.join('\n');
}
