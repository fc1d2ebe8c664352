import { spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { killWithProcess } from './kill-with-process.ts'

/** A Redis of one's own. */
export interface RunningServer {
  readonly port: number
  stop(): Promise<void>
}

/** What a server of ours may need besides. */
export interface Surroundings {
  /** Settings besides ours, by their names in `redis.conf`. */
  settings?: Record<string, string>
  /** Where the server's own folder is made. Default: the system's folder for temporary files. */
  within?: string
  /** Called with the server's own folder before it starts there; returns what is added to its environment. */
  prepare?: (folder: string) => NodeJS.ProcessEnv
  /** Files outside of its folder that a server leaves when it is killed. */
  leftovers?: (pid: number) => string[]
}

const portTries = 10
const startDeadlineMs = 15_000

/**
 * Runs a `redis-server` or `valkey-server` on a free port of 127.0.0.1. It keeps nothing on disk and ends with this process.
 *
 * @param program its name on the PATH, or its path
 * @throws {Error} why it did not start; its `code` is `ENOENT` if there is no such program
 */
export async function runServer(program: string, surroundings: Surroundings = {}): Promise<RunningServer> {
  for (let tries = 1; ; tries += 1) {
    // Between asking for a free port and the server's taking it, somebody else may have taken it.
    const server = await tryPort(program, await freePort(), surroundings)
    if (server !== 'port taken') return server
    if (tries === portTries) throw new Error(`${program}: the ${portTries} ports tried were all taken meanwhile`)
  }
}

async function tryPort(program: string, port: number, around: Surroundings): Promise<RunningServer | 'port taken'> {
  const folder = mkdtempSync(join(around.within ?? tmpdir(), 'rampmeter-redis-'))
  // No other server has a file of this name: so the one that answers is ours.
  const mark = `${randomUUID()}.rdb`
  const child = spawn(
    program,
    flags({
      port: String(port),
      bind: '127.0.0.1',
      dir: folder,
      dbfilename: mark,
      save: '',
      appendonly: 'no',
      daemonize: 'no',
      logfile: '',
      ...around.settings,
    }),
    { env: { ...process.env, ...around.prepare?.(folder) }, stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const ended = endOf(child)
  const litter = [folder, ...(child.pid === undefined ? [] : (around.leftovers?.(child.pid) ?? []))]
  const kill = (): void => {
    child.kill('SIGKILL')
    for (const path of litter) rmSync(path, { recursive: true, force: true })
  }
  const forget = killWithProcess(
    kill,
    child.pid === undefined ? undefined : ['sh', '-c', 'kill -9 "$0"; rm -rf "$@"', String(child.pid), ...litter],
  )

  async function stop(): Promise<void> {
    holdLoop(child, true)
    child.kill('SIGKILL')
    await ended
    kill()
    forget()
  }

  let runs = true
  void ended.then(() => (runs = false))
  const end = await Promise.race([ended, untilItAnswers(port, mark, () => runs)])
  if (end === 'answered') {
    holdLoop(child, false)
    return { port, stop }
  }
  await stop()
  if (end === 'silent') throw new Error(`${program} did not answer within ${startDeadlineMs / 1000} s`)
  if (end.error) throw end.error
  if (/address already in use|EADDRINUSE/i.test(end.output)) return 'port taken'
  throw new Error(
    `${program} ended at once: ${end.output.trim().split('\n').slice(-3).join(' | ') || 'it said nothing'}`,
  )
}

function flags(settings: Record<string, string>): string[] {
  return Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
}

/** Whether this process stays alive for the server's sake. While a test uses it, it need not: the server ends with us. */
function holdLoop(child: ChildProcess, hold: boolean): void {
  for (const one of [child, child.stdout as Socket | null, child.stderr as Socket | null]) {
    if (hold) one?.ref()
    else one?.unref()
  }
}

/** Waits until the server on a port answers, and has set its `dbfilename` to `mark`; in vain if it `runs` no longer. */
export async function untilItAnswers(
  port: number,
  mark?: string,
  runs: () => boolean = () => true,
): Promise<'answered' | 'silent'> {
  const deadline = Date.now() + startDeadlineMs
  const question = mark === undefined ? 'PING\r\n' : 'PING\r\nCONFIG GET dbfilename\r\n'
  while (Date.now() < deadline && runs()) {
    const answer = await ask(port, question, mark ?? '+PONG\r\n')
    if (answer.startsWith('+PONG\r\n') && answer.includes(mark ?? '')) return 'answered'
    await sleep(10)
  }
  return 'silent'
}

/** Sends inline commands, and resolves with what came back once that includes `last`; with less if the server has no more. */
function ask(port: number, commands: string, last: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' }, () => socket.write(commands))
    let answer = ''
    socket.setTimeout(500, () => socket.destroy())
    socket.on('data', (bytes) => {
      answer += bytes.toString('latin1')
      if (answer.includes(last)) socket.destroy()
    })
    // Refused while the server is still starting: the answer is empty, and it is asked again.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => resolve(answer))
  })
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

interface End {
  readonly error: Error | undefined
  readonly output: string
}

/** Resolves when the program has ended or could not be started, with the last it said. */
function endOf(child: ChildProcess): Promise<End> {
  let output = ''
  const hear = (bytes: Buffer): void => {
    output = (output + bytes.toString()).slice(-4000)
  }
  child.stdout?.on('data', hear)
  child.stderr?.on('data', hear)
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ error, output }))
    child.once('close', () => resolve({ error: undefined, output }))
  })
}
