// The part that tunes: every launch of a step that there are several ways for (products, those of experts, attention's
// gradient) in each of these, and by cuBLASLt, as `--autotune` measures and keeps them; and what `--any-order` has besides.
import { readModel } from '../../compiler/check/read-model.ts';
import { describeChoice, isInAnyOrder } from '../../compiler/targets/cuda/tunable.ts';
import { autotuneCuda, type Finding, failuresOf } from '../../runtime/autotune-cuda.ts';
import { findCudaDevice } from '../../runtime/cuda-device.ts';
import { tuningPlace } from '../../runtime/tuning.ts';
import { useCublas } from './cublas.ts';
import type { Item, Part } from './part.ts';
import { markdownTable } from './part.ts';
import { measuredModels } from './predict.ts';

interface TunedLaunch extends Item {
  readonly configuration: string;
  /** Null where a model's tuning ended. */
  readonly finding: Finding | null;
}

export const tuning: Part = {
  name: 'tuning',
  title: 'Products and attention in several ways each, as --autotune measures them',
  seconds: 140,
  async measure({ report }) {
    const device = findCudaDevice();
    if (device === null) return; // a dry run has nothing to measure
    await useCublas();
    const place = await tuningPlace(device);
    for (const { model: name, batch, time } of measuredModels) {
      const configuration = `${name}:${batch}:${time}`;
      const request = { model: readModel(name).model, dtype: 'bf16', batch, time } as const;
      const onFinding = (finding: Finding) =>
        report<TunedLaunch>({ configuration, finding, failed: failuresOf(finding).join('; ') || null });
      const ofAnyOrder = (finding: Finding) => {
        if (finding.ways.some(({ choice }) => isInAnyOrder(choice))) onFinding(finding);
      };
      try {
        await autotuneCuda({ ...request, onFinding }, place);
        await autotuneCuda({ ...request, anyOrder: true, onFinding: ofAnyOrder }, place);
      } catch (error) {
        report<TunedLaunch>({ configuration, finding: null, failed: (error as Error).message });
      }
    }
  },
  table(items) {
    const tuned = items as readonly TunedLaunch[];
    const configurations = [...new Set(tuned.map(({ configuration }) => configuration))];
    return configurations.map(each => tableOf(each, tuned)).join('\n\n');
  },
};

const micro = (seconds: number | null | undefined) => (seconds == null ? '' : (seconds * 1e6).toFixed(1));

/** Every way of every launch: a mark where it is what the program takes. */
function tableOf(configuration: string, items: readonly TunedLaunch[]): string {
  const findings = items.filter(item => item.configuration === configuration).flatMap(({ finding }) => finding ?? []);
  const rows = findings.flatMap(({ launch, size, ways, own, choice }) =>
    ways.map((way, n) => {
      const isChosen = choice.library ? way.choice.library : n === own;
      return [
        n === 0 ? launch : '',
        n === 0 ? size.join(' x ') : '',
        describeChoice(way.choice),
        micro(way.seconds),
        way.failed !== null ? 'failed' : isChosen ? 'chosen' : '',
      ];
    }),
  );
  const columns = ['launch', 'size', 'way, the predicted best first', 'µs', ''];
  return `${configuration}:\n\n${markdownTable(columns, rows)}`;
}
