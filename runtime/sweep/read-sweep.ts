// From a sweep file to what it asks for: every name and value held against what there is, every fault told with its place.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { type Diagnostic, SourceError, UserError } from '../../compiler/diagnostic.ts';
import { didYouMean, either, error, listed, quoted } from '../../compiler/message.ts';
import { packagePath } from '../../compiler/package-files.ts';
import { type Group, parseSweep, type Scalar, type Setting, type SweepSyntax } from './parse.ts';
import { type Choice, productOf, type Variant } from './variants.ts';

/** The options of `malc train` that a sweep file may set. */
export interface OptionRules {
  readonly names: readonly string[];
  /** Options that are the sweep's own business, each with what to write instead. */
  readonly refused: Readonly<Record<string, string>>;
  isList(name: string): boolean;
  /** Whether its value is a file, or a name where there is no such file. */
  isPath(name: string): boolean;
  /** Options that say the same in another way. */
  instead(name: string): readonly string[];
  /** A written value as the option takes it, or what is wrong with it. */
  read(name: string, value: Scalar): { readonly value: unknown } | { readonly complaint: string };
}

/** What all variants share. */
export type Equality =
  | { readonly kind: 'tokens' | 'flops' }
  | {
      readonly kind: 'parameters';
      /** The constant that is found for each variant. */
      readonly by: string;
      readonly bySetting: Setting;
      /** It is a multiple of this. */
      readonly multiple: number;
      /** How many parameters; null for as many as the first variant has as it is written. */
      readonly to: number | null;
    };

export interface Sweep {
  /** The file's name without its ending. */
  readonly name: string;
  readonly path: string;
  readonly text: string;
  /** Paths, whole; `stories` for those that malc writes itself; null where the file leaves it to the command line. */
  readonly data: readonly string[] | 'stories' | null;
  readonly tokenizer: string | null;
  readonly equal: Equality | null;
  readonly seeds: readonly number[];
  /** In the order of the file; of a grid, the last of its names changes first. */
  readonly variants: readonly Variant[];
}

/** How the names of sweep files end. */
const ENDING = '.sweep';
const SETTINGS = ['model', 'data', 'tokenizer', 'equal', 'seeds'];
const GROUPS = ['train', 'variant', 'grid'];
const EQUALITIES = ['parameters', 'flops', 'tokens'];
/** More than anybody waits for: a grid of that size is a slip. */
const MOST_RUNS = 1000;
/** The seed of `malc train`. */
const USUAL_SEEDS = [1337];

/**
 * @param pathOrName a file, or one of those that come with malc by its name
 * @throws UserError where there is no such file; SourceError where it is at fault, with all that is wrong in it.
 */
export function readSweep(pathOrName: string, rules: OptionRules): Sweep {
  const path = findSweep(pathOrName);
  const text = readText(path);
  const syntax = parseSweep(text, path);
  const sources = new Map([[path, text]]);
  if ('severity' in syntax) throw new SourceError([syntax], sources);
  const reader = new Reader(syntax, rules);
  const sweep = reader.sweep();
  if (reader.faults.length === 0) return sweep;
  throw new SourceError(
    reader.faults.toSorted((a, b) => (a.span?.start ?? 0) - (b.span?.start ?? 0)),
    sources,
  );
}

/** A word of --data as it is from any folder: names of the hub are the same everywhere. */
export const dataFrom = (folder: string, word: string): string =>
  word.startsWith('hf:') ? word : resolve(folder, word);

function findSweep(pathOrName: string): string {
  if (existsSync(pathOrName)) return pathOrName;
  const shipped = readdirSync(packagePath('sweeps')).filter(name => extname(name) === ENDING);
  const names = shipped.map(name => basename(name, ENDING));
  if (names.includes(pathOrName)) return join(packagePath('sweeps'), pathOrName + ENDING);
  const help = didYouMean(pathOrName, names, `those that come with malc are ${listed(names)}`);
  throw new UserError(`there is no file ${pathOrName}\nhelp: ${help}`);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UserError(code === 'EISDIR' ? `${path} is a folder, and a sweep file is needed` : message);
  }
}

class Reader {
  readonly faults: Diagnostic[] = [];
  readonly #syntax: SweepSyntax;
  readonly #rules: OptionRules;

  constructor(syntax: SweepSyntax, rules: OptionRules) {
    this.#syntax = syntax;
    this.#rules = rules;
  }

  sweep(): Sweep {
    const { file, text, settings, groups } = this.#syntax;
    for (const { name, nameSpan } of settings) {
      const isGroup = GROUPS.includes(name);
      const help = isGroup
        ? `write \`${name === 'variant' ? 'variant NAME' : name} { ... }\``
        : didYouMean(name, [...SETTINGS, ...GROUPS], this.#advice(name));
      if (!SETTINGS.includes(name)) this.#fault(nameSpan, `a sweep has no ${quoted(name)} with a value`, help);
    }
    for (const group of groups) this.#checkGroup(group);
    this.#checkTwice(settings);
    for (const setting of settings) if (setting.name !== 'equal') this.#checkPlain(setting);
    const variants = this.#variants(groups);
    const seeds = this.#seeds();
    const runs = variants.length * seeds.length;
    const first = groups[0]?.nameSpan ?? settings[0]?.nameSpan ?? null;
    if (runs > MOST_RUNS) this.#fault(first, `the file asks for ${runs} runs; at most ${MOST_RUNS} can be`);
    return {
      name: basename(file, extname(file)),
      path: file,
      text,
      data: this.#data(),
      tokenizer: this.#tokenizer(),
      equal: this.#equality(variants),
      seeds,
      variants,
    };
  }

  /** A path from the folder of the sweep file; what names no file, such as a well-known model, stays as it is written. */
  #place(text: string): string {
    const path = resolve(dirname(this.#syntax.file), text);
    return existsSync(path) || extname(text) !== '' ? path : text;
  }

  #setting(name: string): Setting | undefined {
    return this.#syntax.settings.find(setting => setting.name === name);
  }

  #data(): Sweep['data'] {
    const setting = this.#setting('data');
    if (setting === undefined) return null;
    const [first, ...others] = setting.values;
    if (first!.kind === 'word' && first!.text === 'stories' && others.length === 0) return 'stories';
    for (const { kind, text, span } of setting.values)
      if (kind !== 'string')
        this.#fault(
          span,
          `${quoted(text)} is no text in quotes`,
          didYouMean(text, ['stories'], 'a path stands in quotes'),
        );
    return setting.values.map(({ text }) => dataFrom(dirname(this.#syntax.file), text));
  }

  #tokenizer(): string | null {
    const setting = this.#setting('tokenizer');
    const value = setting && this.#single(setting);
    return value ? this.#place(value.text) : null;
  }

  #checkGroup({ name, nameSpan, label }: Group): void {
    if (!GROUPS.includes(name)) {
      const help = SETTINGS.includes(name) ? `write \`${name}: ...\`` : didYouMean(name, [...GROUPS, ...SETTINGS]);
      this.#fault(nameSpan, `a sweep has no ${quoted(name)}`, help ?? `it has ${listed([...SETTINGS, ...GROUPS])}`);
      return;
    }
    if (name === 'variant' && label === null) this.#fault(nameSpan, 'a variant has a name', 'as in `variant wide { }`');
    if (name === 'variant') return;
    if (label !== null) this.#fault(nameSpan, `${quoted(name)} has no name`, `write \`${name} { ... }\``);
    if (this.#syntax.groups.find(group => group.name === name)!.nameSpan !== nameSpan)
      this.#fault(nameSpan, `${quoted(name)} is here twice`, 'put all of it into one');
  }

  #variants(groups: readonly Group[]): Variant[] {
    const of = (name: string) => groups.filter(group => group.name === name);
    const base = of('train')[0]?.properties ?? [];
    this.#checkTwice(base);
    const model = this.#setting('model');
    const shared = [...(model ? [model] : []), ...base].flatMap(setting => {
      const isKnown = this.#rules.names.includes(setting.name) || this.#rules.refused[setting.name] !== undefined;
      if (isKnown) return this.#choices(setting, false);
      const help = didYouMean(setting.name, this.#rules.names);
      this.#fault(setting.nameSpan, `malc train has no option ${quoted(setting.name)}`, help);
      return [];
    });
    const listedVariants = of('variant').map(({ label, labelSpan, properties }) => {
      this.#checkTwice(properties);
      return {
        label: label ?? '',
        nameSpan: labelSpan,
        choices: properties.flatMap(each => this.#choices(each, false)),
      };
    });
    for (const [index, { label, nameSpan }] of listedVariants.entries())
      if (listedVariants.findIndex(other => other.label === label) < index)
        this.#fault(nameSpan, `there are two variants ${quoted(label)}`, 'each is a folder of its own');
    const grid = of('grid')[0]?.properties ?? [];
    this.#checkTwice(grid);
    const axes = grid.map(setting => this.#choices(setting, true));
    for (const { label, nameSpan, choices } of listedVariants)
      for (const { name } of choices)
        if (grid.some(setting => setting.name === name))
          this.#fault(nameSpan, `the variant ${quoted(label)} and the grid both say ${quoted(name)}`, 'leave one out');
    if (listedVariants.length === 0 && axes.length === 0)
      this.#fault(
        null,
        `${this.#syntax.file} compares nothing`,
        'add `variant NAME { ... }` for each variant, or `grid { NAME: [VALUE, VALUE] }`',
      );
    const variants = productOf(shared, listedVariants, axes);
    const names = variants.map(({ name }) => name);
    const double = names.find((name, index) => names.indexOf(name) < index);
    if (double !== undefined && grid.length > 0)
      this.#fault(grid[0]!.nameSpan, `two variants are called ${quoted(double)}`, 'name each value of a grid once');
    return variants;
  }

  /** The values of a setting: one, or for a grid each of a list. Names that are no option are constants of the model. */
  #choices(setting: Setting, isAxis: boolean): Choice[] {
    const { name, nameSpan, isList, values } = setting;
    this.#checkPlain(setting);
    const advice = this.#rules.refused[name];
    if (advice !== undefined) {
      this.#fault(nameSpan, `a sweep sets ${quoted(name)} itself`, advice);
      return [];
    }
    if (!this.#rules.names.includes(name)) {
      if (isList && !isAxis) this.#fault(nameSpan, `a list of values for ${quoted(name)} belongs into a grid`);
      const wrong = values.find(({ kind }) => kind !== 'number');
      if (wrong) this.#fault(wrong.span, `${quoted(name)} is no option of malc train, and a constant is a number`);
      return values.map(({ text }) => ({ name, nameSpan, isOption: false, instead: [], text, value: text }));
    }
    if (isList && !isAxis && !this.#rules.isList(name))
      this.#fault(nameSpan, `${quoted(name)} takes one value`, 'a list of them belongs into a `grid`');
    const { instead, isList: takesList } = this.#rules;
    const chosen = values.flatMap((value): Choice[] => {
      const read = this.#rules.read(name, value);
      if ('complaint' in read) {
        this.#fault(value.span, read.complaint);
        return [];
      }
      const taken = this.#rules.isPath(name) ? this.#place(value.text) : read.value;
      return [{ name, nameSpan, isOption: true, instead: instead(name), text: value.text, value: taken }];
    });
    if (isAxis || !takesList(name)) return chosen;
    return chosen.slice(0, 1).map(first => ({ ...first, value: chosen.map(({ value }) => value) }));
  }

  #seeds(): readonly number[] {
    const setting = this.#setting('seeds');
    if (setting === undefined) return USUAL_SEEDS;
    if (!setting.isList) this.#fault(setting.nameSpan, 'seeds are a list', 'as in `seeds: [1, 2, 3]`');
    const seeds = setting.values.flatMap(value => {
      const read = this.#rules.read('seed', value);
      if ('value' in read) return [read.value as number];
      this.#fault(value.span, read.complaint);
      return [];
    });
    if (new Set(seeds).size < seeds.length) this.#fault(setting.nameSpan, 'a seed is named twice', 'each is one run');
    return seeds;
  }

  #equality(variants: readonly Variant[]): Equality | null {
    const setting = this.#setting('equal');
    const kind = setting && this.#single(setting);
    if (!setting || !kind) return null;
    const { properties } = setting;
    if (!EQUALITIES.includes(kind.text)) {
      this.#fault(kind.span, `${quoted(kind.text)} cannot be held equal`, `${either(EQUALITIES)} can`);
      return null;
    }
    const allowed = kind.text === 'parameters' ? ['by', 'multiple', 'to'] : [];
    for (const { name, nameSpan } of properties)
      if (!allowed.includes(name)) {
        const help = allowed.length > 0 ? didYouMean(name, allowed, `it has ${listed(allowed)}`) : 'it has none';
        this.#fault(nameSpan, `${quoted(`equal: ${kind.text}`)} has no property ${quoted(name)}`, help);
      }
    this.#checkTwice(properties);
    for (const property of properties) this.#checkPlain(property);
    if (kind.text !== 'parameters') {
      this.#checkLengths(kind.text, variants);
      return { kind: kind.text as 'tokens' | 'flops' };
    }
    const property = (name: string) => properties.find(each => each.name === name);
    const bySetting = property('by');
    const by = bySetting && this.#single(bySetting);
    if (!bySetting || !by) {
      const help = 'say with `by` which constant of the model is found, as in `equal: parameters { by: width }`';
      this.#fault(kind.span, 'equal parameters need a constant that makes them so', help);
      return null;
    }
    if (this.#rules.names.includes(by.text))
      this.#fault(by.span, `${quoted(by.text)} is an option of malc train`, 'name a `let` of the model');
    return {
      kind: 'parameters',
      by: by.text,
      bySetting,
      multiple: this.#count(property('multiple')) ?? 1,
      to: this.#count(property('to')),
    };
  }

  /** What is derived for each variant is not theirs to say. */
  #checkLengths(kind: string, variants: readonly Variant[]): void {
    const lengths = ['steps', 'epochs', 'tokens'];
    const said = new Map(
      variants.flatMap(({ own }) =>
        own.filter(({ name }) => lengths.includes(name)).map(each => [each.nameSpan, each]),
      ),
    );
    for (const { name, nameSpan } of said.values())
      this.#fault(nameSpan, `${quoted(name)} follows from ${quoted(`equal: ${kind}`)}`, 'say it once, in `train`');
  }

  #count(setting: Setting | undefined): number | null {
    const value = setting && this.#single(setting);
    if (!value) return null;
    const count = Number(value.text);
    if (Number.isSafeInteger(count) && count > 0) return count;
    this.#fault(value.span, `${quoted(setting.name)} is a whole number of at least 1`);
    return null;
  }

  #single(setting: Setting): Scalar | null {
    if (!setting.isList) return setting.values[0]!;
    this.#fault(setting.nameSpan, `${quoted(setting.name)} takes one value`);
    return null;
  }

  /** What is said twice, or in two ways. */
  #checkTwice(settings: readonly Setting[]): void {
    for (const [index, { name, nameSpan }] of settings.entries()) {
      const before = settings.slice(0, index).map(other => other.name);
      if (before.includes(name)) this.#fault(nameSpan, `${quoted(name)} is said twice`, 'leave one of them out');
      const ways = this.#rules.names.includes(name) ? this.#rules.instead(name) : [];
      const other = before.find(each => ways.includes(each));
      if (other !== undefined)
        this.#fault(nameSpan, `${quoted(other)} and ${quoted(name)} say the same in two ways`, 'leave one of them out');
    }
  }

  #checkPlain({ name, properties }: Setting): void {
    if (properties.length > 0) this.#fault(properties[0]!.nameSpan, `${quoted(name)} has a value and no properties`);
  }

  /** Where something belongs that a user put elsewhere. */
  #advice(name: string): string | null {
    return this.#rules.names.includes(name) ? 'options of malc train belong into `train { ... }`' : null;
  }

  #fault(span: Diagnostic['span'], message: string, help: string | null = null): void {
    this.faults.push(error(span, message, help));
  }
}
