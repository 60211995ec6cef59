// The part that tunes: every product of a step in several schedules, and by cuBLASLt, as `--autotune` measures and keeps them.
import { readModel } from '../../compiler/check/read-model.ts';
import { describeChoice } from '../../compiler/targets/cuda/tunable.ts';
import { autotuneCuda, type Finding } from '../../runtime/autotune-cuda.ts';
import { findCudaDevice } from '../../runtime/cuda-device.ts';
import { tuningPlace } from '../../runtime/tuning.ts';
import { useCublas } from './cublas.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { measuredModels } from './predict.ts';

interface TunedProducts extends Item {
  readonly configuration: string;
  readonly findings: readonly Finding[];
}

export const tuning: Part = {
  name: 'tuning',
  title: 'Products in several ways each, as --autotune measures them',
  seconds: 120,
  async measure({ report }) {
    const device = findCudaDevice();
    if (device === null) return; // a dry run has nothing to measure
    await useCublas();
    const place = await tuningPlace(device);
    for (const { model: name, batch, time } of measuredModels) {
      const configuration = `${name}:${batch}:${time}`;
      const request = { model: readModel(name).model, dtype: 'bf16', batch, time } as const;
      const failed = (error: Error) => ({ findings: [], failed: error.message });
      report<TunedProducts>({ configuration, ...(await autotuneCuda(request, place).then(found, failed)) });
    }
  },
  table: items => (items as readonly TunedProducts[]).map(tableOf).join('\n\n'),
};

const found = ({ findings }: { readonly findings: readonly Finding[] }) => ({ findings });

const micro = (seconds: number | null | undefined) => (seconds == null ? '' : (seconds * 1e6).toFixed(1));

/** Every way of every product: a mark where it is what the program takes. */
function tableOf({ configuration, findings }: TunedProducts): string {
  const rows = findings.flatMap(({ product, size, ways, own, choice }) =>
    ways.map((way, n) => {
      const isChosen = choice.library ? way.choice.library : n === own;
      return [
        n === 0 ? product : '',
        n === 0 ? size.join(' x ') : '',
        describeChoice(way.choice),
        micro(way.seconds),
        isChosen ? 'chosen' : '',
      ];
    }),
  );
  const columns = ['product', 'size', 'way, the predicted best first', 'µs', ''];
  return `${configuration}:\n\n${markdownTable(columns, rows)}`;
}
