// The MAL text of a variant: the model's file with other numbers in its `let`s.
import { dirname, join, relative } from 'node:path';
import { load } from '../../compiler/check/load.ts';
import type { Model } from '../../compiler/check/model.ts';
import { readModel, readModelText } from '../../compiler/check/read-model.ts';
import type { LetDefinition, Span, SyntaxFile } from '../../compiler/syntax/syntax.ts';

/** A model's file, of which variants are made. */
export class ModelFile {
  readonly path: string;
  readonly #name: string | undefined;
  readonly #text: string;
  readonly #syntax: SyntaxFile;
  readonly #imported: readonly SyntaxFile[];

  /**
   * @param name which model, where the file has several
   * @throws SourceError where the file is at fault, UserError where there is none.
   */
  constructor(pathOrName: string, name: string | undefined) {
    const { path, text } = readModel(pathOrName, name);
    const { syntax, imported } = load(path, text);
    this.path = path;
    this.#name = name;
    this.#text = text;
    this.#syntax = syntax;
    this.#imported = imported;
  }

  /** The names of its `let`s. */
  get constants(): string[] {
    return letsOf(this.#syntax).map(({ name }) => name);
  }

  /** The file from which it imports a constant that is not its own; null where there is none of that name. */
  originOf(constant: string): string | null {
    return this.#imported.find(file => letsOf(file).some(({ name }) => name === constant))?.file ?? null;
  }

  /**
   * The model with these numbers in place of those of its `let`s.
   *
   * @throws SourceError where it is none with them; the message shows the lines with the new numbers.
   */
  with(constants: Readonly<Record<string, string>>): { model: Model; warnings: string[] } {
    return readModelText(this.path, this.#rewritten(constants), this.#name);
  }

  /** The text with these numbers, as a file of another folder: what it imports is found from there. */
  textFor(constants: Readonly<Record<string, string>>, folder: string): string {
    return this.#rewritten(constants, path => {
      const moved = relative(folder, join(dirname(this.path), path));
      return moved.startsWith('.') ? moved : `./${moved}`;
    });
  }

  #rewritten(constants: Readonly<Record<string, string>>, moved?: (path: string) => string): string {
    const numbers = letsOf(this.#syntax).flatMap(({ name, value }) =>
      constants[name] === undefined ? [] : [{ span: value.span, text: constants[name] }],
    );
    const imports = this.#syntax.imports.map(({ path, pathSpan }) => ({
      span: pathSpan,
      text: JSON.stringify(moved?.(path) ?? path),
    }));
    return replaced(this.#text, [...numbers, ...imports]);
  }
}

const letsOf = ({ definitions }: SyntaxFile): LetDefinition[] =>
  definitions.filter(definition => definition.kind === 'let');

function replaced(text: string, parts: readonly { readonly span: Span; readonly text: string }[]): string {
  let result = text;
  for (const part of parts.toSorted((a, b) => b.span.start - a.span.start))
    result = result.slice(0, part.span.start) + part.text + result.slice(part.span.end);
  return result;
}
