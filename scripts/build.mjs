// Builds dist/: ES modules in dist/esm and CommonJS in dist/cjs, each with source maps and, file by file, the declarations. With
// --if-stale it does so only when dist/ is older than what it is built from.
//
// Of what is executed a format has a file for each entry of the package, and some for what those share: to find, read and link a
// file for each of the sources took a new process longer than to run them.
//
// The mistakes it prevents: a half-built dist (both builds go to a scratch folder and are swapped in only when all of it
// succeeded), and a CommonJS build that only looks like one. The declarations of CommonJS are compiled from a copy of the sources that
// lies in a package of "type": "commonjs", so the compiler resolves what `require` would, and refuses a static import of a package that
// is ESM only.

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
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
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
    for (const format of ['esm', 'cjs']) nameNeighbours(join(scratch, 'dist', format))
    await bundle(join(scratch, 'dist'))
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
    .concat(fileURLToPath(import.meta.url), join(root, 'package.json'))
    .reduce((latest, path) => Math.max(latest, statSync(path).mtimeMs), 0)
  return statSync(built).mtimeMs >= newest
}

/**
 * Declarations name their neighbours as `./x.ts`, which compilers before 5.0 do not follow.
 * @param {string} folder
 */
function nameNeighbours(folder) {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.d.ts')) continue
    const path = join(folder, name)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, text.replace(/((?:from|import)[\s(]*['"]\.{1,2}\/[^'"\n]+)\.ts(['"])/g, '$1.js$2'))
  }
}

/**
 * Writes what is executed, in both formats. Entries share their chunks, so that a class is the same whichever names it.
 * @param {string} folder
 */
async function bundle(folder) {
  // `npm test` loads this file in a fresh clone, before it has installed anything.
  const { rolldown } = await import('rolldown')
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const entries = Object.values(exports).flatMap((entry) => entry.import?.default ?? [])
  const names = entries.map((file) => file.replace(/^\.\/dist\/esm\/|\.js$/g, ''))
  const whole = await rolldown({
    cwd: root,
    input: Object.fromEntries(names.map((name) => [name, join('src', `${name}.ts`)])),
    platform: 'node',
    external: /^[^./]/,
  })
  try {
    for (const format of /** @type {const} */ (['esm', 'cjs'])) {
      await whole.write({
        dir: join(folder, format),
        format,
        sourcemap: true,
        entryFileNames: '[name].js',
        chunkFileNames: 'shared/[name].js',
        // As seen from where the build will be.
        sourcemapPathTransform: (source, map) =>
          relative(join(root, 'dist', relative(folder, dirname(map))), resolve(dirname(map), source)),
      })
    }
  } finally {
    await whole.close()
  }
}

if (isMain(import.meta.url) && !(process.argv.includes('--if-stale') && isBuilt())) {
  const { ok, output } = await build()
  console.log(output)
  process.exitCode = ok ? 0 : 1
}
