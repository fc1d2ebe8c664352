import { patient, travel } from './honest.ts'
import type { Casting, Habit, Sender } from './world.ts'

/** The loud ones go away once they were turned away so often in a row. */
const mostDenied = 300

/** Asks at its own pace, whatever it is told, until it is turned away for good. */
function ignore(everyMs: number, pathOf: (index: number, random: () => number) => string): Habit {
  return async function* (me, random) {
    let denied = 0
    for (let index = Math.floor(random() * 1000); denied < mostDenied; index += 1) {
      const { status } = await me.ask(pathOf(index, random))
      denied = status === 403 ? denied + 1 : 0
      yield everyMs * (0.5 + random())
    }
  }
}

/** Repeats one request, or a few by turns. */
function hammer(everyMs: number, paths: readonly string[]): Habit {
  return ignore(everyMs, (index) => paths[index % paths.length]!)
}

/** Fetches one item after the other, or any of them. */
function scrape(everyMs: number, shuffled: boolean): Habit {
  return ignore(everyMs, (index, random) => `/items/${shuffled ? 1 + Math.floor(random() * 6000) : index % 6000}`)
}

/** Tries numbers: accounts of others, or items that may be there. It waits as it is told. */
function guess(everyMs: number, what: 'accounts' | 'items'): Habit {
  return async function* (me, random) {
    let id = 20_000 + Math.floor(random() * 10_000)
    for (;;) {
      id += 1 + Math.floor(random() * 2)
      const reply = await me.ask(`/${what}/${id}`)
      yield travel(random) + patient(reply, random) + everyMs * (0.5 + random())
    }
  }
}

/** A service, and somebody else who has its key. */
function leaked(thiefEveryMs: number): Habit[] {
  const service: Habit = async function* (me, random) {
    for (;;) {
      const reply = await me.ask('/feed')
      yield patient(reply, random) + 5000 + random() * 10_000
    }
  }
  const thief: Habit = async function* (me, random) {
    const from: Sender = {
      ...me.from,
      address: '198.51.100.66',
      country: 'BR',
      asn: '64999',
      ja4: 'thief',
      userAgent: 'curl/8.5.0',
    }
    for (;;) {
      const reply = await me.ask(`/items/${1 + Math.floor(random() * 500) * 10}`, { from })
      yield patient(reply, random) + thiefEveryMs * (0.5 + random())
    }
  }
  return [service, thief]
}

/** Tries cards, of which one in thirty is good. */
function tryCards(everyMs: number): Habit {
  return async function* (me, random) {
    for (;;) {
      const reply = await me.ask('/charge', { method: 'POST', card: random() < 1 / 30 ? 'good' : 'bad' })
      yield patient(reply, random) + everyMs * (0.5 + random())
    }
  }
}

export function abusiveCast(random: () => number): Casting[] {
  const cast: Casting[] = []
  const add = (
    label: string,
    habit: string,
    count: number,
    plays: readonly Habit[],
    from: Partial<Sender> = {},
  ): void => {
    for (let index = 0; index < count; index += 1) {
      const place = cast.length
      cast.push({
        key: `${habit}-${index}`,
        label,
        habit,
        from: {
          address: `198.51.100.${100 + place}`,
          userAgent: `tool-${habit}`,
          country: 'NL',
          asn: '64501',
          ja4: 'tool',
          ...from,
        },
        startsMs: 300_000 + random() * 900_000,
        plays,
      })
    }
  }
  add('retry-storm', 'storm', 2, [hammer(200, ['/status'])])
  add('retry-storm', 'slow storm', 2, [hammer(800, ['/status'])])
  add('retry-storm', 'storm of four accounts', 4, [hammer(600, ['/status'])], { address: '198.51.100.40' })
  add('quota-exhaustion', 'exhauster', 2, [hammer(200, ['/feed', '/reports', '/search', '/status', '/news'])])
  add('quota-exhaustion', 'slow exhauster', 2, [hammer(800, ['/feed', '/reports', '/search', '/status'])])
  add('scraping', 'scraper', 2, [scrape(200, false)])
  add('scraping', 'shuffling scraper', 2, [scrape(500, true)])
  add('scraping', 'scraper of three accounts', 3, [scrape(600, true)], { address: '198.51.100.41' })
  add('enumeration', 'accounts guesser', 2, [guess(1000, 'accounts')])
  add('enumeration', 'items guesser', 2, [guess(3000, 'items')])
  add('enumeration', 'slow guesser', 2, [guess(120_000, 'accounts')])
  add('enumeration', 'guesser of ten accounts', 10, [guess(60_000, 'items')], { address: '203.0.113.77' })
  add('credential-leakage', 'leaked key', 2, leaked(8000))
  add('credential-leakage', 'leaked key, used rarely', 2, leaked(120_000))
  add('transactional-abuse', 'card tester', 2, [tryCards(8000)])
  add('transactional-abuse', 'slow card tester', 2, [tryCards(180_000)])
  add('retry-storm', 'triple rate', 2, [hammer(333, ['/status'])])
  return cast
}
