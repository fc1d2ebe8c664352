// Writes src/stores/redis/scripts.ts: the scripts of lua/, each as one string with its parts from lua/lib/ put in.
// With --check it writes nothing and fails when the file is not what it would write.
//
// The mistakes it prevents: an edited script that was never embedded, a header that says something else than the body
// does, and a command that the documented Redis ACL does not allow.
//
// Every script opens with a comment in this grammar; a line that is indented further than its label continues it:
//
//     -- What it does, in a paragraph.
//     -- KEYS      what each key is, or: none
//     -- ARGV      what each argument is, or: none
//     -- RETURNS   what comes back
//     -- COMMANDS  the Redis commands that it calls, parts included, or: none
//
// A part is put in, once a script, by a line of its own: `--- include lib/NAME.lua`. Parts may include parts.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isMain, root } from './process.mjs'

const labels = /** @type {const} */ (['KEYS', 'ARGV', 'RETURNS', 'COMMANDS'])
const include = /^\s*---\s*include\s+(\S+)\s*$/

/** Where the generated file goes. */
const target = 'src/stores/redis/scripts.ts'

/**
 * Embeds what lua/ holds. Nothing is written when there are faults.
 * @param {{ check?: boolean, folder?: string }} [options]
 * @returns {{ faults: string[], written: boolean }}
 */
export function embedLua({ check = false, folder = root } = {}) {
  const lua = join(folder, 'lua')
  if (!existsSync(lua)) return { faults: [], written: false }
  const names = readdirSync(lua)
    .filter((name) => name.endsWith('.lua'))
    .sort()
  /** @type {string[]} */
  const faults = []
  const used = new Set()
  const exports = names.map((name) => {
    const { header, source } = split(readFileSync(join(lua, name), 'utf8'))
    const body = inline(source, { lua, file: name, seen: new Set(), used, faults })
    const code = strip(body, (fault) => faults.push(`lua/${name}: ${fault}`))
    for (const fault of disagreements(header, code)) faults.push(`lua/${name}: ${fault}`)
    return declaration(name, header, code)
  })
  for (const part of existsSync(join(lua, 'lib')) ? readdirSync(join(lua, 'lib')) : []) {
    if (part.endsWith('.lua') && !used.has(`lib/${part}`)) faults.push(`lua/lib/${part}: no script includes it`)
  }
  if (faults.length > 0 || names.length === 0) return { faults, written: false }

  const text = ['// Generated from lua/ by scripts/embed-lua.mjs (npm run embed). Do not edit.', '', ...exports].join(
    '\n',
  )
  const path = join(folder, target)
  if (existsSync(path) && readFileSync(path, 'utf8') === text) return { faults, written: false }
  if (check) return { faults: [`${target} is stale: run npm run embed`], written: false }
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return { faults, written: true }
}

/**
 * Parts a script into what its header says, by label, and the rest.
 * @param {string} text
 */
function split(text) {
  const lines = text.split('\n')
  const end = lines.findIndex((line) => !line.startsWith('--') || include.test(line))
  const comment = end === -1 ? lines : lines.slice(0, end)
  /** @type {Record<string, string>} */
  const header = {}
  let label = 'ABOUT'
  for (const line of comment) {
    const found = /^-- ?(?:([A-Z]+)(?::|\s+|$))?(.*)$/.exec(line)
    const known = labels.find((name) => name === found?.[1])
    if (known !== undefined) label = known
    const words = (known === undefined ? line.slice(2) : (found?.[2] ?? '')).trim()
    header[label] = `${header[label] ?? ''} ${words}`.trim()
  }
  return { header, source: end === -1 ? '' : lines.slice(end).join('\n') }
}

/**
 * Puts the parts in where they are named.
 * @param {string} source
 * @param {{ lua: string, file: string, seen: Set<string>, used: Set<string>, faults: string[] }} at
 * @returns {string}
 */
function inline(source, at) {
  return source
    .split('\n')
    .map((line) => {
      const part = include.exec(line)?.[1]
      if (part === undefined) return line
      const path = join(at.lua, part)
      if (!existsSync(path)) {
        at.faults.push(`lua/${at.file}: includes ${part}, which does not exist`)
        return ''
      }
      if (at.seen.has(part)) return ''
      at.seen.add(part)
      at.used.add(part)
      return inline(readFileSync(path, 'utf8'), { ...at, file: part })
    })
    .join('\n')
}

/**
 * Leaves out comments, blank lines and indentation, and nothing inside a string. It reads line by line, so it refuses what
 * goes on over several lines.
 * @param {string} code
 * @param {(fault: string) => void} fault
 */
function strip(code, fault) {
  if (/\[=*\[/.test(code)) fault('write line comments and quoted strings: long brackets ([[...]]) cannot be embedded')
  if (/\\$/m.test(code)) fault('a string must end on the line that it begins on')
  return code
    .split('\n')
    .map((line) => withoutComment(line).trim())
    .filter((line) => line !== '')
    .join('\n')
}

/** @param {string} line */
function withoutComment(line) {
  let quote = ''
  for (let at = 0; at < line.length; at++) {
    const char = line[at]
    if (quote !== '') {
      if (char === '\\') at++
      else if (char === quote) quote = ''
    } else if (char === '"' || char === "'") quote = char
    else if (char === '-' && line[at + 1] === '-') return line.slice(0, at)
  }
  return line
}

/**
 * Where a header and the code under it say different things.
 * @param {Record<string, string>} header
 * @param {string} code stripped, with all parts put in
 */
function disagreements(header, code) {
  const faults = []
  if (!header['ABOUT']) faults.push('the header does not say what the script does')
  for (const label of labels) if (!header[label]) faults.push(`the header has no ${label} line`)
  if (faults.length > 0) return faults

  for (const label of /** @type {const} */ (['KEYS', 'ARGV'])) {
    const none = isNone(header[label])
    const uses = new RegExp(`\\b${label}\\b`).test(code)
    if (none && uses) faults.push(`the header says ${label} none, the body uses ${label}`)
    if (!none && !uses) faults.push(`the header describes ${label}, the body never uses ${label}`)
  }

  const listed = commands(header)
  const called = new Set()
  for (const call of code.matchAll(/\bredis\s*\.\s*p?call\b(?:\s*\(\s*(['"])([A-Za-z]+)\1)?/g)) {
    if (call[2] === undefined)
      faults.push('a redis.call that does not begin with the name of its command in quotes cannot be checked')
    else called.add(call[2].toUpperCase())
  }
  for (const command of called)
    if (!listed.includes(command)) faults.push(`calls ${command}, which COMMANDS does not list`)
  for (const command of listed)
    if (!called.has(command)) faults.push(`COMMANDS lists ${command}, which is never called`)
  return faults
}

/** @param {string | undefined} text */
function isNone(text) {
  return /^none\b/i.test(text ?? '')
}

/** @param {Record<string, string>} header */
function commands(header) {
  return isNone(header['COMMANDS'])
    ? []
    : (header['COMMANDS'] ?? '')
        .toUpperCase()
        .split(/[\s,]+/)
        .filter(Boolean)
}

/**
 * @param {string} name the script's file name
 * @param {Record<string, string>} header
 * @param {string} code
 */
function declaration(name, header, code) {
  const identifier = name.replace(/\.lua$/, '').replace(/[-_]+([a-z0-9])/g, (_, letter) => letter.toUpperCase())
  const escaped = code.replace(/[\\`]|\$\{/g, '\\$&')
  return [
    `/** lua/${name}. Calls ${commands(header).join(', ') || 'no command'}. */`,
    `export const ${identifier}Script: string = \`${escaped}\``,
    '',
  ].join('\n')
}

if (isMain(import.meta.url)) {
  const check = process.argv.includes('--check')
  const { faults, written } = embedLua({ check })
  for (const fault of faults) console.error(fault)
  if (faults.length === 0) console.log(`${target} ${written ? 'written' : 'is fresh'}`)
  process.exitCode = faults.length > 0 ? 1 : 0
}
