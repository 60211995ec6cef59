// Whose a file is that a process left: its machine's name, and whether the process is still there.
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

/** This machine's name, as it may stand in a file's. */
export function thisHost(): string {
  return hostname().replace(/[^\w.-]/g, '_');
}

/** When a process began, in the system's own count, '0' where that cannot be told; null where there is no such process. */
export function startOf(pid: number): string | null {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is there, and another user's.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return null;
  }
  if (process.platform !== 'linux') return '0';
  try {
    // proc(5): the name, in brackets, may hold anything; the state is the first field after it, the start the twentieth.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? null : fields[19]!;
  } catch {
    return '0';
  }
}
