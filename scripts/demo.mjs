// What `npm run demo` runs: installs and builds when that is needed, then the demo, with the arguments it was given. The
// mistake it prevents: a first look at the library that fails for want of a step nobody mentioned, or shows yesterday's build.

import { join } from 'node:path'
import { build, isBuilt } from './build.mjs'
import { install, isInstalled } from './install.mjs'
import { exec, root } from './process.mjs'

/**
 * @param {string} what
 * @param {() => Promise<{ ok: boolean, output: string }>} run
 */
async function prepare(what, run) {
  console.error(`${what}...`)
  const { ok, output } = await run()
  if (ok) return
  console.error(output)
  process.exit(1)
}

if (!isInstalled()) {
  await prepare('installing', async () => {
    const { code, output } = await install()
    return { ok: code === 0, output }
  })
}
if (!isBuilt()) await prepare('building', build)
const demo = join(root, 'examples', 'demo', 'run.ts')
const { code } = await exec(process.execPath, ['--import', 'tsx', demo, ...process.argv.slice(2)], { show: true })
process.exitCode = code
