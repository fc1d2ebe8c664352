// What the pages say must hold: their examples compile and run, what they show as output is what comes out, errors come from
// what is said to cause them, links lead somewhere, and pictures are what the code draws.
//
// The words after a fence's language, which a reader does not see, say what a block promises:
//   ts, js            compiles, with what test/pages/scene.ts takes for granted
//   … run             also runs, as a program of its own, and ends well; a block `text output` after it is what it prints
//   js throws         the code of its heading is thrown
//   js fails          the code of its heading reaches Express's error handler on a request
//   js warns          the code of its heading is a warning on a request, which may have headers={…}
//   http example=x    is what `answers.x` of test/pages/answers.ts gets
//   … part            is not looked at: a fragment

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { dirname, join, relative } from 'node:path'
import express, { type ErrorRequestHandler, type Express } from 'express'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { drawAlgorithms } from '../scripts/algorithm-pictures.mjs'
import { bin, root } from '../scripts/process.mjs'
import * as library from '../src/index.ts'
import { answers } from './pages/answers.ts'
import { readBlocks, readPages, type Block } from './pages/blocks.ts'
import { scene } from './pages/scene.ts'
import { startTestRedis } from './redis.ts'

const pages = readPages()
const blocks = pages.flatMap((page) => readBlocks(page))
const programs = blocks.filter(({ language, marks }) => isCode(language) && ![...marks.keys()].some(isUncompiled))

function isCode(language: string): boolean {
  return language === 'ts' || language === 'js'
}

function isUncompiled(mark: string): boolean {
  return mark === 'part' || mark === 'throws' || mark === 'fails' || mark === 'warns'
}

function placeOf({ page, line }: Block): string {
  return `${page}:${line}`
}

let folder = ''

/** The file of a block in the temporary project. */
function fileOf(block: Block): string {
  return join(folder, `${block.page.replaceAll(/[/.]/g, '-')}-${block.line}.${block.language === 'ts' ? 'ts' : 'mjs'}`)
}

/** Writes all blocks as one project, in which `rampmeter` is the source as it stands. */
beforeAll(() => {
  mkdirSync(join(root, '.build'), { recursive: true })
  folder = mkdtempSync(join(root, '.build', 'docs-'))
  const source = relative(folder, join(root, 'src')).replaceAll('\\', '/')
  const tsconfig = {
    extends: '../../tsconfig.json',
    compilerOptions: {
      rootDir: '../..',
      allowJs: true,
      checkJs: true,
      declaration: false,
      isolatedDeclarations: false,
      erasableSyntaxOnly: false,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true,
      paths: {
        rampmeter: [`${source}/index.ts`],
        'rampmeter/client': [`${source}/agent/index.ts`],
        'rampmeter/testing': [`${source}/testing/index.ts`],
      },
    },
    include: ['*'],
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(tsconfig))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'scene.d.ts'), scene)
  for (const block of programs) writeFileSync(fileOf(block), `${block.code}\nexport {}\n`)
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Run {
  code: number | string
  stdout: string
  stderr: string
}

function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Promise<Run> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd: folder, env, timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : (error.code ?? error.signal ?? 1), stdout, stderr }),
    )
  })
}

describe('the examples', () => {
  it('are there', () => {
    expect(programs.length).toBeGreaterThan(40)
  })

  it('compile', { timeout: 120_000 }, async () => {
    const { code, stdout } = await run(bin('tsc'), ['-p', folder, '--pretty', 'false'])
    const faults = stdout.replaceAll(
      /^(?:.*\/)?([\w-]+)\.(?:ts|mjs)\((\d+),(\d+)\)/gm,
      (whole, name: string, line: string) => {
        const block = programs.find((one) => fileOf(one).includes(`/${name}.`))
        return block === undefined ? whole : `${block.page}:${block.line + Number(line) - 1}`
      },
    )
    expect(faults).toBe('')
    expect(code).toBe(0)
  })

  const runnable = programs.filter(({ marks }) => marks.has('run'))
  it.each(runnable.map((block) => [placeOf(block), block] as const))(
    '%s runs',
    { timeout: 90_000 },
    async (_, block) => {
      const { code, stdout, stderr } = await run(process.execPath, ['--import', 'tsx', fileOf(block)], {
        ...process.env,
        TSX_TSCONFIG_PATH: join(folder, 'tsconfig.json'),
      })
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      const next = blocks[blocks.indexOf(block) + 1]
      if (next?.page === block.page && next.marks.has('output')) expect(stdout.trimEnd()).toBe(next.code)
    },
  )
})

describe('what an agent sees', () => {
  const shown = blocks.filter(({ marks }) => marks.has('example'))

  it('is shown', () => {
    expect(new Set(shown.map(({ marks }) => marks.get('example')))).toEqual(new Set(Object.keys(answers)))
  })

  it.each(shown.map((block) => [placeOf(block), block] as const))('%s is what comes', async (_, block) => {
    expect(await answers[block.marks.get('example')!]!()).toBe(block.code)
  })
})

describe('docs/errors.md', () => {
  const causes = (mark: string): (readonly [string, Block])[] =>
    blocks.filter(({ marks }) => marks.has(mark)).map((block) => [placeOf(block), block] as const)

  it.each(causes('throws'))('%s throws the code of its heading', async (_, block) => {
    await expect(perform(block)).rejects.toMatchObject({ name: 'RampmeterError', code: block.heading })
  })

  it.each(causes('fails'))('%s fails a request with the code of its heading', async (_, block) => {
    const app = express()
    await perform(block, app)
    expect((await request(app)).error).toMatchObject({ name: 'RampmeterError', code: block.heading })
  })

  it.each(causes('warns'))('%s warns with the code of its heading', async (_, block) => {
    const warnings: (Error & { code?: string })[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    try {
      const app = express()
      await perform(block, app)
      const headers = JSON.parse(block.marks.get('headers') ?? '{}') as Record<string, string>
      expect((await request(app, headers)).status).toBe(204)
      await new Promise((resolve) => setImmediate(resolve))
    } finally {
      process.off('warning', note)
    }
    expect(warnings).toMatchObject([{ name: 'RampmeterWarning', code: block.heading }])
  })
})

/** Runs a block of JavaScript, with the library's exports and an app in its hands. */
async function perform({ code }: Block, app: Express = express()): Promise<void> {
  const given = { ...library, app }
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as FunctionConstructor
  await (new AsyncFunction(...Object.keys(given), code) as (...values: unknown[]) => Promise<void>)(
    ...Object.values(given),
  )
}

/** Sends one request to an app and tells what came, and what reached its error handler. */
async function request(
  app: Express,
  headers: Record<string, string> = {},
): Promise<{ status: number; error: unknown }> {
  let caught: unknown
  const noteError: ErrorRequestHandler = (error, _req, res, _next) => {
    caught = error
    res.status(500).end()
  }
  app.use((_req, res) => void res.status(204).end())
  app.use(noteError)
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const { status } = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, { headers })
    return { status, error: caught }
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

describe('docs/redis.md', () => {
  it('lists the permissions that a limiter needs, and no others', { timeout: 60_000 }, async () => {
    const command = blocks.find(({ marks }) => marks.has('acl'))!.code
    const name = `docs-${process.pid}`
    const prefix = `${name}:`
    const connecting = ['evalsha', 'eval', 'hello', 'auth', 'info', 'quit']
    const allowed = [...command.matchAll(/\+(\w+)/g)]
      .map(([, word]) => word!)
      .filter((word) => !connecting.includes(word))
    expect(new Set(allowed)).toEqual(new Set(commandsOfScripts()))
    const words = command.replace('limiter', name).replace('rampmeter:', prefix).split(' ')
    const server = await startTestRedis()
    const admin = new Redis(server.url)
    try {
      await admin.call(words[0]!, words.slice(1))
      const { hostname, port } = new URL(server.url)
      const redis = new Redis(Number(port || 6379), hostname, { username: name, password: 'a-long-password' })
      const limiter = library.rampmeter({
        store: library.redisStore(redis, { prefix }),
        onStoreError: 'closed',
        deadline: '10s',
        abuse: {},
        policies: [
          library.tokenBucket({ quota: 50, window: '1m' }),
          library.slidingWindow({ quota: 50, window: '1m' }),
          library.slidingLog({ quota: 50, window: '1m' }),
          library.fixedWindow({ quota: 50, window: '1m' }),
        ],
      })
      await limiter.ready()
      const client = { id: 'key:acme' }
      // Charges, more, some and all of it back; then what is left is forgotten.
      for (const actual of [3, 1, 0, 2]) {
        const decision = await limiter.decide({ client, cost: 2 })
        expect(decision).toMatchObject({ admitted: true, degraded: false })
        decision.settle(actual)
        await limiter.flush()
      }
      expect((await limiter.peek(client)).limits.map(({ remaining }) => remaining)).toEqual([44, 44, 44, 44])
      await limiter.abuse.report(client.id, 'dispute')
      await limiter.abuse.report(client.id, 'dispute')
      expect(await limiter.incidents.list()).toHaveLength(1)
      await limiter.review.suspend(client.id, { by: 'kim', reason: 'a test' })
      expect(await limiter.review.list()).toHaveLength(1)
      await limiter.review.lift(client.id, { by: 'kim', reason: 'a test' })
      expect(await limiter.review.audit(client.id)).toHaveLength(2)
      await limiter.edge.export({ format: 'json' })
      await limiter.reset(client.id)
      expect((await limiter.peek(client)).limits.map(({ remaining }) => remaining)).toEqual([50, 50, 50, 50])
      await limiter.close()
      await redis.quit()

      const denied = (await admin.call('ACL', ['LOG'])) as unknown[]
      expect(JSON.stringify(denied)).not.toContain(name)
    } finally {
      await admin.call('ACL', ['DELUSER', name])
      await admin.quit()
      await server.stop()
    }
  })
})

/** The commands that the scripts say they call, in their headers. */
function commandsOfScripts(): string[] {
  const scripts = readdirSync(join(root, 'lua')).filter((name) => name.endsWith('.lua'))
  return scripts.flatMap((name) => {
    const [, words = ''] =
      /^-- COMMANDS (.*(?:\n-- {2,}.*)*)/m.exec(readFileSync(join(root, 'lua', name), 'utf8')) ?? []
    return words.toLowerCase().match(/\w+/g) ?? []
  })
}

describe('the pages', () => {
  it.each(pages)('%s links to what is there', (page) => {
    const text = readFileSync(join(root, page), 'utf8')
    const broken = [...text.matchAll(/!?\[[^\]]*\]\(([^)\s]+)\)/g)]
      .map(([, target]) => target!)
      .filter((target) => !/^https?:/.test(target))
      .filter((target) => {
        const [path = '', anchor] = target.split('#')
        const file = path === '' ? join(root, page) : join(root, dirname(page), path)
        return !existsSync(file) || (anchor !== undefined && !anchorsOf(file).has(anchor))
      })
    expect(broken).toEqual([])
  })

  it('show pictures that the code draws', async () => {
    const drawn = await drawAlgorithms()
    const kept = readdirSync(join(root, 'docs', 'pictures'))
    // What the benches measured differs from run to run.
    const measured = ['adaptive.svg', 'honesty.svg', 'performance.svg']
    expect(kept.sort()).toEqual([...drawn.keys(), ...measured].sort())
    for (const [name, picture] of drawn)
      expect(readFileSync(join(root, 'docs', 'pictures', name), 'utf8')).toBe(picture)
  })
})

/** The anchors that GitHub gives a page's headings. */
function anchorsOf(file: string): Set<string> {
  const headings = readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)
  return new Set(
    [...headings].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}
