// A compiler as a process of its own, with its messages in English.
import { execFile } from 'node:child_process';

/** Runs a command. The code is null where it does not exist or did not end by itself. */
export function invoke(command: string, words: readonly string[]): Promise<{ code: number | null; output: string }> {
  const options = { maxBuffer: 64 * 1024 * 1024, env: { ...process.env, LC_ALL: 'C' } };
  return new Promise(resolve => {
    execFile(command, words, options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      resolve({ code, output: `${stdout}${stderr}`.trim() });
    });
  });
}
