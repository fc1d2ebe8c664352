// Who is behind an address is who was lately: after an hour an account, or a stranger, is behind it no more.

import { expect, it } from 'vitest'
import { Suspects } from '../../src/abuse/suspects.ts'

const address = 'ip:192.0.2.1'

it('forgets who was behind an address an hour ago, and keeps the latest sixteen', () => {
  let now = 0
  const suspects = new Suspects({ now: () => now })
  suspects.note(address, { account: 'key:old', itself: true })
  now = 3_599_999
  suspects.note(address, { account: 'key:new' })
  expect(suspects.suspect(address)).toMatchObject({ accounts: ['key:old', 'key:new'], itself: true })
  now = 3_600_000
  expect(suspects.suspect(address)).toMatchObject({ accounts: ['key:new'], itself: false })
  for (let nth = 0; nth < 20; nth += 1) suspects.note(address, { account: `key:${nth}` })
  expect(suspects.suspect(address).accounts).toEqual(Array.from({ length: 16 }, (_, nth) => `key:${nth + 4}`))
})
