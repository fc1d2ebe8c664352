// How many payments of one payer are looked at together.

import { expect, it } from 'vitest'
import { Turns } from '../../src/payments/turns.ts'

it('lets so many in, hands turns on in their order, and turns a crowd away', async () => {
  const turns = new Turns(2)
  const order: number[] = []
  const entered = Array.from({ length: 1003 }, async (_, nth) => {
    const isIn = await turns.enter('ip:a')
    if (isIn) order.push(nth)
    return isIn
  })
  // Somebody else is not held up.
  expect(await turns.enter('ip:b')).toBe(true)
  expect(order).toEqual([0, 1])
  expect(await entered[1002]).toBe(false)
  for (let nth = 0; nth < 1000; nth += 1) {
    turns.leave('ip:a')
    await entered[nth + 2]
  }
  expect(order).toEqual(Array.from({ length: 1002 }, (_, nth) => nth))
  turns.leave('ip:a')
  turns.leave('ip:a')
  // All have left, and it begins anew.
  expect(await Promise.all([turns.enter('ip:a'), turns.enter('ip:a')])).toEqual([true, true])
})
