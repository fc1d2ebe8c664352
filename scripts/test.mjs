// What `npm test` runs: everything that must hold before a commit, each step even when an earlier one failed, so that one run
// shows all faults; then a table of what ran on what. The mistake it prevents: "it passed", without saying where.
//
//   npm test                         all of it; in a fresh clone it installs first
//   npm test -- --quick [vitest...]  only the suite; what follows goes to vitest, such as a file or -t 'a name'

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from './build.mjs'
import { embedLua } from './embed-lua.mjs'
import { findFaketime, findRedis, findServer, findValkey } from './find-redis.mjs'
import { install, isInstalled } from './install.mjs'
import { bin, exec, root } from './process.mjs'

/** @typedef {{ ok: boolean, output: string }} Outcome */

const [first, ...rest] = process.argv.slice(2)
const quick = first === '--quick'
const vitestArgs = quick ? rest : process.argv.slice(2)

/** @type {{ name: string, result: string, seconds: number }[]} */
const steps = []
process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))

if (!isInstalled()) await step('install', () => tool(install()))
if (!isInstalled()) {
  console.error('Nothing else can run before the installation succeeds.')
  process.exit(1)
}

if (!quick) {
  await step('lua is embedded', async () => {
    const { faults } = embedLua({ check: true })
    return { ok: faults.length === 0, output: faults.join('\n') }
  })
  await step('build', build)
  await step('format', () => tool(exec(bin('oxfmt'), ['--check'])))
  await step('lint', () => tool(exec(bin('oxlint'), [])))
  await step('types, sources', () => tool(exec(bin('tsc'), ['-p', 'tsconfig.json'])))
  await step('types, the rest', () => tool(exec(bin('tsc'), ['-p', 'tsconfig.check.json'])))
  await step('unused (knip)', () => tool(exec(bin('knip'), ['--no-progress'])))
  await step('package (publint)', () => tool(exec(bin('publint'), ['--strict', '--pack', 'npm'])))
  await step('package (attw)', () => tool(exec(bin('attw'), ['--pack', '.', '--profile', 'node16', '--no-color'])))
}

/** @type {import('./find-redis.mjs').FoundRedis | undefined} */
let redis
/** @type {Awaited<ReturnType<typeof findFaketime>> | undefined} */
let faketime
await step('find a Redis', async () => {
  redis = await findRedis()
  faketime = await findFaketime()
  return { ok: true, output: '' }
})
const server = findServer()
const valkey = findValkey()
if (redis === undefined) steps.push({ name: 'vitest', result: 'FAILED: no Redis', seconds: 0 })
else {
  /** @type {NodeJS.ProcessEnv} */
  const env = { ...process.env, REDIS_URL: redis.url }
  if (server !== undefined) env['RAMPMETER_REDIS_SERVER'] = server
  if (faketime !== undefined && 'path' in faketime) env['RAMPMETER_FAKETIME'] = faketime.path
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  await step('vitest', () => tool(exec(process.execPath, [vitest, 'run', ...vitestArgs], { env, show: true })))
  if (!quick && valkey !== undefined) {
    const onValkey = { ...env, RAMPMETER_FAULTS_SERVER: valkey }
    await step('faults on Valkey', () =>
      tool(exec(process.execPath, [vitest, 'run', 'test/faults'], { env: onValkey, show: true })),
    )
  }
  await redis.stop()
}

console.log(`\n${table()}\n\n${grounds()}`)
process.exitCode = steps.every((entry) => entry.result === 'ok') ? 0 : 1

/**
 * Runs one step, shows what it had to say if it failed, and notes how it went.
 * @param {string} name
 * @param {() => Promise<Outcome>} run
 */
async function step(name, run) {
  const started = performance.now()
  /** @type {Outcome} */
  const { ok, output } = await run().catch((error) => ({ ok: false, output: String(error?.message ?? error) }))
  const seconds = (performance.now() - started) / 1000
  steps.push({ name, result: ok ? 'ok' : 'FAILED', seconds })
  console.log(`${ok ? 'ok    ' : 'FAILED'}  ${name}`)
  if (!ok && output.trim() !== '') console.log(output.trim().replace(/^/gm, '        '))
}

/**
 * @param {Promise<{ code: number, output: string }>} running
 * @returns {Promise<Outcome>}
 */
async function tool(running) {
  const { code, output } = await running
  return { ok: code === 0, output }
}

function table() {
  const width = Math.max(...steps.map((entry) => entry.name.length))
  return steps
    .map((entry) => `${entry.name.padEnd(width)}  ${`${entry.seconds.toFixed(1)} s`.padStart(8)}  ${entry.result}`)
    .join('\n')
}

/** What it all ran on. */
function grounds() {
  const clock =
    server === undefined
      ? 'no redis-server program: tests that turn its clock cannot run'
      : faketime === undefined
        ? ''
        : 'path' in faketime
          ? `clock turned by ${faketime.path}`
          : faketime.missing
  const lines = [
    ['Node', `${process.version} (${process.platform} ${process.arch})`],
    ['Redis', redis === undefined ? 'none' : `${redis.version}: ${redis.how}`],
    ['', clock],
    ['Valkey', valkey ?? 'none on the PATH: nothing ran on it'],
    ['Express', ['express', 'express4'].map(version).join(' and ')],
    ['ioredis', version(process.env['RAMPMETER_IOREDIS'] || 'ioredis')],
  ]
  return lines
    .filter(([, text]) => text !== '')
    .map(([label, text]) => `${label?.padEnd(8)}${text}`)
    .join('\n')
}

/** @param {string} name */
function version(name) {
  const path = join(root, 'node_modules', name, 'package.json')
  return existsSync(path) ? String(JSON.parse(readFileSync(path, 'utf8')).version) : 'absent'
}
