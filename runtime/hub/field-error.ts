// What is wrong with a field of a configuration file, as an error for the user.
import { UserError } from '../../compiler/diagnostic.ts';

/**
 * @param where the file
 * @param value undefined where the field is missing
 * @param expected what would do, after "malc needs"
 */
export function fieldError(where: string, field: string, value: unknown, expected: string): UserError {
  const actual = value === undefined ? 'is missing' : `is ${JSON.stringify(value)}, which is not supported`;
  return new UserError(`${where}: ${field} ${actual}; malc needs ${expected}`);
}
