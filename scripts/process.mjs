// Runs other programs for the scripts here, and says where the repository and its tools are. Node built-ins only, since
// the scripts run before anything is installed. The mistake it prevents: a child that fails while its script reports success.

import { spawn } from 'node:child_process'
import { delimiter, join } from 'node:path'
import { accessSync, constants, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * A tool of ours, as npm installed it.
 * @param {string} name
 */
export function bin(name) {
  return join(root, 'node_modules', '.bin', name)
}

/**
 * Whether this module is the program that was started, rather than imported by another.
 * @param {string} url `import.meta.url`
 */
export function isMain(url) {
  return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url)
}

/**
 * Runs a program to its end and never rejects: a program that cannot be started counts as failed.
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, show?: boolean, timeoutMs?: number }} [options] `show` passes its output through as it
 *   comes instead of collecting it
 * @returns {Promise<{ code: number, output: string }>}
 */
export function exec(command, args, { env = process.env, show = false, timeoutMs } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env,
      stdio: show ? 'inherit' : ['ignore', 'pipe', 'pipe'],
      ...(timeoutMs === undefined ? {} : { timeout: timeoutMs }),
    })
    let output = ''
    child.stdout?.on('data', (chunk) => (output += chunk))
    child.stderr?.on('data', (chunk) => (output += chunk))
    child.on('error', (error) => resolve({ code: 127, output: `${command}: ${error.message}` }))
    child.on('close', (code, signal) =>
      resolve({ code: code ?? 1, output: signal ? `${output}\nended by ${signal}` : output }),
    )
  })
}

/**
 * Where a program is on the PATH, if it is.
 * @param {string} name
 * @returns {string | undefined}
 */
export function which(name) {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // not in this folder
    }
  }
  return undefined
}
