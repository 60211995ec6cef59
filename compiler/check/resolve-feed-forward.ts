// Makes a FeedForward of what was written: one network, or experts of which a router chooses.
import * as dimensionErrors from '../dimension-errors.ts';
import * as errors from '../errors.ts';
import { type BlockContext, nearestDivisors, numberPlaced, placed } from './block-context.ts';
import type { Balance, FeedForward, MixtureOfExperts } from './model.ts';
import { largestDimension, type MixtureSettings, type Read, type Setting } from './properties.ts';

/** The network, or null where something is at fault, which has been reported. */
export function resolveFeedForward(read: Read<'ffn'>, context: BlockContext): FeedForward | null {
  const { hidden_dim, activation, gate, bias, dropout, moe } = read.settings;
  const ofExpert = moe.value?.hidden_dim;
  if (ofExpert?.property && hidden_dim.property) {
    context.report(errors.exclusive(ofExpert.property.span, 'moe { hidden_dim }', placed('hidden_dim', hidden_dim)));
    return null;
  }
  const width = ofExpert?.value ?? hidden_dim.value ?? 4 * context.hidden_size.value;
  if (width > largestDimension) {
    context.report(
      dimensionErrors.overflow(read.span, context.where, 'hidden_dim, 4 * hidden_size,', width, largestDimension),
    );
    return null;
  }
  const mixture = moe.value && resolveMixture(moe.value, width, bias.value, context);
  if (moe.value && !mixture) return null;
  return {
    hidden_dim: width,
    activation: activation.value,
    gate: gate.value,
    bias: bias.value,
    dropout: dropout.value,
    moe: mixture,
    origin: context.origin(read.span),
  };
}

/** The experts, each of a width, or null where something is at fault. */
function resolveMixture(
  settings: MixtureSettings,
  width: number,
  bias: boolean,
  context: BlockContext,
): MixtureOfExperts | null {
  const { experts, top_k, shared_experts } = settings;
  const { where, report, hidden_size } = context;
  if (top_k.value > experts.value) {
    report(dimensionErrors.moreThanExperts(top_k.property!.value.span, where, top_k.value, numberPlaced(experts)));
    return null;
  }
  const products = [
    { setting: experts, name: 'experts * hidden_dim', size: experts.value * width },
    { setting: shared_experts, name: 'shared_experts * hidden_dim', size: shared_experts.value * width },
    // The biases of all experts' results are one vector.
    { setting: experts, name: 'experts * hidden_size', size: bias ? experts.value * hidden_size.value : 0 },
  ];
  for (const { setting, name, size } of products) {
    if (size <= largestDimension) continue;
    report(dimensionErrors.overflow(setting.property!.value.span, where, name, size, largestDimension));
    return null;
  }
  const groups = resolveGroups(settings, context);
  const balance = resolveBalance(settings, context);
  if (groups === null || balance === null) return null;
  return {
    experts: experts.value,
    top_k: top_k.value,
    shared_experts: shared_experts.value,
    router: settings.router.value,
    normalize: settings.normalize.value,
    scale: settings.scale.value,
    ...groups,
    balance,
    z_loss_weight: settings.router_z_loss_weight.value,
    capacity_factor: settings.capacity_factor.value,
  };
}

/** Groups of experts, 1 of 1 where none are written; null where something is at fault. */
function resolveGroups(settings: MixtureSettings, { where, report }: BlockContext) {
  const { experts, top_k, router, groups, top_groups } = settings;
  if (groups.value === null && top_groups.value === null) return { groups: 1, top_groups: 1 };
  if (groups.value === null || top_groups.value === null) {
    const [given, missing] = groups.value === null ? ['top_groups', 'groups'] : ['groups', 'top_groups'];
    report(errors.missingProperty(((groups.property ?? top_groups.property) as Placed).span, given!, missing!));
    return null;
  }
  const place = ({ property }: Setting<unknown>) => property!.value.span;
  if (experts.value % groups.value !== 0) {
    const nearby = nearestDivisors(experts.value, groups.value);
    report(dimensionErrors.groupsDoNotDivide(place(groups), where, groups.value, numberPlaced(experts), nearby));
    return null;
  }
  const size = experts.value / groups.value;
  if (top_groups.value > groups.value) {
    const all = { value: groups.value, span: groups.property!.span };
    report(dimensionErrors.moreThanGroups(place(top_groups), where, top_groups.value, all));
    return null;
  }
  if (top_k.value > top_groups.value * size) {
    const chosen = { value: top_groups.value, span: top_groups.property!.span };
    report(dimensionErrors.moreThanInGroups(place(top_k), where, top_k.value, chosen, size));
    return null;
  }
  if (router.value === 'sigmoid' && groups.value > 1 && size < 2) {
    report(dimensionErrors.groupsOfOne(place(groups), where, groups.value, numberPlaced(experts)));
    return null;
  }
  return { groups: groups.value, top_groups: top_groups.value };
}

type Placed = NonNullable<Setting<unknown>['property']>;

/** Null where it is said in two ways. */
function resolveBalance({ balance, load_balance_loss_weight: short }: MixtureSettings, { report }: BlockContext) {
  if (balance.property && short.property) {
    report(errors.exclusive(short.property.span, short.property.name, placed('balance', balance)));
    return null;
  }
  const { value } = balance;
  if (value?.word === 'loss') return { kind: 'loss', weight: value.settings.weight.value } satisfies Balance;
  if (value?.word === 'aux_free') return { kind: 'aux_free', rate: value.settings.rate.value } satisfies Balance;
  // A loss of no weight is none.
  return (short.value ? { kind: 'loss', weight: short.value } : { kind: 'none' }) satisfies Balance;
}
