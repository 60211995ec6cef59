// `extends` (LANGUAGE 2.1): the properties of a definition over those of the one that it copies. A property replaces the
// inherited one as a whole; only the groups without a colon (`embeddings`, `moe` and the like) are merged, property by property.
import type { Property } from '../syntax/syntax.ts';
import { canonicalNames, type DefinitionKind, type PropertyTable, tables } from './properties.ts';

/** The inherited properties that are left, and after them a definition's own. */
export function extended(
  kind: DefinitionKind,
  inherited: readonly Property[],
  own: readonly Property[],
): readonly Property[] {
  return merged(tables[kind], inherited, own);
}

function merged(table: PropertyTable, inherited: readonly Property[], own: readonly Property[]): readonly Property[] {
  const canonical = canonicalNames(table);
  const nameOf = (property: Property) => canonical.get(property.name) ?? property.name;
  const replaced = new Set(own.flatMap(property => [nameOf(property), ...(table[nameOf(property)]?.replaces ?? [])]));
  const combined = own.map(property => {
    const type = table[nameOf(property)]?.type;
    const before = inherited.find(other => nameOf(other) === nameOf(property))?.value;
    const { value } = property;
    if (type?.kind !== 'group' || value.kind !== 'group' || before?.kind !== 'group') return property;
    return { ...property, value: { ...value, properties: merged(type.table, before.properties, value.properties) } };
  });
  return [...inherited.filter(property => !replaced.has(nameOf(property))), ...combined];
}
