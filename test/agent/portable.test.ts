// The client needs nothing installed and nothing that only Node has: its files import one another and errors.ts, and compile
// against a browser's globals.

import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { expect, it, onTestFinished } from 'vitest'
import { bin, root } from '../../scripts/process.mjs'

function filesFrom(entry: string, seen = new Set<string>()): Set<string> {
  if (seen.has(entry)) return seen
  seen.add(entry)
  for (const [, target] of readFileSync(entry, 'utf8').matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
    if (target!.startsWith('.')) filesFrom(join(dirname(entry), target!), seen)
    else seen.add(target!)
  }
  return seen
}

it('imports its own files and errors.ts', () => {
  const files = [...filesFrom(join(root, 'src', 'agent', 'index.ts'))].map((file) => relative(root, file))
  expect(files.length).toBeGreaterThan(10)
  expect(files.filter((file) => !file.startsWith('src/agent/'))).toEqual(['src/errors.ts'])
})

it("compiles with a browser's globals, and without Node's", { timeout: 60_000 }, async () => {
  mkdirSync(join(root, '.build'), { recursive: true })
  const folder = mkdtempSync(join(root, '.build', 'browser-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(
    join(folder, 'page.ts'),
    `import { pacedFetch } from '../../src/agent/index.ts'
const paced: typeof fetch = pacedFetch({ fetch: window.fetch.bind(window), maxWait: '5s' })
export const answer: Promise<Response> = paced('/relative', { signal: AbortSignal.timeout(1000) })
// errors.ts warns with it, on servers only.
declare global { const process: { emitWarning(message: string, options: object): void } }
`,
  )
  const compilerOptions = {
    rootDir: '../..',
    types: [],
    lib: ['es2023', 'dom', 'dom.iterable'],
    declaration: false,
    isolatedDeclarations: false,
    rewriteRelativeImportExtensions: false,
    allowImportingTsExtensions: true,
  }
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ extends: '../../tsconfig.json', compilerOptions, include: ['page.ts'] }),
  )
  await promisify(execFile)(bin('tsc'), ['-p', folder]).catch(({ stdout }: { stdout: string }) => {
    throw new Error(stdout)
  })
})
