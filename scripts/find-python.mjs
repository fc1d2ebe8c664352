// Finds the Python that runs the example agent. The mistake it prevents: an example that nobody ran because a machine had
// none, and whose test was skipped.

import { aptInstall } from './find-redis.mjs'
import { exec, which } from './process.mjs'

/**
 * A Python 3.9 or newer: `PYTHON`, else one on the PATH, else Debian's package when we may install it.
 * @returns {Promise<string>} its path
 */
export async function findPython() {
  const given = process.env['PYTHON']
  if (given) {
    if (await isRecent(given)) return given
    throw new Error(`PYTHON is ${given}, but that is no Python 3.9 or newer`)
  }
  const found = await onPath()
  if (found !== undefined) return found
  const tried = await aptInstall('python3')
  const installed = await onPath()
  if (installed !== undefined) return installed
  throw new Error(
    [
      `The example agent needs Python 3.9 or newer, and none was found (${tried.join('; ')}). Do one of these:`,
      '  macOS           brew install python',
      '  Debian, Ubuntu  sudo apt-get install python3',
      '  elsewhere       PYTHON=/path/to/python3 npm test',
    ].join('\n'),
  )
}

async function onPath() {
  for (const name of ['python3', 'python']) {
    const path = which(name)
    if (path !== undefined && (await isRecent(path))) return path
  }
  return undefined
}

/** @param {string} path */
async function isRecent(path) {
  const { code } = await exec(path, ['-c', 'import sys; sys.exit(sys.version_info < (3, 9))'], { timeoutMs: 30_000 })
  return code === 0
}
