// Installs what package-lock.json names, once. The mistake it prevents: in a fresh clone, a command of ours that fails with
// "Cannot find module" instead of doing what it was asked.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { exec, root } from './process.mjs'

/**
 * Whether an installation is there; npm writes this file last.
 */
export function isInstalled() {
  return existsSync(join(root, 'node_modules', '.package-lock.json'))
}

/**
 * `npm ci`, with the npm that runs us where that is known.
 */
export function install() {
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund']
  const cli = process.env['npm_execpath']
  return cli?.endsWith('npm-cli.js') ? exec(process.execPath, [cli, ...args]) : exec('npm', args)
}
