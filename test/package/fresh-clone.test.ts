// What runs before anything is installed. `npm run demo` and `npm test` install what they need first, so neither may load a package
// before: a static import is loaded whatever the code does first.

import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

const scripts = new URL('../../scripts/', import.meta.url)

/** What a script imports when it is loaded, and what those do. */
function importsOf(script: URL, seen = new Map<string, readonly string[]>()): Map<string, readonly string[]> {
  const text = readFileSync(script, 'utf8')
  const specifiers = [...text.matchAll(/^import (?:[^'"]*? from )?['"]([^'"]+)['"]/gm)].map(
    ([, specifier]) => specifier!,
  )
  seen.set(script.href, specifiers)
  for (const specifier of specifiers.filter((one) => one.startsWith('.'))) {
    const next = new URL(specifier, script)
    if (!seen.has(next.href)) importsOf(next, seen)
  }
  return seen
}

it.each(['demo.mjs', 'test.mjs'])('scripts/%s loads no package, for in a fresh clone there is none', (name) => {
  const loaded = [...importsOf(new URL(name, scripts)).values()].flat()
  expect(loaded).toContain('./install.mjs')
  expect(loaded.filter((specifier) => !/^(\.|node:)/.test(specifier))).toEqual([])
})
