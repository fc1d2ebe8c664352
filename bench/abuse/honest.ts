import type { Casting, Habit, Reply, Sender } from './world.ts'

/** Strangers without a credential, at the address from which ten accounts guess: they cannot be told from these. */
export const bystanders = 'strangers beside a guesser'

/** How long a request and its answer travel, in ms. */
export function travel(random: () => number): number {
  return 20 + random() * 80
}

/** Waits as it was told, up to a second late. */
export function patient({ waitMs, status }: Reply, random: () => number): number {
  if (waitMs === null) return status === 401 ? 300_000 : 0
  return waitMs + random() * 1000
}

type Ask = (path: string) => Promise<Reply>

/** Asks until it is served, as it is told. */
async function* insist(ask: Ask, path: string, random: () => number): AsyncGenerator<number, Reply> {
  for (;;) {
    const reply = await ask(path)
    yield travel(random)
    const wait = patient(reply, random)
    if (wait === 0) return reply
    yield wait
  }
}

/** 80 targets at once, then one every ten seconds or so. */
const discovery: Habit = async function* (me, random) {
  for (let index = 0; index < 80; index += 1)
    yield* insist((path) => me.ask(path), `/items/${1 + Math.floor(random() * 6000)}`, random)
  for (;;) {
    yield* insist((path) => me.ask(path), `/items/${1 + Math.floor(random() * 6000)}`, random)
    yield random() * 20_000
  }
}

/** One of the twenty that share a list and a credential, each of which waits by itself. */
function worker(list: { next: number; readonly end: number }): Habit {
  return async function* (me, random) {
    while (list.next < list.end) {
      const id = list.next
      list.next += 1
      yield* insist((path) => me.ask(path), `/items/${id}`, random)
    }
  }
}

/** One of the forty that share a queue and a credential: it is at work for half a minute with each thing that it fetches, and waits by itself. */
function slowWorker(queue: { next: number }): Habit {
  return async function* (me, random) {
    yield random() * 120_000
    for (;;) {
      const place = queue.next % 600
      queue.next += 1
      yield* insist((path) => me.ask(path), `/items/${1 + 10 * place}`, random)
      yield 15_000 + random() * 35_000
    }
  }
}

/** Thirty requests every quarter of an hour, at the same minute as the others. */
const scheduled: Habit = async function* (me, random) {
  for (;;) {
    let spent = 0
    for (let index = 0; index < 30; index += 1) {
      for await (const ms of insist((path) => me.ask(path), index % 2 === 0 ? '/feed' : '/reports', random)) {
        spent += ms
        yield ms
      }
    }
    yield Math.max(1000, 900_000 - spent)
  }
}

/** Loses one answer in twelve, and sends again after a second or two. */
const flaky: Habit = async function* (me, random) {
  for (;;) {
    const path = `/items/${1 + Math.floor(random() * 300)}`
    const reply = await me.ask(path)
    yield travel(random)
    if (random() < 1 / 12) {
      yield 1000 + random() * 1000
      continue
    }
    yield patient(reply, random) + random() * 2500
  }
}

/** Tries twice more at once when it is refused, on the one endpoint that it uses; then waits as told. */
const buggy: Habit = async function* (me, random) {
  for (;;) {
    let reply = await me.ask('/status')
    for (let retry = 0; retry < 2 && reply.status === 429; retry += 1) {
      yield 700 + random() * 600
      reply = await me.ask('/status')
    }
    yield travel(random) + patient(reply, random) + random() * 600
  }
}

/** Reads a page every few seconds, now and then one that is gone. */
const person: Habit = async function* (me, random) {
  const pages = ['/feed', '/news', '/search', '/items/5', '/items/17', '/accounts/own']
  for (;;) {
    const isGone = random() < 0.03
    const path = isGone ? `/items/${7 + 10 * Math.floor(random() * 600)}` : pages[Math.floor(random() * pages.length)]!
    yield* insist((path) => me.ask(path), path, random)
    yield 4000 + random() * 20_000
  }
}

/** The same account on a laptop and a phone, by turns: one country, two networks, two programs. */
const twoDevices: Habit = async function* (me, random) {
  const phone: Sender = {
    ...me.from,
    address: '198.51.100.9',
    asn: '64510',
    ja4: 'phone',
    userAgent: 'Shop/7 (iPhone)',
  }
  for (;;) {
    yield* insist((path) => me.ask(path, random() < 0.4 ? { from: phone } : {}), '/feed', random)
    yield 3000 + random() * 15_000
  }
}

/** One program in three regions, with one key. */
const regions: Habit = async function* (me, random) {
  const others = ['US', 'SG', 'DE'].map((country, place): Sender => ({
    ...me.from,
    country,
    asn: `6450${place}`,
    address: `203.0.113.${place + 1}`,
  }))
  for (;;) {
    const from = others[Math.floor(random() * 3)]!
    yield* insist((path) => me.ask(path, { from }), `/items/${1 + Math.floor(random() * 2000)}`, random)
    yield 1000 + random() * 3000
  }
}

/** Copies all items, one after the other, as fast as it may. */
const sync: Habit = async function* (me, random) {
  for (let id = 1; id <= 6000; id += 1) yield* insist((path) => me.ask(path), `/items/${id}`, random)
}

/** Follows old links, of which one in seven leads nowhere. */
const staleLinks: Habit = async function* (me, random) {
  for (;;) {
    const id = random() < 1 / 7 ? 7 + 10 * Math.floor(random() * 600) : 1 + 10 * Math.floor(random() * 600)
    yield* insist((path) => me.ask(path), `/items/${id}`, random)
    yield random() * 8000
  }
}

/** Buys something now and then; one card in five is declined. */
const shopper: Habit = async function* (me, random) {
  for (;;) {
    const card = random() < 0.2 ? 'bad' : 'good'
    yield* insist((path) => me.ask(path, { method: 'POST', card }), '/charge', random)
    yield 30_000 + random() * 200_000
  }
}

/** Looks whether a document is there, and then writes it. */
const lookThenCreate: Habit = async function* (me, random) {
  for (;;) {
    const path = `/docs/${Math.floor(random() * 1e9)}`
    yield* insist((path) => me.ask(path), path, random)
    yield* insist((path) => me.ask(path, { method: 'PUT' }), path, random)
    yield random() * 8000
  }
}

export function honestCast(random: () => number): Casting[] {
  const cast: Casting[] = []
  const add = (
    habit: string,
    count: number,
    plays: () => readonly Habit[],
    how: { anonymous?: true; from?: Partial<Sender>; atOnce?: true } = {},
  ): void => {
    for (let index = 0; index < count; index += 1) {
      const place = cast.length
      const from = {
        address: `192.0.2.${place}`,
        userAgent: `${habit}/1.${place}`,
        country: 'NL',
        asn: '64500',
        ja4: `ja4-${habit}`,
        ...how.from,
      }
      const startsMs = how.atOnce === true ? 60_000 + random() * 2000 : random() * 600_000
      cast.push({
        label: null,
        habit,
        from,
        startsMs,
        plays: plays(),
        ...(how.anonymous !== true && { key: `${habit}-${index}` }),
      })
    }
  }
  add('discovery', 4, () => [discovery])
  add('twenty-parallel', 2, () => {
    const list = { next: 1 + Math.floor(random() * 1000), end: 3000 }
    return Array.from({ length: 20 }, () => worker(list))
  })
  add('forty-parallel', 2, () => {
    const queue = { next: Math.floor(random() * 600) }
    return Array.from({ length: 40 }, () => slowWorker(queue))
  })
  add('scheduled-herd', 10, () => [scheduled], { atOnce: true })
  add('flaky-network', 2, () => [flaky])
  add('buggy', 2, () => [buggy])
  add('person', 8, () => [person])
  add('visitors', 2, () => [person, person, person], { anonymous: true })
  add(bystanders, 1, () => [person, person, person], { anonymous: true, from: { address: '203.0.113.77' } })
  add('two-devices', 3, () => [twoDevices])
  add('three-regions', 2, () => [regions])
  add('sync', 2, () => [sync])
  add('stale-links', 3, () => [staleLinks])
  add('shopper', 4, () => [shopper])
  add('look then create', 3, () => [lookThenCreate])
  return cast
}
