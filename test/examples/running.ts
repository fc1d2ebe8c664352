// Starts the examples as their readers do: as processes of their own, on the package as it is built.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

export interface RunningExample {
  readonly url: string
  /** Ends it as a service manager would, and returns its exit code, or null where it was ended by the signal. */
  readonly stop: () => Promise<number | null>
}

const running = new Set<ChildProcess>()

/** Ends what a failed test left behind. */
export function stopAll(): void {
  for (const child of running) child.kill('SIGKILL')
}

/** Starts one that listens, on a free port. */
export async function startExample(name: string, env: Record<string, string> = {}): Promise<RunningExample> {
  const child = launch(['--import', 'tsx', `examples/${name}`], { PORT: '0', ...env })
  const url = await new Promise<string>((resolve, reject) => {
    let output = ''
    const read = (chunk: Buffer): void => {
      output += chunk.toString()
      const [found] = /http:\/\/localhost:\d+/.exec(output) ?? []
      if (found !== undefined) resolve(found)
    }
    child.stdout?.on('data', read)
    child.stderr?.on('data', read)
    child.once('exit', () => reject(new Error(`examples/${name} ended before it listened:\n${output}`)))
  })
  return {
    url,
    async stop() {
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      const [code] = await ended
      return code as number | null
    },
  }
}

/** Runs one that ends by itself. */
export async function runExample(
  args: readonly string[],
  env: Record<string, string | undefined> = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = launch(args, env)
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const [code] = await once(child, 'close')
  return { code: code as number | null, stdout, stderr }
}

function launch(args: readonly string[], env: Record<string, string | undefined>): ChildProcess {
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}
