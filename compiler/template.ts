// Handlebars frames from templates/: the only door to handlebars. A missing field is an error; nothing is escaped.
import Handlebars from 'handlebars';
import { readPackageFile } from './package-files.ts';

const compiled = new Map<string, Handlebars.TemplateDelegate>();

/** Renders templates/PATH. Templates are compiled once. */
export function renderTemplate(path: string, fields: object): string {
  let template = compiled.get(path);
  if (!template) {
    template = Handlebars.compile(readPackageFile(`templates/${path}`), { noEscape: true, strict: true });
    compiled.set(path, template);
  }
  return template(fields);
}
