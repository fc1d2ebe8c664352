import { describe, expect, it } from 'vitest'
import { Batch } from '../../src/stores/redis/batch.ts'

/** A batch whose items are numbers, and weigh what they say; the answer to each is its double, to a negative one an error. */
function doubling(): { add: (item: number) => Promise<number>; sent: number[][] } {
  const sent: number[][] = []
  const batch = new Batch<number, number>({
    send: async (items) => {
      sent.push([...items])
      if (items.includes(13)) throw new Error('lost')
      return items.map((item) => (item < 0 ? new Error(`no ${item}`) : item * 2))
    },
    weigh: (item) => Math.abs(item),
    mostWeight: 10,
    mostItems: 4,
    mostUnderWay: 100,
    ownerOf: () => 'all',
  })
  const add = (item: number): Promise<number> =>
    new Promise((answered, failed) => batch.add(item, { answered, failed }))
  return { add, sent }
}

describe('what is added in one turn', () => {
  it('travels together, whichever callback added it', async () => {
    const { add, sent } = doubling()
    const first = add(1)
    await Promise.resolve()
    const second = add(2)
    expect(await Promise.all([first, second])).toEqual([2, 4])
    expect(await add(3)).toBe(6)
    expect(sent).toEqual([[1, 2], [3]])
  })

  it('is parted by its weight and number, and one that weighs too much goes alone', async () => {
    const { add, sent } = doubling()
    const items = [1, 1, 1, 1, 1, 40, 6, 4, 5]
    expect(await Promise.all(items.map(add))).toEqual(items.map((item) => item * 2))
    expect(sent).toEqual([[1, 1, 1, 1], [1], [40], [6, 4], [5]])
  })
})

describe('a failure', () => {
  it('of one item is its own', async () => {
    const { add } = doubling()
    const answers = await Promise.allSettled([1, -2, 3].map(add))
    expect(answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : answer.reason.message))).toEqual([
      2,
      'no -2',
      6,
    ])
  })

  it('of a call is that of all that travelled in it, and of nobody else', async () => {
    const { add } = doubling()
    const answers = await Promise.allSettled([4, 13, 5].map(add))
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await add(1)).toBe(2)
  })

  it("of one that waits is nobody else's", async () => {
    const batch = new Batch<number, number>({
      send: async (items) => [...items],
      weigh: () => 1,
      mostWeight: 10,
      mostItems: 4,
      mostUnderWay: 100,
      ownerOf: () => 'all',
    })
    const heard: unknown[] = []
    const answered = new Promise<number>((resolve, failed) => {
      batch.add(1, {
        answered: () => {
          throw new Error('broken')
        },
        failed: (error) => heard.push(String(error)),
      })
      batch.add(2, { answered: resolve, failed })
    })
    expect(await answered).toBe(2)
    expect(heard).toEqual(['Error: broken'])
  })
})

describe('who asks for much', () => {
  /** A batch whose items are named by their owners, and whose calls are answered by the test. */
  function held(): {
    batch: Batch<string, string>
    add: (item: string) => Promise<string>
    sent: string[]
    answer: (failing?: boolean) => Promise<void>
  } {
    const sent: string[] = []
    const open: ((failing: boolean) => void)[] = []
    const batch = new Batch<string, string>({
      send: (items) => {
        sent.push(items.join(' '))
        return new Promise((resolve, reject) => {
          open.push((failing) => (failing ? reject(new Error('lost')) : resolve(items)))
        })
      },
      weigh: () => 1,
      mostWeight: 10,
      mostItems: 4,
      mostUnderWay: 8,
      ownerOf: (item) => item[0]!,
    })
    const answer = async (failing = false): Promise<void> => {
      open.shift()!(failing)
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    }
    const add = (item: string): Promise<string> =>
      new Promise((answered, failed) => batch.add(item, { answered, failed }))
    return { batch, add, sent, answer }
  }
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
  const many = (owner: string, count: number): string[] => Array.from({ length: count }, (_, nth) => `${owner}${nth}`)

  it('has the others go first in the same turn, and keeps its own in their order', async () => {
    const { add, sent, answer } = held()
    const all = Promise.all([...many('a', 6), 'b0', 'c0'].map(add))
    await turn()
    expect(sent).toEqual(['a0 b0 c0 a1', 'a2 a3 a4 a5'])
    await answer()
    await answer()
    expect(await all).toEqual([...many('a', 6), 'b0', 'c0'])
  })

  it('has no more under way than may be, and whoever comes later is next', async () => {
    const { add, sent, answer } = held()
    const all = Promise.allSettled(many('a', 20).map(add))
    await turn()
    expect(sent).toEqual(['a0 a1 a2 a3', 'a4 a5 a6 a7'])
    const other = add('b0')
    await turn()
    expect(sent).toHaveLength(2)
    await answer()
    // A round each: whose turn it is, then the one who came.
    expect(sent[2]).toBe('a8 b0 a9 a10')
    // A call that fails makes room as well.
    await answer(true)
    await answer()
    expect(await other).toBe('b0')
    for (let rest = 0; rest < 3; rest += 1) await answer()
    expect(sent.join(' ').split(' ')).toHaveLength(21)
    expect((await all).filter(({ status }) => status === 'rejected')).toHaveLength(4)
  })

  it('is not sent what nobody waits for any more', async () => {
    const { batch, add, sent, answer } = held()
    const all = Promise.all(many('a', 8).map(add))
    await turn()
    const gone = { isGivenUp: false, answered: () => {}, failed: () => {} }
    batch.add('b0', gone)
    const other = add('c0')
    await turn()
    gone.isGivenUp = true
    await answer()
    expect(sent[2]).toBe('c0')
    await answer()
    await answer()
    expect(await other).toBe('c0')
    await all
  })
})
