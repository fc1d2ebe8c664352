import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../../scripts/process.mjs'

/** A fenced block of a page. */
export interface Block {
  /** The page, from the root of the repository. */
  readonly page: string
  /** The line that its code begins on, from 1. */
  readonly line: number
  /** The last heading before it. */
  readonly heading: string
  /** The first word after the fence: `ts`, `js`, `http`, … */
  readonly language: string
  /**
   * The words after it, which a reader does not see: `run`, `output`, `throws`, …; those with a value, `name=value`, give that.
   */
  readonly marks: ReadonlyMap<string, string>
  readonly code: string
}

/** The pages whose blocks are tested. */
export function readPages(): string[] {
  const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .map((name) => name.replaceAll('\\', '/'))
    .filter((name) => name.endsWith('.md'))
    .sort()
  return ['README.md', 'CONTRIBUTING.md', ...docs.map((name) => `docs/${name}`)]
}

/** Reads the fenced blocks of a page, in their order. */
export function readBlocks(page: string): Block[] {
  const lines = readFileSync(join(root, page), 'utf8').split('\n')
  const blocks: Block[] = []
  let heading = ''
  let open: { line: number; info: string; code: string[] } | undefined
  lines.forEach((text, index) => {
    if (open === undefined) {
      if (text.startsWith('```')) open = { line: index + 2, info: text.slice(3), code: [] }
      else heading = /^#+ (.*)/.exec(text)?.[1] ?? heading
    } else if (text === '```') {
      const [language = '', ...marks] = open.info.trim().split(/\s+/)
      const code = open.code.join('\n')
      blocks.push({ page, line: open.line, heading, language, marks: readMarks(marks), code })
      open = undefined
    } else {
      open.code.push(text)
    }
  })
  if (open !== undefined) throw new Error(`${page}:${open.line - 1}: a fence that nothing closes`)
  return blocks
}

function readMarks(words: readonly string[]): Map<string, string> {
  return new Map(
    words.map((word): [string, string] => {
      const [name, ...value] = word.split('=')
      return [name!, value.join('=')]
    }),
  )
}
