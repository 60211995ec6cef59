// Handlebars frames from templates/: the only door to handlebars. A missing field is an error; nothing is escaped.
import Handlebars from 'handlebars';
import { readPackageFile } from './package-files.ts';

const frames = Handlebars.create();
const compiled = new Map<string, Handlebars.TemplateDelegate>();

/** Renders templates/PATH. Templates are compiled once. */
export function renderTemplate(path: string, fields: object): string {
  let template = compiled.get(path);
  if (!template) {
    template = frames.compile(read(path), { noEscape: true, strict: true });
    compiled.set(path, template);
  }
  return template(fields);
}

/** A frame's text, once the frames that it takes in as `{{> FOLDER/NAME}}` are known: templates/FOLDER/NAME.hbs. */
function read(path: string): string {
  const text = readPackageFile(`templates/${path}`);
  for (const [, name] of text.matchAll(/\{\{> ([\w/-]+)\}\}/g))
    if (!(name! in frames.partials)) frames.registerPartial(name!, read(`${name}.hbs`));
  return text;
}
