// What is carried into a store that is back, of more counters than are remembered.

import { expect, it } from 'vitest'
import { LocalShare } from '../src/local-share.ts'
import type { Charge } from '../src/stores/store.ts'

const chargeOf = (partition: string, cost: number): Charge => ({
  kind: 'fixed-window',
  stateId: 1,
  partition,
  windowUs: 86_400_000_000,
  quota: 100,
  capacity: 100,
  cost,
  liftable: false,
  shadow: false,
})

async function use(share: LocalShare, partition: string, cost: number): Promise<void> {
  const { decision } = await share.decide({ undo: [], commit: true }, [chargeOf(partition, cost)], [], 1)
  expect(decision.admitted).toBe(true)
}

it('a flood of newcomers does not push out those who used much before it, nor those who come to in it', async () => {
  const share = new LocalShare()
  for (let nth = 0; nth < 50; nth += 1) await use(share, `early${nth}`, 90)
  for (let nth = 0; nth < 15_000; nth += 1) {
    await use(share, `new${nth}`, 1)
    if (nth % 1000 === 0) await use(share, 'within', 6)
  }
  const carried = await share.takeOver()
  const byPartition = new Map(carried.map(({ charged, by }) => [charged.charge.partition, by]))
  expect(byPartition.size).toBe(10_000)
  for (let nth = 0; nth < 50; nth += 1) expect(byPartition.get(`early${nth}`)).toBe(90)
  expect(byPartition.get('within')).toBe(90)
  // What the store knows by now is forgotten before what it does not.
  for (let nth = 0; nth < 9990; nth += 1) await use(share, `later${nth}`, 1)
  expect(await share.takeOver()).toHaveLength(9990)
})

it('what was given back, or reset, is not carried, and leaves room', async () => {
  const share = new LocalShare()
  await use(share, 'one', 90)
  await use(share, 'two', 90)
  await share.reset('one')
  const charged = { charge: chargeOf('two', 90), cost: 90, chargedAtUs: Date.now() * 1000, added: 0 }
  await share.settle([{ charged, by: -40 }])
  for (let nth = 0; nth < 12_000; nth += 1) await use(share, `new${nth}`, 1)
  const carried = new Map((await share.takeOver()).map(({ charged: { charge }, by }) => [charge.partition, by]))
  expect([carried.get('one'), carried.get('two'), carried.size]).toEqual([undefined, 50, 10_000])
})
