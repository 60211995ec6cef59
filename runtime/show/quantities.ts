// Numbers as people read them: counts, bytes, durations, each in a few characters.

/** 182400 as `182.4k`, 1234567 as `1.2M`, 8030261248 as `8.03B`, which is a count's billion. */
export function describeCount(count: number): string {
  if (count < 999.5) return count.toFixed(0);
  if (count < 999_950) return `${(count / 1e3).toFixed(1)}k`;
  if (count < 999_950_000) return `${(count / 1e6).toFixed(1)}M`;
  return `${(count / 1e9).toFixed(2)}B`;
}

/** Bytes in powers of 1024: 33500000000 as `31.2GiB`. */
export function describeMemory(bytes: number): string {
  const units = [' bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value < 100 && unit > 0 ? value.toFixed(1) : value.toFixed(0)}${units[unit]}`;
}

/** Seconds as `42s`, `12m`, `3h05m` or `2d04h`. */
export function describeDuration(seconds: number): string {
  const two = (value: number) => String(value).padStart(2, '0');
  if (seconds < 99.5) return `${Math.round(seconds)}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}
