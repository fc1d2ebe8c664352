import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { errorCodes, RampmeterError, type ErrorCode } from '../src/errors.ts'

const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')

/** The sections of the page, by their headings, each with what stands under it. */
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((text): [string, string] => {
      const end = text.indexOf('\n')
      return [text.slice(0, end).trim(), text.slice(end)]
    }),
)
const documented = [...sections.keys()].filter((heading) => heading.startsWith('RAMPMETER_'))

describe('docs/errors.md', () => {
  it('has a section for each code, and for no other', () => {
    expect(documented.toSorted()).toEqual(Object.keys(errorCodes).toSorted())
  })

  it.each(documented)('%s says what was seen and what to write', (heading) => {
    const text = sections.get(heading)!
    expect(text.trim().split(/\s+/).length).toBeGreaterThan(20)
    expect(text).toMatch(/\*\*Instead/)
  })

  it.each(Object.keys(errorCodes) as ErrorCode[])('%s is where the error points to', (code) => {
    const [file, anchor] = new RampmeterError(code, 'a mistake').docs.split('#')
    expect(file).toBe('rampmeter/docs/errors.md')
    // As GitHub and npm make anchors: lower case, and of these characters none is dropped.
    expect(documented.map((heading) => heading.toLowerCase())).toContain(anchor)
  })
})
