import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { createNotes } from '../src/notes.ts'

describe('notes', () => {
  it('are of one object, and the last one counts', () => {
    const notes = createNotes<object, string>()
    const [one, other] = [{}, {}]
    expect(notes.get(one)).toBeUndefined()
    notes.set(one, 'first')
    notes.set(one, 'second')
    expect([notes.get(one), notes.get(other)]).toEqual(['second', undefined])
  })

  it('of several who make them do not meet', () => {
    const [ours, theirs] = [createNotes<object, string>(), createNotes<object, string>()]
    const on = {}
    ours.set(on, 'ours')
    expect(theirs.get(on)).toBeUndefined()
    theirs.set(on, 'theirs')
    expect([ours.get(on), theirs.get(on)]).toEqual(['ours', 'theirs'])
  })

  it('are seen by nobody else', () => {
    const notes = createNotes<object, string>()
    const on = { path: '/' }
    notes.set(on, 'secret')
    expect(Reflect.ownKeys(on)).toEqual(['path'])
    expect(inspect(on, { showHidden: true, depth: null })).not.toContain('secret')
    expect(notes.get({ ...on })).toBeUndefined()
    expect(notes.get(Object.create(on) as object)).toBeUndefined()
  })
})
