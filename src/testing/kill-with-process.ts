import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'

const running = new Set<() => void>()

function killAll(): void {
  for (const kill of running) kill()
}

/**
 * Sees to it that what was started for this process does not outlive it.
 *
 * `kill` runs when the process exits. Nothing of ours runs when it is killed (a test runner does that to its workers), so
 * a shell stands by: the pipe it reads from closes with this process, however that ends, and it then runs `command`. Where
 * there is no `sh`, `kill` has to do.
 *
 * @returns what to call once it has ended by other means
 */
export function killWithProcess(kill: () => void, command: readonly string[] | undefined): () => void {
  if (running.size === 0) process.once('exit', killAll)
  running.add(kill)

  // In a group of its own, or a Ctrl-C in the terminal would end it before its turn.
  const guard =
    command &&
    spawn('sh', ['-c', 'read -r line; "$@" >/dev/null 2>&1', 'sh', ...command], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    })
  guard?.on('error', () => {})
  guard?.stdin?.on('error', () => {})
  guard?.unref()
  ;(guard?.stdin as Socket | null | undefined)?.unref()

  return () => {
    guard?.kill('SIGKILL')
    running.delete(kill)
    if (running.size === 0) process.removeListener('exit', killAll)
  }
}
