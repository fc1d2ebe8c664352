import type * as z from 'zod'
import { RampmeterError } from './errors.ts'

/**
 * Parses options that a user wrote. A mistake becomes one {@link RampmeterError} that says where, what was seen, and what to
 * write: all mistakes of the object are listed, so that one restart mends them.
 *
 * A duration and a policy's name are told alone, by codes of their own.
 *
 * @throws {RampmeterError} `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_OPTION`
 */
export function readOptions<Schema extends z.ZodObject>(
  schema: Schema,
  value: unknown,
  what: string,
): z.output<Schema> {
  if (isRequest(value)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what} was given a request in place of options: call it first, and use what it returns; write ${what}()`,
    )
  }
  if (isInstanceOfSomethingElse(value, schema)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: the options: saw an instance of a class that has none of them; there are ${Object.keys(schema.shape).join(', ')}`,
    )
  }
  let result: z.ZodSafeParseResult<z.output<Schema>>
  try {
    result = schema.safeParse(value)
  } catch (error) {
    // What a transform throws, such as for a window that is missing, is often the lack of what was misspelt.
    const misspelt = Object.keys(value as object).filter((key) => !Object.hasOwn(schema.shape, key))
    if (misspelt.length === 0) throw error
    throw new RampmeterError('RAMPMETER_UNKNOWN_OPTION', `${what}: ${describeUnknown(misspelt, schema)}`, {
      cause: error,
    })
  }
  if (result.success) return result.data
  const mistakes = result.error.issues.map((issue) => describe(issue, schema, value))
  const unknown = result.error.issues.every((issue) => issue.code === 'unrecognized_keys')
  throw new RampmeterError(
    unknown ? 'RAMPMETER_UNKNOWN_OPTION' : 'RAMPMETER_INVALID_OPTION',
    `${what}: ${mistakes.join('; ')}`,
  )
}

/** A function that makes middleware was itself used as middleware: a common slip. */
function isRequest(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'httpVersion' in value && 'socket' in value
}

/**
 * Another slip: `rampmeter(redisStore(redis))`. A store has no fields that could be called unknown, so it would be read as no options
 * at all, and counters would be kept in memory.
 */
function isInstanceOfSomethingElse(value: unknown, schema: z.ZodObject): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null
  return !isPlain && Object.keys(value).length === 0 && !Object.keys(schema.shape).some((key) => key in value)
}

function describe(issue: z.core.$ZodIssue, schema: z.ZodObject, value: unknown): string {
  const path = issue.path.map(String)
  if (issue.code === 'unrecognized_keys') {
    if (path.length === 0) return describeUnknown(issue.keys, schema)
    return `unknown option ${listOf(issue.keys)} in ${path.join('.')}`
  }
  if (issue.code === 'invalid_key') {
    const where = path.length > 1 ? ` in \`${path.slice(0, -1).join('.')}\`` : ''
    return `the name ${JSON.stringify(withoutUser(path.at(-1)!))}${where}: expected ${issue.issues[0]?.message}`
  }
  const seen = path.reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], value)
  return `${path.length === 0 ? 'the options' : `\`${withoutUser(path.join('.'))}\``}: saw ${path.some((key) => /secret/i.test(key)) ? shape(seen) : show(seen)}, expected ${expected(issue)}`
}

function describeUnknown(keys: readonly string[], schema: z.ZodObject): string {
  return `unknown option ${listOf(keys)}; there are ${Object.keys(schema.shape).join(', ')}`
}

function listOf(keys: readonly string[]): string {
  return keys.map((key) => `\`${key}\``).join(', ')
}

function expected(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_value') return issue.values.map((one) => JSON.stringify(one)).join(' or ')
  if (issue.code === 'invalid_type' && !issue.message.startsWith('Invalid input')) return issue.message
  if (issue.code === 'invalid_type') return a(issue.expected === 'record' ? 'object' : issue.expected)
  if (issue.message.startsWith('Too small') && 'origin' in issue && !/^(number|int)$/.test(issue.origin)) {
    return 'one that is not empty'
  }
  return issue.message
    .replace(/^Invalid input: expected /, '')
    .replace(/^Too (small|big): expected \w+ to be /, 'a number ')
}

function a(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`
}

/** Shows a value where it is short and no secret. */
function show(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (typeof value === 'string' && value.length <= 40) return JSON.stringify(withoutUser(value))
  return shape(value)
}

/** A URL may carry a name and a password. What looks like one is taken for one, up to the last `@`: a password may hold the first. */
function withoutUser(text: string): string {
  return text.replace(/:\/\/.*@/, '://…@')
}

/** Says what kind of value it is, and nothing of the value itself. */
function shape(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (typeof value === 'string') return `a text of ${value.length} ${value.length === 1 ? 'character' : 'characters'}`
  if (typeof value !== 'object') return a(typeof value)
  return Array.isArray(value) ? `a list of ${value.length}` : 'an object'
}
