import * as z from 'zod'
import { readOptions } from '../read-options.ts'

const fieldName = z
  .string()
  .regex(/^[\w!#$%&'*+.^`|~-]+$/, 'the name of a header field')
  .optional()

const fieldsSchema = z.strictObject({ country: fieldName, asn: fieldName, ja4: fieldName })

/**
 * Lets names of header fields through.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function checkFields<Fields extends object>(fields: Fields, what: string): Fields {
  readOptions(fieldsSchema, fields, what)
  return fields
}
