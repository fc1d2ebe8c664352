// Builds dist/: ES modules in dist/esm and CommonJS in dist/cjs, each with the declarations and source maps beside it. With
// --if-stale it does so only when dist/ is older than what it is built from.
//
// The mistakes it prevents: a half-built dist (both builds go to a scratch folder and are swapped in only when both
// succeeded), and a CommonJS build that only looks like one. The CommonJS sources are compiled from a copy that lies in a
// package of "type": "commonjs", so the compiler resolves what `require` would, refuses a static import of a package that
// is ESM only, and leaves `import()` alone.

import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { embedLua } from './embed-lua.mjs'
import { bin, exec, isMain, root } from './process.mjs'

/**
 * @returns {Promise<{ ok: boolean, output: string }>}
 */
export async function build() {
  const started = performance.now()
  const lua = embedLua()
  if (lua.faults.length > 0) return { ok: false, output: lua.faults.join('\n') }

  // One scratch folder a run: two builds at once (a watcher and a test run) do not tread on each other.
  const scratch = join(root, '.build', String(process.pid))
  rmSync(scratch, { recursive: true, force: true })
  mkdirSync(join(scratch, 'commonjs'), { recursive: true })
  try {
    cpSync(join(root, 'src'), join(scratch, 'commonjs', 'src'), { recursive: true })
    writeFileSync(join(scratch, 'commonjs', 'package.json'), '{ "type": "commonjs" }\n')
    writeFileSync(
      join(scratch, 'commonjs', 'tsconfig.json'),
      JSON.stringify({
        extends: '../../../tsconfig.cjs.json',
        compilerOptions: { rootDir: 'src', outDir: '../dist/cjs' },
        include: ['src'],
      }),
    )
    const results = await Promise.all([
      exec(bin('tsc'), ['-p', 'tsconfig.esm.json', '--outDir', join(scratch, 'dist', 'esm')]),
      exec(bin('tsc'), ['-p', join(scratch, 'commonjs')]),
    ])
    const failed = results.filter((result) => result.code !== 0)
    if (failed.length > 0) return { ok: false, output: failed.map((result) => result.output).join('\n') }

    for (const format of ['esm', 'cjs']) finish(join(scratch, 'dist', format), join(root, 'dist', format))
    writeFileSync(join(scratch, 'dist', 'cjs', 'package.json'), '{ "type": "commonjs", "sideEffects": false }\n')
    rmSync(join(root, 'dist'), { recursive: true, force: true })
    renameSync(join(scratch, 'dist'), join(root, 'dist'))
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return { ok: true, output: `built dist/esm and dist/cjs in ${((performance.now() - started) / 1000).toFixed(1)} s` }
}

/**
 * Whether dist/ is there and newer than all it was built from.
 */
export function isBuilt() {
  const built = join(root, 'dist', 'cjs', 'package.json')
  if (!existsSync(built)) return false
  const newest = ['src', 'lua']
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(root, folder, name)),
    )
    .reduce((latest, path) => Math.max(latest, statSync(path).mtimeMs), 0)
  return statSync(built).mtimeMs >= newest
}

/**
 * What the compiler leaves undone: declarations name their neighbours as `./x.ts`, which compilers before 5.0 do not follow,
 * and source maps point from the scratch folder.
 * @param {string} folder where the build is now
 * @param {string} home where it will be
 */
function finish(folder, home) {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const path = join(folder, name)
    if (name.endsWith('.d.ts')) {
      const text = readFileSync(path, 'utf8')
      writeFileSync(path, text.replace(/((?:from|import)[\s(]*['"]\.{1,2}\/[^'"\n]+)\.ts(['"])/g, '$1.js$2'))
    } else if (name.endsWith('.js.map')) {
      const map = JSON.parse(readFileSync(path, 'utf8'))
      const source = join(root, 'src', name.replace(/\.js\.map$/, '.ts'))
      map.sources = [
        relative(dirname(join(home, name)), source)
          .split(sep)
          .join('/'),
      ]
      delete map.sourceRoot
      writeFileSync(path, JSON.stringify(map))
    }
  }
}

if (isMain(import.meta.url) && !(process.argv.includes('--if-stale') && isBuilt())) {
  const { ok, output } = await build()
  console.log(output)
  process.exitCode = ok ? 0 : 1
}
