// Finds a Redis for a test run, and libfaketime, which turns the clock of one. The mistake it prevents: a suite that passes
// because nobody had a Redis and its tests were skipped. Whatever it starts it also ends, and it says how it came by it.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { connect as connectTcp, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { exec, isMain, which } from './process.mjs'

/**
 * @typedef {object} FoundRedis
 * @property {string} url
 * @property {string} how where it came from, in words
 * @property {string} version what it says of itself, such as 'redis 7.0.15'
 * @property {() => Promise<void>} stop ends it, when we started it
 */

/**
 * A Redis that answers: `REDIS_URL`, else a server on the PATH, else Docker, else Debian's package when we may install it.
 * @returns {Promise<FoundRedis>}
 */
export async function findRedis() {
  const given = process.env['REDIS_URL']
  if (given) {
    const version = await ask(given).catch((error) => {
      throw new Error(`REDIS_URL is ${masked(given)}, but nothing answers there: ${error.message}`)
    })
    return { url: given, how: 'REDIS_URL', version, stop: async () => {} }
  }
  const server = findServer()
  if (server !== undefined) return startServer(server, `${server}, started for this run`)

  /** @type {string[]} */
  const tried = ['no redis-server or valkey-server on the PATH']
  if (which('docker') === undefined) tried.push('no docker')
  else if ((await exec('docker', ['info'], { timeoutMs: 10_000 })).code !== 0) tried.push('docker does not answer')
  else {
    const found = await startContainer().catch((error) => void tried.push(error.message))
    if (found) return found
  }
  tried.push(...(await aptInstall('redis-server')))
  const installed = findServer()
  if (installed !== undefined) return startServer(installed, `${installed}, installed from Debian's redis-server`)

  throw new Error(
    [
      `The tests need a Redis, and none was found (${tried.join('; ')}). Do one of these, and run them again:`,
      '  macOS           brew install redis',
      '  Debian, Ubuntu  sudo apt-get install redis-server',
      '  Docker          start it; we then run redis:7-alpine',
      '  elsewhere       REDIS_URL=redis://host:6379 npm test   (7.0 or newer; the tests write to it)',
    ].join('\n'),
  )
}

/**
 * The path of a server program, if there is one: that which `RAMPMETER_REDIS_SERVER` names, if it is set.
 */
export function findServer() {
  return process.env['RAMPMETER_REDIS_SERVER'] || (which('redis-server') ?? which('valkey-server'))
}

/**
 * The path of a Valkey, if there is one beside the Redis: that which `RAMPMETER_VALKEY_SERVER` names, if it is set.
 */
export function findValkey() {
  return process.env['RAMPMETER_VALKEY_SERVER'] || which('valkey-server')
}

/**
 * The library that turns a server's clock when it is preloaded; installed from Debian's package when it is missing and we may.
 * @returns {Promise<{ path: string } | { missing: string }>}
 */
export async function findFaketime() {
  const here = faketimePath()
  if (here !== undefined) return { path: here }
  const tried = await aptInstall('libfaketime')
  const now = faketimePath()
  if (now !== undefined) return { path: now }
  return {
    missing: `libfaketime was not found (${tried.join('; ')}): brew install libfaketime, or sudo apt-get install libfaketime`,
  }
}

function faketimePath() {
  const folders = ['/usr/lib/faketime', '/opt/homebrew/lib/faketime', '/usr/local/lib/faketime']
  if (existsSync('/usr/lib')) folders.unshift(...readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/faketime`))
  return folders
    .flatMap((folder) => [join(folder, 'libfaketime.so.1'), join(folder, 'libfaketime.1.dylib')])
    .find((path) => existsSync(path))
}

/**
 * Starts a server on a free port of the loopback address; nothing of it outlives this process.
 * @param {string} server
 * @param {string} how
 * @returns {Promise<FoundRedis>}
 */
async function startServer(server, how) {
  const folder = mkdtempSync(join(tmpdir(), 'rampmeter-redis-'))
  const port = await freePort()
  const settings = { port, bind: '127.0.0.1', save: '', appendonly: 'no', daemonize: 'no', dir: folder }
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)])
  const child = spawn(server, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stdout.on('data', (chunk) => (log = (log + chunk).slice(-4000)))
  child.stderr.on('data', (chunk) => (log = (log + chunk).slice(-4000)))
  const closed = new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', resolve)
  })
  const kill = () => {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', kill)

  const url = `redis://127.0.0.1:${port}`
  const version = await Promise.race([
    answers(url),
    closed.then((reason) => {
      throw new Error(`${server} ended at once (${reason}): ${log}`)
    }),
  ])
  const stop = async () => {
    kill()
    process.off('exit', kill)
    await closed
  }
  return { url, how, version, stop }
}

/**
 * @returns {Promise<FoundRedis>}
 */
async function startContainer() {
  const image = 'redis:7-alpine'
  const run = await exec('docker', ['run', '-d', '--rm', '-p', '127.0.0.1::6379', image, 'redis-server', '--save', ''])
  if (run.code !== 0) throw new Error(`docker could not run ${image}: ${run.output.trim()}`)
  const id = run.output.trim().split('\n').at(-1) ?? ''
  const stop = async () => void (await exec('docker', ['rm', '-f', id]))
  try {
    const mapped = await exec('docker', ['port', id, '6379/tcp'])
    const port = /:(\d+)\s*$/m.exec(mapped.output)?.[1]
    if (port === undefined) throw new Error(`docker did not say which port ${image} is on: ${mapped.output.trim()}`)
    const url = `redis://127.0.0.1:${port}`
    return { url, how: `${image} in Docker, started for this run`, version: await answers(url), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/**
 * Installs a Debian package when that needs no password, and says what stood in the way.
 * @param {string} name
 * @returns {Promise<string[]>}
 */
export async function aptInstall(name) {
  if (which('apt-get') === undefined) return ['no apt-get']
  /** @type {string[]} */
  const prefix = []
  if (process.getuid?.() !== 0) {
    const sudo = which('sudo') !== undefined && (await exec('sudo', ['-n', 'true'])).code === 0
    if (!sudo) return ['apt-get needs root, and sudo asks for a password']
    prefix.push('sudo', '-n')
  }
  // In run level 1 Debian's own service is not started by its installation.
  const asRoot = (/** @type {string[]} */ ...command) =>
    exec('env', [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1', ...command])
  const attempt = () => asRoot('apt-get', 'install', '-y', '--no-install-recommends', name)
  console.log(`installing ${name} with apt-get`)
  let result = await attempt()
  if (result.code !== 0) {
    await asRoot('apt-get', 'update')
    result = await attempt()
  }
  if (result.code !== 0) return [`apt-get could not install ${name}: ${result.output.trim().split('\n').at(-1)}`]
  if (name === 'redis-server' && which('service') !== undefined) await asRoot('service', 'redis-server', 'stop')
  return []
}

/**
 * @returns {Promise<number>}
 */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

/**
 * Waits up to ten seconds for a server that is starting.
 * @param {string} url
 */
async function answers(url) {
  const end = Date.now() + 10_000
  for (;;) {
    try {
      return await ask(url)
    } catch (error) {
      if (Date.now() > end) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

/**
 * Asks a Redis which version it is, in its own protocol: this runs before any client is installed.
 * @param {string} url
 * @returns {Promise<string>}
 */
function ask(url) {
  const { protocol, hostname, port, username, password } = new URL(url)
  if (protocol !== 'redis:' && protocol !== 'rediss:') throw new Error('it must begin with redis:// or rediss://')
  const at = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
  return new Promise((resolve, reject) => {
    const socket = protocol === 'rediss:' ? connectTls({ ...at, servername: at.host }) : connectTcp(at)
    /** @param {Error} error */
    const fail = (error) => {
      socket.destroy()
      reject(error)
    }
    socket.setTimeout(5000, () => fail(new Error('no answer within 5 seconds')))
    socket.once('error', (error) =>
      fail(error.message === '' ? new Error(`no connection to ${at.host}:${at.port}`) : error),
    )
    socket.once('close', () => reject(new Error('it closed the connection')))
    if (password !== '') {
      socket.write(request(['AUTH', ...(username ? [decodeURIComponent(username)] : []), decodeURIComponent(password)]))
    }
    socket.write(request(['INFO', 'server']))
    let reply = ''
    socket.on('data', (chunk) => {
      reply += chunk
      const refusal = /^-(.*)\r\n/m.exec(reply)?.[1]
      if (refusal !== undefined) return fail(new Error(refusal))
      const valkey = /^valkey_version:(\S+)/m.exec(reply)?.[1]
      const redis = /^redis_version:(\S+)/m.exec(reply)?.[1]
      if (!/^uptime_in_seconds:/m.test(reply)) return
      socket.destroy()
      resolve(valkey ? `valkey ${valkey}` : `redis ${redis ?? 'of unknown version'}`)
    })
  })
}

/** @param {string[]} words */
function request(words) {
  return `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`
}

/** @param {string} url */
function masked(url) {
  return url.replace(/\/\/[^@/]*@/, '//...@')
}

if (isMain(import.meta.url)) {
  const found = await findRedis()
  const faketime = await findFaketime()
  console.log(`${found.version} at ${found.url} (${found.how})`)
  console.log('path' in faketime ? `libfaketime at ${faketime.path}` : faketime.missing)
  await found.stop()
}
