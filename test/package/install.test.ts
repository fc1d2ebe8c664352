// The package as npm delivers it: installed from its tarball into empty projects, on both versions of Express, as ES modules and
// as CommonJS, run and compiled there, and in Jest.

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const limit = { timeout: 120_000 }

let folder: string
let tarball: string

/** Runs a program to its end; what it printed, or an error that shows it. */
async function run(cwd: string, program: string, ...args: string[]): Promise<string> {
  // Without what npm and vitest hand down, which would say that we are in another project.
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|NODE_OPTIONS|NODE_ENV|VITEST|JEST)/i.test(name),
  )
  try {
    const { stdout, stderr } = await promisify(execFile)(program, args, { cwd, env: Object.fromEntries(inherited) })
    return stdout + stderr
  } catch (error) {
    const { stdout, stderr, message } = error as { stdout: string; stderr: string; message: string }
    throw new Error(`${program} ${args.join(' ')}: ${message}\n${stdout}\n${stderr}`, { cause: error })
  }
}

function makeProject(name: string, type: 'module' | 'commonjs'): string {
  const project = join(folder, name)
  mkdirSync(project, { recursive: true })
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name, version: '1.0.0', private: true, type }))
  return project
}

async function install(project: string, ...packages: string[]): Promise<string> {
  return await run(project, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball, ...packages)
}

/** A project of the other kind with the packages of one that is installed: what npm installs does not depend on the kind. */
function shareInstalled(from: string, name: string, type: 'module' | 'commonjs'): void {
  symlinkSync(join(folder, from, 'node_modules'), join(makeProject(name, type), 'node_modules'), 'junction')
}

/** What every project runs, whatever it imports it with. */
const program = `
const limiter = rampmeter({
  store: memoryStore({ now: manualClock() }),
  identify: [apiKey({ lookup: async (key) => ({ id: key, type: 'agent' }) })],
  routes: { 'GET /search/:id': { cost: 3 } },
})
const app = express()
app.use(limiter)
app.get('/search/:id', (req, res) => res.json(req.rateLimit.limits.map(({ remaining }) => remaining)))
const server = app.listen(0, async () => {
  const reply = await pacedFetch()('http://127.0.0.1:' + server.address().port + '/search/1', { headers: { 'x-api-key': 'acme' } })
  console.log(JSON.stringify([reply.status, await reply.json(), reply.headers.get('ratelimit-remaining')]))
  try {
    rampmeter({ polices: [] })
  } catch (error) {
    console.log(error instanceof RampmeterError, error.code)
  }
  server.closeAllConnections()
  server.close()
  await limiter.close()
})
`
const names = 'apiKey, memoryStore, rampmeter, RampmeterError'
const asModule = `import express from 'express'
import { ${names} } from 'rampmeter'
import { pacedFetch } from 'rampmeter/client'
import { manualClock } from 'rampmeter/testing'
${program}`
const asCommonJS = `const express = require('express')
const { ${names} } = require('rampmeter')
const { pacedFetch } = require('rampmeter/client')
const { manualClock } = require('rampmeter/testing')
${program}`
const answer = '[200,[197,19997,500],"197"]\ntrue RAMPMETER_UNKNOWN_OPTION\n'

const typed = (imports: string): string => `${imports}

const app = express()
const limiter = rampmeter({
  identify: [apiKey({ lookup: async (key: string) => ({ id: key, type: 'agent', claims: { plan: 'gold' } }) })],
  tiers: { ...presetTiers(), premium: { policies: [tokenBucket({ quota: 100, window: '1m', burst: 20 })] } },
  classify: (_req, client) => (client.claims.plan === 'gold' ? 'premium' : 'human'),
})
app.use(limiter)
app.get('/search/:id', limiter.route({ cost: 5 }), (req, res) => {
  const id: string = req.params.id
  const plan: string = req.rateLimit?.client.claims.plan
  const decision: Decision | undefined = req.rateLimit
  // @ts-expect-error -- there is no such parameter
  void req.params.name
  res.json({ id, plan, left: decision?.limits[0]?.remaining })
})
// @ts-expect-error -- there is no such tier
limiter.route({ policies: { gold: [] } })
// @ts-expect-error -- misspelt
rampmeter({ tiers: { ...presetTiers(), human: { policies: [], initalBurst: { quota: 1, window: '1m' } } } })
export const clock: number = manualClock()()
export const paced: typeof fetch = pacedFetch({ onWait: ({ ms }: Wait): number => ms })
// @ts-expect-error -- no such duration
pacedFetch({ maxWait: '1 minute' })
`
const typedImports = (expressImport: string): string => `${expressImport}
import { apiKey, presetTiers, rampmeter, tokenBucket, type Decision } from 'rampmeter'
import { pacedFetch, type Wait } from 'rampmeter/client'
import { manualClock } from 'rampmeter/testing'`

/** Compiles a source with the compiler options that people have, and the declarations with it; with our own compiler, or theirs. */
async function compile(project: string, source: string, home = root): Promise<void> {
  writeFileSync(join(project, 'app.ts'), source)
  const compilerOptions = {
    module: 'node16',
    moduleResolution: 'node16',
    target: 'es2022',
    lib: ['es2022'],
    types: ['node'],
    strict: true,
    exactOptionalPropertyTypes: true,
    esModuleInterop: true,
    skipLibCheck: false,
    noEmit: true,
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['app.ts'] }))
  await run(project, process.execPath, join(home, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.')
}

beforeAll(async () => {
  for (const format of ['esm', 'cjs']) {
    if (existsSync(join(root, 'dist', format, 'index.js'))) continue
    throw new Error(`dist/${format} is missing: run \`npm run build\` first, as \`npm test\` does`)
  }
  folder = mkdtempSync(join(tmpdir(), 'rampmeter-package-'))
  // Its scripts would build, and this test tests what was built.
  const packed = await run(root, 'npm', 'pack', '--ignore-scripts', '--silent', '--pack-destination', folder)
  tarball = join(folder, packed.trim())
  await Promise.all([
    install(makeProject('express5-esm', 'module'), 'express@5', '@types/express@5', 'ioredis@6', '@types/node@20'),
    install(
      makeProject('express4-cjs', 'commonjs'),
      'express@4',
      '@types/express@4',
      '@types/node@20',
      'typescript@5',
      'jest@30',
    ),
  ])
  shareInstalled('express5-esm', 'express5-cjs', 'commonjs')
  shareInstalled('express4-cjs', 'express4-esm', 'module')
}, limit.timeout)
afterAll(() => rm(folder, { recursive: true, force: true }), limit.timeout)

describe('the tarball', () => {
  it('holds what the documentation points to, and nothing to build it with', async () => {
    const installed = join(folder, 'express5-esm', 'node_modules', 'rampmeter')
    for (const file of ['docs/errors.md', 'README.md', 'LICENSE', 'CHANGELOG.md', 'dist/cjs/package.json']) {
      expect([file, existsSync(join(installed, file))]).toEqual([file, true])
    }
    for (const file of ['src', 'test', 'lua', 'scripts', 'tsconfig.json', '.ci', 'bench']) {
      expect([file, existsSync(join(installed, file))]).toEqual([file, false])
    }
  })

  it('asks for nothing that was not asked for', () => {
    const modules = join(folder, 'express4-cjs', 'node_modules')
    expect(existsSync(join(modules, 'express', 'package.json'))).toBe(true)
    for (const optional of ['ioredis', 'isbot', 'vitest']) {
      expect([optional, existsSync(join(modules, optional))]).toEqual([optional, false])
    }
  })
})

describe.each(['express5', 'express4'])('in a project on %s', (version) => {
  it('serves as ES modules', limit, async () => {
    const project = join(folder, `${version}-esm`)
    writeFileSync(join(project, 'app.js'), asModule)
    expect(await run(project, process.execPath, 'app.js')).toBe(answer)
  })

  it('serves as CommonJS', limit, async () => {
    const project = join(folder, `${version}-cjs`)
    writeFileSync(join(project, 'app.js'), asCommonJS)
    expect(await run(project, process.execPath, 'app.js')).toBe(answer)
  })

  it('compiles as ES modules', limit, async () => {
    await compile(join(folder, `${version}-esm`), typed(typedImports(`import express from 'express'`)))
  })

  it('compiles as CommonJS', limit, async () => {
    await compile(join(folder, `${version}-cjs`), typed(typedImports(`import express = require('express')`)))
  })
})

it('compiles with TypeScript 5', limit, async () => {
  const project = join(folder, 'express4-cjs')
  await compile(project, typed(typedImports(`import express = require('express')`)), project)
})

describe('beside ioredis', () => {
  it('takes its client, by type too', limit, async () => {
    for (const kind of ['esm', 'cjs']) {
      const source = `import { Redis } from 'ioredis'
import { rampmeter, redisStore } from 'rampmeter'
export const limiter = rampmeter({ store: redisStore(new Redis({ lazyConnect: true })) })
`
      await compile(join(folder, `express5-${kind}`), source)
    }
  })
})

describe('in Jest', () => {
  it('is required as CommonJS, without flags', limit, async () => {
    const project = join(folder, 'express4-cjs')
    writeFileSync(
      join(project, 'app.test.js'),
      `const express = require('express')
const { presetTiers, rampmeter, tokenBucket } = require('rampmeter')
const { manualClock } = require('rampmeter/testing')

test('limits', async () => {
  const policies = [tokenBucket({ quota: 1, window: '1m' })]
  const limiter = rampmeter({ tiers: { ...presetTiers(), 'unverified-agent': { policies } } })
  const server = express().use(limiter, (req, res) => res.end()).listen(0)
  const ask = () => fetch('http://127.0.0.1:' + server.address().port, { headers: { 'user-agent': 'curl/8', connection: 'close' } })
  expect((await ask()).status).toBe(200)
  const refused = await ask()
  expect(refused.status).toBe(429)
  expect((await refused.json()).error.type).toBe('rate_limit_exceeded')
  expect(manualClock(0).advance('1s')).toBe(1000)
  await new Promise((resolve) => server.close(resolve))
  await limiter.close()
})
`,
    )
    const output = await run(
      project,
      process.execPath,
      join(project, 'node_modules', 'jest', 'bin', 'jest.js'),
      'app.test.js',
      // Not ours to wait for: the machine may be busy.
      '--testTimeout=60000',
    )
    expect(output).toMatch(/Tests: +1 passed, 1 total/)
  })
})
