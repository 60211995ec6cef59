// From syntax to models: names resolved, defaults filled, every rule of LANGUAGE 1.2 and 1.3 held.
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Span, SyntaxFile } from '../syntax/syntax.ts';
import { Definitions } from './definitions.ts';
import type { Model } from './model.ts';
import { resolveModel } from './resolve-model.ts';

/**
 * Checks a file and returns its models, in the order of the text; a model with a fault is left out. Several faults are
 * reported together, each once and in the order of the text.
 *
 * @param imported the files that it imports, and those that these import: their definitions are its own, their models are
 * there for others to extend.
 */
export function checkFile(
  syntax: SyntaxFile,
  imported: readonly SyntaxFile[] = [],
): { models: Model[]; diagnostics: Diagnostic[] } {
  const files = [syntax, ...imported];
  const diagnostics = new Map<string, Diagnostic>();
  // Two models that use one block find the same faults in it.
  const report = (diagnostic: Diagnostic) => {
    const { message, span } = diagnostic;
    const place = `${span?.file} ${span?.start} ${message}`;
    if (!diagnostics.has(place)) diagnostics.set(place, diagnostic);
  };
  const definitions = new Definitions(files, report);
  const declared = definitions.all('model').filter(model => model.span?.file === syntax.file);
  declared.sort((a, b) => a.span!.start - b.span!.start);
  const models: Model[] = [];
  let layers = 0;
  for (const read of declared) {
    const model = resolveModel(read, { files, definitions, report });
    layers += model?.layers.length ?? 0;
    if (model) models.push(model);
    if (layers <= mostLayers) continue;
    report(errors.tooManyLayers(read.span, mostLayers));
    break;
  }
  // After an error a use may have been missed, and in a file without a model nothing is used.
  if (declared.length > 0 && ![...diagnostics.values()].some(isError))
    for (const unused of unusedDefinitions(syntax, definitions)) report(unused);
  const fileOrder = (diagnostic: Diagnostic) => files.findIndex(({ file }) => file === diagnostic.span?.file);
  const ordered = [...diagnostics.values()].sort(
    (a, b) => fileOrder(a) - fileOrder(b) || (a.span?.start ?? 0) - (b.span?.start ?? 0),
  );
  return { models, diagnostics: ordered };
}

/** Of all models of a file together: each layer has its place in a Model. */
const mostLayers = 100_000;

export interface CheckOptions {
  /** The name of the model; it may be left out where the file has one. */
  readonly model?: string | undefined;
  /** As for checkFile. */
  readonly imported?: readonly SyntaxFile[];
}

/** Checks a file and returns the one model that is asked for; it is null where any diagnostic is an error. */
export function check(
  syntax: SyntaxFile,
  options: CheckOptions = {},
): { model: Model | null; diagnostics: Diagnostic[] } {
  const { models, diagnostics } = checkFile(syntax, options.imported);
  const declared = syntax.definitions.filter(definition => definition.kind === 'model');
  const fault = chooseModel(syntax, declared, options.model);
  if (fault) diagnostics.push(fault);
  if (diagnostics.some(isError)) return { model: null, diagnostics };
  const model = models.find(candidate => candidate.name === (options.model ?? models[0]!.name));
  return { model: model ?? null, diagnostics };
}

const isError = (diagnostic: Diagnostic) => diagnostic.severity === 'error';

function chooseModel(
  syntax: SyntaxFile,
  declared: readonly { name: string; nameSpan: Span }[],
  wanted: string | undefined,
): Diagnostic | null {
  const names = [...new Set(declared.map(model => model.name))];
  if (names.length === 0) return errors.noModel(syntax.file);
  if (wanted === undefined) return names.length === 1 ? null : errors.severalModels(names, declared[1]!.nameSpan);
  return names.includes(wanted) ? null : errors.unknownModel(syntax.file, wanted, names);
}

/** Definitions of the file that no model reaches: nothing in them acts. */
function unusedDefinitions(syntax: SyntaxFile, definitions: Definitions): Diagnostic[] {
  return syntax.definitions.flatMap(definition => {
    const used = definition.kind === 'model' || definitions.isUsed(definition);
    return used ? [] : [errors.unusedDefinition(definition.nameSpan, definition.kind, definition.name)];
  });
}
