import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it, onTestFinished } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Compiles the sources and these tests as a project does that has the types of another Express; says what was read, and what is wrong. */
async function compileWith(expressTypes: string): Promise<{ read: string; wrong: string }> {
  // In the root, where the compiler finds the packages.
  const config = `${root}tsconfig.types-${process.pid}.tmp.json`
  onTestFinished(() => rmSync(config, { force: true }))
  const project = {
    extends: './tsconfig.check.json',
    compilerOptions: { paths: { express: [`./node_modules/${expressTypes}/index.d.ts`] } },
    include: ['test/types/options.ts', 'test/types/express.ts'],
  }
  writeFileSync(config, JSON.stringify(project))
  try {
    const { stdout } = await promisify(execFile)(`${root}node_modules/.bin/tsc`, ['-p', config, '--listFiles'])
    return { read: stdout, wrong: '' }
  } catch (error) {
    const { stdout } = error as { stdout: string }
    return { read: stdout, wrong: stdout.replace(/^\/.*\n/gm, '') }
  }
}

it('the types fit those of Express 4', { timeout: 60_000 }, async () => {
  const { read, wrong } = await compileWith('@types/express4')
  expect(wrong).toBe('')
  expect(read).toContain('/node_modules/@types/express4/index.d.ts')
  expect(read).not.toContain('/node_modules/@types/express/index.d.ts')
})
