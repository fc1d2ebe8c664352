import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import type { PolicyKind } from '../policy.ts'
import { memoryStore } from '../stores/memory.ts'
import type {
  Charge,
  Charged,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  OpenStore,
  PoolRole,
  Store,
  StoreDecision,
} from '../stores/store.ts'
import { manualClock } from './manual-clock.ts'

/** A store to test, with its clock in the test's hands. */
export interface StoreUnderTest {
  readonly store: Store
  /**
   * Turns the store's clock on by whole milliseconds. Else it stands still: with a clock that also runs by itself, tests of
   * exact times fail. Negative ones set it back, which a store whose clock cannot be set back may ignore.
   */
  advance?(ms: number): void | Promise<void>
  /** Called after the test, when the store is closed. */
  stop?(): void | Promise<void>
}

/** Makes a store for one test. Stores may share a server: each test uses partitions of its own. */
export type StoreMaker = () => Store | StoreUnderTest | Promise<Store | StoreUnderTest>

/** Where the tests are declared: the functions of vitest, Jest, Mocha or `node:test`. */
export interface TestRunner {
  describe: (name: string, body: () => void) => unknown
  it: (name: string, body: () => Promise<void>) => unknown
}

/**
 * Declares the tests that every {@link Store} has to pass: all or none, the cap of each algorithm, times to wait that are
 * true and no longer than needed, corrections, the first minutes' extra, limits and clocks that change, and random histories
 * that must be answered as `memoryStore` answers them.
 *
 * A maker that returns a plain store gets the tests that need no clock, in windows of an hour, and skips the others (Jest
 * cannot skip from within a test and shows those as passed).
 *
 * @param runner default: the globals `describe` and `it`
 *
 * @example
 * import { describe, it } from 'vitest'
 * describeStore('my store', () => {
 *   const clock = manualClock()
 *   return { store: myStore({ now: clock }), advance: (ms) => void clock.advance(ms) }
 * }, { describe, it })
 */
export function describeStore(
  name: string,
  makeStore: StoreMaker,
  runner: TestRunner = globalThis as unknown as TestRunner,
): void {
  runner.describe(name, () => {
    for (const [title, body] of timeless) {
      runner.it(title, async () => {
        await runTrial(makeStore, body)
      })
    }
    for (const [title, body] of timed) {
      runner.it(title, async (...context: unknown[]) => {
        const ran = await runTrial(makeStore, body, true)
        // vitest and node:test hand each test a context.
        if (ran === 'no clock') (context[0] as { skip?: (why: string) => void } | undefined)?.skip?.('needs advance()')
      })
    }
  })
}

type Body = (trial: Trial) => Promise<void>

const timeless: [string, Body][] = []
const timed: [string, Body][] = []

/** Adds a test that needs no clock. */
function test(title: string, body: Body): void {
  timeless.push([title, body])
}

/** Adds a test that turns the clock. */
function testInTime(title: string, body: Body): void {
  timed.push([title, body])
}

async function runTrial(makeStore: StoreMaker, body: Body, needsClock = false): Promise<'ran' | 'no clock'> {
  const made = await makeStore()
  const underTest: StoreUnderTest = 'store' in made ? made : { store: made }
  try {
    if (needsClock && !underTest.advance) return 'no clock'
    const trial = new Trial(underTest)
    try {
      await trial.handle.ready()
      await body(trial)
    } finally {
      await trial.handle.close()
    }
    return 'ran'
  } finally {
    await underTest.stop?.()
  }
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

/** Those that refill or renew. The first minutes' extra is a kind of its own. */
const kinds = ['token-bucket', 'sliding-window', 'sliding-log', 'fixed-window'] as const
const plainKinds: readonly PolicyKind[] = [...kinds, 'first-minutes']
const allKinds: readonly PolicyKind[] = [
  ...plainKinds,
  'concurrency',
  'failures',
  'unique-targets',
  'pool-demand',
  'single-use',
]

interface Claim {
  quota: number
  /** Default 1. */
  cost?: number
  /** Default an hour. */
  windowMs?: number
  /** Of a token bucket. Default: the quota. */
  burst?: number
  /** Of the first minutes' extra. Default a day. */
  renewMs?: number
  /** Default: the trial's own. */
  partition?: string
  /** Tells counters of one kind in one partition apart. */
  number?: number
  liftable?: boolean
  shadow?: boolean
}

/** One test's store, opened. */
class Trial {
  readonly store: Store
  readonly handle: OpenStore
  /** A partition that no other test uses. */
  readonly partition: string = `client:${randomUUID()}`
  readonly #advance: (ms: number) => void | Promise<void>

  constructor(underTest: StoreUnderTest) {
    this.store = underTest.store
    this.handle = this.open()
    this.#advance = (ms) => underTest.advance?.(ms)
  }

  /** Another handle, as another limiter would hold it. */
  open(): OpenStore {
    return this.store.open({ nameOf })
  }

  charge(kind: PolicyKind, claim: Claim): Charge {
    const { quota, cost = 1, windowMs = hourMs, renewMs = dayMs, number = 0 } = claim
    return {
      kind,
      // Uses the highest bit too.
      stateId: 0xfffffff0 - number * 16 + allKinds.indexOf(kind),
      partition: claim.partition ?? this.partition,
      windowUs: windowMs * 1000,
      quota,
      capacity: kind === 'first-minutes' ? renewMs * 1000 : kind === 'token-bucket' ? (claim.burst ?? quota) : quota,
      cost,
      liftable: claim.liftable ?? false,
      shadow: claim.shadow ?? false,
    }
  }

  /** A charge of what is counted by name. */
  named(kind: 'concurrency' | 'unique-targets', members: readonly string[], claim: Omit<Claim, 'cost'>): Charge {
    return { ...this.charge(kind, { ...claim, cost: members.length }), members }
  }

  decide(charges: Charge | Charge[], more: Partial<DecisionRequest> = {}): Promise<StoreDecision> {
    return this.handle.decide({ charges: [charges].flat(), undo: [], commit: true, ...more })
  }

  /** What would be decided. Changes nothing. */
  look(charges: Charge | Charge[], more: Partial<DecisionRequest> = {}): Promise<StoreDecision> {
    return this.decide(charges, { ...more, commit: false })
  }

  async admit(charges: Charge | Charge[], more: Partial<DecisionRequest> = {}): Promise<StoreDecision> {
    const decision = await this.decide(charges, more)
    assert.equal(decision.admitted, true, 'admitted')
    assert.equal(decision.retryAfterUs, 0, 'retryAfterUs of an admitted request')
    return decision
  }

  async refuse(charges: Charge | Charge[], more: Partial<DecisionRequest> = {}): Promise<StoreDecision> {
    const decision = await this.decide(charges, more)
    assert.equal(decision.admitted, false, 'admitted')
    assert.notEqual(decision.retryAfterUs, 0, 'retryAfterUs of a refused request')
    return decision
  }

  /** Makes a charge and returns what takes it back. */
  async charged(charge: Charge): Promise<Charged> {
    const { nowUs, outcomes } = await this.admit(charge)
    return { charge, cost: charge.cost, chargedAtUs: nowUs, added: outcomes[0]!.added ?? 0 }
  }

  async remaining(charge: Charge): Promise<number> {
    const { outcomes } = await this.look(charge)
    return outcomes[0]!.remaining
  }

  async advance(ms: number): Promise<void> {
    await this.#advance(ms)
  }
}

/** Different for different partitions, and safe in any key. */
function nameOf(partition: string): string {
  return createHash('sha256').update(Buffer.from(partition, 'utf16le')).digest('base64url')
}

// ---- tickets

testInTime(
  'a reservation is kept against everybody, is good once, and ends two seconds after its time',
  async (trial) => {
    const charge = trial.charge('token-bucket', { quota: 60, windowMs: minuteMs, cost: 60 })
    const one = { ...charge, cost: 1 }
    const tickets = { share: 0.25, horizonUs: minuteMs * 1000, client: 1 }
    await trial.admit(charge)
    const refused = await trial.refuse(one, { tickets: { ...tickets, id: 1 } })
    const slotUs = refused.ticket?.reservedUs
    // A store may do without reservations.
    if (slotUs === undefined) return
    assert.equal(slotUs, refused.nowUs + refused.retryAfterUs!, 'the slot is what is told')
    const shown = { id: 1, slotUs }
    const early = await trial.refuse(one, { tickets: { ...tickets, id: 2, shown } })
    assert.equal(early.ticket?.shown, 'early')
    await trial.advance(1001)
    await trial.refuse(one, { tickets: { ...tickets, share: 0, id: 3 } })
    const returned = await trial.admit(one, { tickets: { ...tickets, id: 4, shown } })
    assert.equal(returned.ticket?.shown, 'redeemed')
    const again = await trial.refuse(one, { tickets: { ...tickets, share: 0, id: 5, shown } })
    assert.equal(again.ticket?.shown, 'used')

    const next = await trial.refuse(one, { tickets: { ...tickets, id: 6 } })
    const late = { id: 6, slotUs: next.ticket!.reservedUs! }
    await trial.advance(Math.ceil(next.retryAfterUs! / 1000) + 2001)
    const lapsed = await trial.admit(one, { tickets: { ...tickets, id: 7, shown: late } })
    assert.equal(lapsed.ticket?.shown, 'lapsed')
  },
)

// ---- single use

/** A proof that one request shows. */
function proof(trial: Trial, name: string, holder: string, windowMs = minuteMs): Charge {
  return {
    ...trial.charge('single-use', { quota: 1, windowMs }),
    members: [`${trial.partition.slice(-36)}_${name}`, holder],
  }
}

test('takes a proof once, and from the request that used it as often as it asks', async (trial) => {
  await trial.admit(proof(trial, 'a', 'one'))
  await trial.admit(proof(trial, 'a', 'one'))
  const refused = await trial.refuse(proof(trial, 'a', 'two'))
  assert.deepEqual(verdicts(refused), ['refused'])
  assert.equal(refused.retryAfterUs, null, 'waiting does not help')
  assert.equal(refused.outcomes[0]!.waitUs, null)
  await trial.admit(proof(trial, 'b', 'two'))
  assert.equal((await trial.look(proof(trial, 'b', 'three'))).admitted, false)
  await trial.admit([proof(trial, 'c', 'three'), proof(trial, 'd', 'three')])
  await trial.refuse([proof(trial, 'e', 'four'), proof(trial, 'd', 'four')])
  await trial.admit(proof(trial, 'e', 'five'))
})

test('takes no proof of a request that is refused, and charges nothing for one that was used', async (trial) => {
  const charge = trial.charge('token-bucket', { quota: 1 })
  await trial.admit([charge, proof(trial, 'a', 'one')])
  await trial.refuse([charge, proof(trial, 'b', 'two')])
  await trial.admit(proof(trial, 'b', 'three'))
  const other = trial.charge('token-bucket', { quota: 1, number: 1 })
  await trial.refuse([other, proof(trial, 'a', 'four')])
  assert.equal(await trial.remaining(other), 1)
  assert.equal((await trial.look([other, proof(trial, 'f', 'five')])).admitted, true)
  await trial.admit([other, proof(trial, 'f', 'six')])
})

test('takes a proof once, however many show it at the same time', async (trial) => {
  const decisions = await Promise.all(
    Array.from({ length: 50 }, (_, index) => trial.decide(proof(trial, 'a', `request ${index}`))),
  )
  assert.equal(decisions.filter(({ admitted }) => admitted).length, 1)
})

test('forgets no proof when a client is forgotten', async (trial) => {
  const charge = trial.charge('token-bucket', { quota: 1 })
  await trial.admit([charge, proof(trial, 'a', 'one')])
  await trial.handle.reset(trial.partition, [charge.stateId])
  assert.equal(await trial.remaining(charge), 1)
  await trial.refuse(proof(trial, 'a', 'two'))
})

test('gives a proof back to whoever used it, and to nobody else', async (trial) => {
  const used = await trial.charged(proof(trial, 'a', 'one'))
  await trial.handle.settle([{ charged: { ...used, charge: proof(trial, 'a', 'two') }, by: -1 }])
  await trial.refuse(proof(trial, 'a', 'three'))
  await trial.handle.settle([{ charged: used, by: -1 }])
  await trial.admit(proof(trial, 'a', 'four'))
})

testInTime('remembers a proof until it has ended', async (trial) => {
  await trial.admit([proof(trial, 'long', 'one', minuteMs), proof(trial, 'short', 'one', 1000)])
  await trial.advance(999)
  await trial.refuse(proof(trial, 'short', 'two', 1000))
  await trial.advance(2)
  await trial.admit(proof(trial, 'short', 'two', 1000))
  await trial.advance(minuteMs - 1003)
  await trial.refuse(proof(trial, 'long', 'two'))
  await trial.advance(4)
  await trial.admit(proof(trial, 'long', 'two'))
})

// ---- all or none

test('charges every policy of an admitted request, and reports one outcome for each, in order', async (trial) => {
  const charges = kinds.map((kind, index) => trial.charge(kind, { quota: 10 + index, cost: 3 + index }))
  const decision = await trial.admit(charges)
  assert.deepEqual(remainders(decision), [7, 7, 7, 7])
  assert.deepEqual(verdicts(decision), ['fits', 'fits', 'fits', 'fits'])
  for (const value of [
    decision.nowUs,
    ...decision.outcomes.flatMap((one) => [one.remaining, one.waitUs, one.resetUs]),
  ]) {
    assert.ok(Number.isSafeInteger(value), `${value} is a whole number`)
  }
})

test('charges none when one policy refuses, in whatever place and partition it is', async (trial) => {
  for (const refuser of kinds) {
    const charges = kinds.map((kind, index) =>
      trial.charge(kind, {
        quota: kind === refuser ? 2 : 10,
        cost: 3,
        partition: `${trial.partition}:${refuser}:${index % 2}`,
      }),
    )
    const decision = await trial.refuse(charges)
    assert.deepEqual(
      verdicts(decision),
      kinds.map((kind) => (kind === refuser ? 'refused' : 'fits')),
    )
    assert.deepEqual(
      remainders(decision),
      kinds.map((kind) => (kind === refuser ? 2 : 10)),
    )
    assert.deepEqual(
      remainders(await trial.look(charges)),
      kinds.map((kind) => (kind === refuser ? 2 : 10)),
    )
  }
})

test('keeps counters of one kind in one partition apart by their state id', async (trial) => {
  const charges = Array.from({ length: 8 }, (_, number) =>
    trial.charge('sliding-log', { quota: 5, cost: number % 4, number }),
  )
  await trial.admit(charges)
  assert.deepEqual(remainders(await trial.look(charges)), [5, 4, 3, 2, 5, 4, 3, 2])
})

test('lets a decision without charges pass', async (trial) => {
  const { outcomes } = await trial.admit([])
  assert.deepEqual(outcomes, [])
})

// ---- each algorithm

for (const kind of kinds) {
  test(`${kind}: holds its quota, to the last unit`, async (trial) => {
    const three = trial.charge(kind, { quota: 10, cost: 3 })
    for (const left of [7, 4, 1]) assert.deepEqual(remainders(await trial.admit(three)), [left])
    const refused = await trial.refuse(three)
    assert.deepEqual(remainders(refused), [1])
    assert.ok(refused.retryAfterUs! > 0 && refused.retryAfterUs! <= hourMs * 1000, 'waits at most a window')
    assert.equal(refused.outcomes[0]!.waitUs, refused.retryAfterUs)
    assert.deepEqual(remainders(await trial.admit(trial.charge(kind, { quota: 10, cost: 1 }))), [0])
  })

  test(`${kind}: is not charged by what it refuses`, async (trial) => {
    await trial.admit(trial.charge(kind, { quota: 10, cost: 8 }))
    const three = trial.charge(kind, { quota: 10, cost: 3 })
    const first = await trial.refuse(three)
    for (let times = 0; times < 20; times += 1) await trial.refuse(three)
    const last = await trial.refuse(three)
    assert.deepEqual(remainders(last), [2])
    const told = first.nowUs + first.retryAfterUs!
    assert.ok(last.nowUs + last.outcomes[0]!.waitUs! <= told, 'refusals postpone nothing')
  })

  test(`${kind}: says never of a cost above its capacity, and admits one of all its capacity`, async (trial) => {
    const other = trial.charge('sliding-log', { quota: 10, number: 1 })
    const decision = await trial.refuse([trial.charge(kind, { quota: 10, cost: 11 }), other])
    assert.equal(decision.retryAfterUs, null)
    assert.deepEqual(
      decision.outcomes.map((outcome) => outcome.waitUs),
      [null, 0],
    )
    assert.equal(await trial.remaining(other), 10)
    assert.deepEqual(remainders(await trial.admit(trial.charge(kind, { quota: 10, cost: 10 }))), [0])
  })

  test(`${kind}: admits a cost of 0 with nothing left, charges nothing for it, and tells what is left`, async (trial) => {
    await trial.admit(trial.charge(kind, { quota: 3, cost: 3 }))
    const free = await trial.admit(trial.charge(kind, { quota: 3, cost: 0 }))
    assert.deepEqual(verdicts(free), ['fits'])
    assert.deepEqual(remainders(free), [0])
    assert.ok(free.outcomes[0]!.waitUs! > 0, 'tells when 1 fits again')
    assert.equal(await trial.remaining(trial.charge(kind, { quota: 4 })), 1)
  })

  test(`${kind}: looks without charging`, async (trial) => {
    const four = trial.charge(kind, { quota: 10, cost: 4 })
    for (let times = 0; times < 5; times += 1) {
      const seen = await trial.look(four)
      assert.equal(seen.admitted, true)
      assert.deepEqual(remainders(seen), [10])
    }
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 7 }))
    const seen = await trial.look(four)
    assert.equal(seen.admitted, false)
    assert.ok(seen.retryAfterUs! > 0)
    await trial.look(four, { undo: [made] })
    assert.equal(await trial.remaining(four), 3, 'looking gives nothing back')
  })

  test(`${kind}: gives back what is undone, and charges anew in the same step`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 7 }))
    const nine = trial.charge(kind, { quota: 10, cost: 9 })
    await trial.refuse(nine)
    assert.deepEqual(remainders(await trial.admit(nine, { undo: [made] })), [1])
  })

  test(`${kind}: what is undone stays given back when the new request is refused`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 7 }))
    await trial.refuse(trial.charge(kind, { quota: 10, cost: 11 }), { undo: [made] })
    assert.equal(await trial.remaining(made.charge), 10)
  })

  test(`${kind}: settles up, into debt too, and down`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 4 }))
    await trial.handle.settle([{ charged: made, by: 3 }])
    assert.equal(await trial.remaining(made.charge), 3)
    await trial.handle.settle([{ charged: { ...made, cost: 7 }, by: 8 }])
    assert.equal(await trial.remaining(made.charge), 0)
    await trial.refuse(trial.charge(kind, { quota: 10, cost: 1 }))
    await trial.handle.settle([{ charged: { ...made, cost: 15 }, by: -5 }])
    assert.equal(await trial.remaining(made.charge), 0, 'the debt is owed first')
    await trial.handle.settle([{ charged: { ...made, cost: 10 }, by: -8 }])
    assert.equal(await trial.remaining(made.charge), 8)
  })

  test(`${kind}: never holds more than its capacity, whatever is given back`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 4 }))
    await trial.handle.settle([
      { charged: made, by: -4 },
      { charged: made, by: -4 },
    ])
    assert.equal(await trial.remaining(made.charge), 10)
    await trial.refuse(trial.charge(kind, { quota: 10, cost: 11 }))
  })

  test(`${kind}: a quota that changes mints nothing and forgets nothing`, async (trial) => {
    await trial.admit(trial.charge(kind, { quota: 10, cost: 10 }))
    assert.deepEqual(remainders(await trial.admit(trial.charge(kind, { quota: 25, cost: 5 }))), [10])
    await trial.refuse(trial.charge(kind, { quota: 10 }))
    await trial.refuse(trial.charge(kind, { quota: 15 }))
    assert.deepEqual(remainders(await trial.admit(trial.charge(kind, { quota: 16 }))), [0])
  })

  test(`${kind}: under 50 at once, through two handles, admits as many as fit`, async (trial) => {
    const other = trial.open()
    await other.ready()
    try {
      const tight = trial.charge(kind, { quota: 20 })
      const wide = trial.charge(kind, { quota: 30, number: 1, partition: `${trial.partition}:wide` })
      const decisions = await Promise.all(
        Array.from({ length: 50 }, (_, index) =>
          (index % 2 === 0 ? trial.handle : other).decide({ charges: [wide, tight], undo: [], commit: true }),
        ),
      )
      assert.equal(decisions.filter((decision) => decision.admitted).length, 20)
      assert.deepEqual(remainders(await trial.look([tight, wide])), [0, 10])
    } finally {
      await other.close()
    }
  })

  test(`${kind}: in shadow counts what fits, and refuses nothing`, async (trial) => {
    const shadow = trial.charge(kind, { quota: 5, cost: 3, shadow: true })
    const real = trial.charge('sliding-log', { quota: 100, number: 1 })
    assert.deepEqual(verdicts(await trial.admit([shadow, real])), ['fits', 'fits'])
    const over = await trial.admit([shadow, real])
    assert.deepEqual(verdicts(over), ['refused', 'fits'])
    assert.deepEqual(remainders(over), [2, 98])
  })
}

test('token-bucket: holds its burst at once, be it less than the quota or more', async (trial) => {
  const small = trial.charge('token-bucket', { quota: 100, burst: 4, cost: 4 })
  assert.deepEqual(remainders(await trial.admit(small)), [0])
  const large = trial.charge('token-bucket', { quota: 1, burst: 40, cost: 40, number: 1 })
  assert.deepEqual(remainders(await trial.admit(large)), [0])
  const never = await trial.refuse(trial.charge('token-bucket', { quota: 100, burst: 4, cost: 5, number: 2 }))
  assert.equal(never.retryAfterUs, null)
})

test('counts amounts up to 10¹² over a year exactly', async (trial) => {
  const amount = 1e12
  for (const kind of ['sliding-window', 'sliding-log', 'fixed-window'] as const) {
    const claim = { quota: amount, windowMs: 366 * dayMs }
    assert.deepEqual(remainders(await trial.admit(trial.charge(kind, { ...claim, cost: amount - 1 }))), [1])
    await trial.refuse(trial.charge(kind, { ...claim, cost: 2 }))
    await trial.admit(trial.charge(kind, { ...claim, cost: 1 }))
  }
})

// ---- what is counted by name

test('concurrency: holds its slots until they are released, once', async (trial) => {
  const slots = { quota: 3 }
  const made: Charged[] = []
  for (const name of ['a', 'b', 'c']) made.push(await trial.charged(trial.named('concurrency', [name], slots)))
  const refused = await trial.refuse(trial.named('concurrency', ['d'], slots))
  assert.ok(refused.retryAfterUs! > 0 && refused.retryAfterUs! <= hourMs * 1000, 'waits at most a lease')
  const release: Correction = { charged: made[0]!, does: 'release', by: 0 }
  await trial.handle.settle([release, release])
  assert.deepEqual(remainders(await trial.admit(trial.named('concurrency', ['d'], slots))), [0])
  await trial.handle.settle([release])
  await trial.refuse(trial.named('concurrency', ['e'], slots))
})

test('concurrency: who has a slot has it, and needs no other', async (trial) => {
  const mine = trial.named('concurrency', ['mine'], { quota: 1 })
  for (let times = 0; times < 3; times += 1) assert.deepEqual(remainders(await trial.admit(mine)), [0])
  await trial.refuse(trial.named('concurrency', ['other'], { quota: 1 }))
})

test('concurrency: what is undone gives back the slot that it took, and no other', async (trial) => {
  const held = trial.named('concurrency', ['held'], { quota: 2 })
  await trial.charged(held)
  const again = await trial.charged(held)
  const other = await trial.charged(trial.named('concurrency', ['other'], { quota: 2 }))
  await trial.admit([], { undo: [again, other] })
  assert.equal(await trial.remaining(held), 1)
})

test('concurrency: under 50 at once, through two handles, admits as many as fit', async (trial) => {
  const other = trial.open()
  await other.ready()
  try {
    const decisions = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        (index % 2 === 0 ? trial.handle : other).decide({
          charges: [trial.named('concurrency', [`slot-${index}`], { quota: 20 })],
          undo: [],
          commit: true,
        }),
      ),
    )
    assert.equal(decisions.filter(({ admitted }) => admitted).length, 20)
  } finally {
    await other.close()
  }
})

test('unique-targets: what was seen is free, and what is new has to find room', async (trial) => {
  const of = (...targets: string[]): Charge => trial.named('unique-targets', targets, { quota: 3 })
  assert.deepEqual(remainders(await trial.admit(of('a', 'b'))), [1])
  assert.deepEqual(remainders(await trial.admit(of('b', 'a'))), [1])
  await trial.refuse(of('a', 'c', 'd'))
  assert.deepEqual(remainders(await trial.admit(of('a', 'c'))), [0])
  await trial.admit(of('c', 'b'))
  await trial.admit(of())
  await trial.refuse(of('d'))
  assert.equal((await trial.refuse(of('d', 'e', 'f', 'g'))).retryAfterUs, null, 'never more than the quota')
})

test('unique-targets: what is undone takes back the targets that were new', async (trial) => {
  const of = (...targets: string[]): Charge => trial.named('unique-targets', targets, { quota: 3 })
  await trial.admit(of('a'))
  const made = await trial.charged(of('a', 'b'))
  await trial.admit([], { undo: [made] })
  assert.equal(await trial.remaining(of('c')), 2)
})

test('what is charged afterwards needs room for one, and nothing is charged before', async (trial) => {
  for (const kind of [...kinds, 'failures'] as const) {
    const later: Charge = { ...trial.charge(kind, { quota: 3, cost: 100 }), after: true }
    const { nowUs } = await trial.admit(later)
    assert.equal(await trial.remaining(later), 3, kind)
    await trial.handle.settle([{ charged: { charge: later, cost: 0, chargedAtUs: nowUs }, by: 5 }])
    await trial.refuse(later)
  }
})

testInTime('concurrency: a slot comes back when its lease runs out, unless it is renewed', async (trial) => {
  const slots = { quota: 2, windowMs: 10_000 }
  const kept = await trial.charged(trial.named('concurrency', ['kept'], slots))
  await trial.charged(trial.named('concurrency', ['lost'], slots))
  await trial.advance(9999)
  await trial.refuse(trial.named('concurrency', ['new'], slots))
  await trial.handle.settle([{ charged: kept, does: 'renew', by: 0 }])
  await trial.advance(1)
  assert.deepEqual(remainders(await trial.admit(trial.named('concurrency', ['new'], slots))), [0])
  await trial.advance(9998)
  await trial.refuse(trial.named('concurrency', ['late'], slots))
  await trial.advance(1)
  await trial.admit(trial.named('concurrency', ['late'], slots))
})

testInTime('concurrency: learns how long slots are held', async (trial) => {
  const slots = { quota: 1, windowMs: minuteMs }
  const made = await trial.charged(trial.named('concurrency', ['a'], slots))
  await trial.advance(8000)
  await trial.handle.settle([{ charged: made, does: 'release', by: 0 }])
  await trial.admit(trial.named('concurrency', ['b'], slots))
  assert.equal((await trial.refuse(trial.named('concurrency', ['c'], slots))).retryAfterUs, 8_000_000)
})

testInTime(
  'concurrency: tells a time as long as no slot has come back, where they are held for longer than before',
  async (trial) => {
    const slots = { quota: 2, windowMs: minuteMs }
    const brief = await trial.charged(trial.named('concurrency', ['brief'], slots))
    await trial.advance(4)
    await trial.handle.settle([{ charged: brief, does: 'release', by: 0 }])
    await trial.advance(10_000)
    const streams = [await trial.charged(trial.named('concurrency', ['one'], slots))]
    streams.push(await trial.charged(trial.named('concurrency', ['two'], slots)))
    const next = trial.named('concurrency', ['next'], slots)
    assert.equal((await trial.refuse(next)).retryAfterUs, 2000, 'not of the time in which nobody came')
    for (const heldMs of [500, 1000, 2000, 4000]) {
      await trial.advance(heldMs === 500 ? heldMs : heldMs / 2)
      assert.equal((await trial.refuse(next)).retryAfterUs, heldMs * 1000)
    }
    // Never longer than until a lease runs out, nor when nobody knows any more how long slots were held.
    for (const charged of streams) await trial.handle.settle([{ charged, does: 'renew', by: 0 }])
    await trial.advance(40_000)
    assert.equal((await trial.refuse(next)).retryAfterUs, 20_000_000)
    for (const charged of streams) await trial.handle.settle([{ charged, does: 'renew', by: 0 }])
    await trial.advance(30_000)
    assert.equal((await trial.refuse(next)).retryAfterUs, 30_000_000)
  },
)

testInTime('unique-targets: the wait is until enough of the others have left', async (trial) => {
  const of = (...targets: string[]): Charge => trial.named('unique-targets', targets, { quota: 3, windowMs: minuteMs })
  for (const target of ['a', 'b', 'c']) {
    await trial.admit(of(target))
    await trial.advance(1000)
  }
  // Touched again, it counts from now.
  await trial.admit(of('a'))
  const { retryAfterUs } = await trial.refuse(of('a', 'd'))
  assert.equal(retryAfterUs, (minuteMs - 2000) * 1000)
  await trial.advance(minuteMs - 2001)
  await trial.refuse(of('a', 'd'))
  await trial.advance(1)
  await trial.admit(of('a', 'd'))
})

testInTime('fixed-window: follows the calendar, and tells its own time to come back', async (trial) => {
  const { nowUs } = await trial.look([])
  const calendar = { spreadUs: 7000, originUs: nowUs - (nowUs % 1000) - 30_000_000, monthDay: 0 }
  const one: Charge = { ...trial.charge('fixed-window', { quota: 1, windowMs: minuteMs }), calendar }
  await trial.admit(one)
  const { retryAfterUs } = await trial.refuse(one)
  assert.equal(retryAfterUs, 30_007_000 - (nowUs % 1000))
  await trial.advance(29_998)
  await trial.refuse(one)
  await trial.advance(3)
  await trial.admit(one)
})

test('a pool keeps a part for each tier, and the common one for those who go first', async (trial) => {
  const tier = (seat: number, higher: number[]): Charge[] => {
    const seating = { seats: 2, seat, higher }
    const part = (kind: PolicyKind, role: PoolRole, quota: number, number: number): Charge => ({
      ...trial.charge(kind, { quota, number }),
      role,
      seating,
    })
    return [
      part('sliding-log', 'own', 2, 10 + seat),
      part('sliding-log', 'common', 6, 12),
      part('pool-demand', 'demand', 6, 13),
    ]
  }
  const low = tier(0, [1])
  const high = tier(1, [])
  for (let times = 0; times < 3; times += 1) await trial.admit(low)
  for (let times = 0; times < 4; times += 1) await trial.admit(high)
  // Two each are their own. Of the common six the higher asked for two and the lower for one.
  assert.deepEqual(verdicts(await trial.admit(low)), ['refused', 'fits', 'fits'])
  for (let times = 0; times < 2; times += 1) await trial.admit(high)
  assert.equal((await trial.decide(low)).admitted, false)
})

// ---- partitions, reset, close

test('counts for each partition on its own, whatever characters it has and however long it is', async (trial) => {
  const long = 'x'.repeat(4000)
  const names = [
    'a',
    'A',
    'a ',
    'a:b',
    'a:',
    ':a',
    '{a}',
    '{a',
    'a}',
    '*',
    '%',
    '\\',
    '"',
    "'",
    '\n',
    '\r\n',
    '\0',
    '\0\0',
  ]
  names.push(
    'é',
    'e\u0301',
    '💧',
    '\ud83d',
    '\udca7',
    '__proto__',
    'constructor',
    'toString',
    '0',
    '00',
    long,
    `${long}y`,
    `${long}z`,
  )
  for (const name of names) {
    const charge = trial.charge('token-bucket', { quota: 1, partition: `${trial.partition}${name}` })
    assert.equal((await trial.decide(charge)).admitted, true, `nobody else used ${JSON.stringify(name.slice(-4))}`)
  }
  for (const name of ['__proto__', 'constructor', '*']) {
    const charges = kinds.map((kind) => trial.charge(kind, { quota: 1, number: 1, partition: name }))
    assert.equal((await trial.look(charges)).admitted, true, `${name} is a partition like others`)
  }
})

test('reset forgets all counters of a partition, and no others', async (trial) => {
  const mine = plainKinds.map((kind) => trial.charge(kind, { quota: 3, liftable: kind !== 'first-minutes' }))
  const theirs = kinds.map((kind) => trial.charge(kind, { quota: 3, partition: `${trial.partition}:theirs` }))
  const before = await trial.look(mine)
  for (let times = 0; times < 3; times += 1) await trial.admit([...mine, ...theirs])
  // Uses the first minutes' extra.
  assert.deepEqual(remainders(await trial.admit(mine)), [0, 0, 0, 0, 2])
  const logs = mine.filter((charge) => charge.kind === 'sliding-log').map((charge) => charge.stateId)
  await trial.handle.reset(trial.partition, logs)
  assert.deepEqual(remainders(await trial.look(mine)), remainders(before))
  assert.deepEqual(remainders(await trial.look(theirs)), [0, 0, 0, 0])
  await trial.handle.reset(`${trial.partition}:unknown`, [])
})

test('serves those who still have it open when one closes it, and nobody after the last', async (trial) => {
  const other = trial.open()
  await other.ready()
  const charge = trial.charge('token-bucket', { quota: 5 })
  await other.decide({ charges: [charge], undo: [], commit: true })
  await other.close()
  await other.close()
  assert.deepEqual(remainders(await trial.admit(charge)), [3])
  await trial.handle.close()
  await assert.rejects(trial.decide(charge))
  await assert.rejects(trial.handle.settle([{ charged: { charge, cost: 1, chargedAtUs: 0 }, by: 1 }]))
})

// ---- first minutes

test('first-minutes: stand in for what they may lift, and are charged in its stead', async (trial) => {
  const liftable = trial.charge('token-bucket', { quota: 2, liftable: true })
  const fixed = trial.charge('sliding-log', { quota: 100 })
  const extra = trial.charge('first-minutes', { quota: 3, windowMs: 5 * minuteMs })
  const charges = [liftable, fixed, extra]
  assert.deepEqual(remainders(await trial.admit(charges)), [1, 99, 3])
  assert.deepEqual(remainders(await trial.admit(charges)), [0, 98, 3])
  for (const left of [2, 1, 0]) {
    const lifted = await trial.admit(charges)
    assert.deepEqual(verdicts(lifted).slice(0, 2), ['lifted', 'fits'])
    assert.deepEqual(remainders(lifted), [0, 95 + left, left])
  }
  const over = await trial.refuse(charges)
  assert.equal(over.outcomes[0]!.verdict, 'refused')
  assert.deepEqual(remainders(over), [0, 95, 0])
  assert.equal(over.retryAfterUs, over.outcomes[0]!.waitUs)
})

test('first-minutes: are charged once however many they lift, and charge those that fit', async (trial) => {
  const liftable = kinds.map((kind, index) => trial.charge(kind, { quota: index + 1, liftable: true }))
  const charges = [...liftable, trial.charge('first-minutes', { quota: 9 })]
  await trial.admit(charges)
  assert.deepEqual(remainders(await trial.admit(charges)), [0, 0, 1, 2, 8])
  assert.deepEqual(remainders(await trial.admit(charges)), [0, 0, 0, 1, 7])
})

test('first-minutes: lift nothing else, and are not charged for what is refused', async (trial) => {
  const hard = trial.charge('fixed-window', { quota: 1 })
  const soft = trial.charge('token-bucket', { quota: 1, liftable: true })
  const extra = trial.charge('first-minutes', { quota: 3 })
  await trial.admit([hard, soft, extra])
  const refused = await trial.refuse([hard, soft, extra])
  assert.equal(refused.outcomes[0]!.verdict, 'refused')
  assert.deepEqual(remainders(refused), [0, 0, 3])
})

test('first-minutes: lift no cost above what they have left', async (trial) => {
  const ask = (cost: number): Charge[] => [
    trial.charge('token-bucket', { quota: 1, cost, liftable: true }),
    trial.charge('first-minutes', { quota: 5, cost }),
  ]
  await trial.admit(ask(1))
  await trial.admit(ask(3))
  const never = await trial.refuse(ask(3))
  assert.equal(never.retryAfterUs, null, 'the bucket alone never holds 3')
  assert.deepEqual(remainders(await trial.admit(ask(2))), [0, 0])
})

test('first-minutes: what they were charged can be given back', async (trial) => {
  const soft = trial.charge('token-bucket', { quota: 1, liftable: true })
  const extra = trial.charge('first-minutes', { quota: 1 })
  await trial.admit([soft, extra])
  const { nowUs } = await trial.admit([soft, extra])
  await trial.refuse([soft, extra])
  await trial.handle.settle([{ charged: { charge: extra, cost: 1, chargedAtUs: nowUs }, by: -1 }])
  await trial.admit([soft, extra])
  await trial.refuse([soft, extra])
})

testInTime('first-minutes: begin with the first admitted request, and end a window later', async (trial) => {
  const soft = trial.charge('sliding-log', { quota: 1, windowMs: hourMs, liftable: true })
  const extra = trial.charge('first-minutes', { quota: 100, windowMs: 5 * minuteMs })
  // What the refused ones touch else in the partition does not start it.
  const brief = trial.charge('fixed-window', { quota: 1, windowMs: 1000, number: 1 })
  await trial.admit(brief)
  await trial.refuse([trial.charge('fixed-window', { quota: 1, cost: 2 }), brief, soft, extra])
  await trial.advance(minuteMs)
  await trial.refuse([trial.charge('fixed-window', { quota: 1, cost: 2 }), brief, soft, extra])
  const made = await trial.charged(brief)
  await trial.refuse([trial.charge('fixed-window', { quota: 1, cost: 2 }), soft, extra], { undo: [made] })
  await trial.advance(10 * minuteMs)
  await trial.admit([soft, extra])
  await trial.advance(5 * minuteMs - 1)
  assert.deepEqual(verdicts(await trial.admit([soft, extra])), ['lifted', 'fits'])
  await trial.advance(1)
  const over = await trial.refuse([soft, extra])
  assert.deepEqual(verdicts(over), ['refused', 'inactive'])
  assert.equal(over.outcomes[1]!.remaining, 0)
  assert.equal(over.retryAfterUs, 55 * minuteMs * 1000)
})

testInTime(
  'first-minutes: are granted anew after their renewal, counted from the grant, and not before',
  async (trial) => {
    const soft = trial.charge('fixed-window', { quota: 1, windowMs: 10_000, liftable: true })
    const extra = trial.charge('first-minutes', { quota: 1, windowMs: minuteMs, renewMs: dayMs })
    const charges = [soft, extra]
    await trial.admit(charges)
    await trial.admit(charges)
    await trial.refuse(charges)
    await trial.advance(dayMs - 1)
    await trial.admit(charges)
    await trial.refuse(charges)
    await trial.advance(1)
    assert.deepEqual(verdicts(await trial.admit(charges)), ['lifted', 'fits'])
    await trial.refuse(charges)
  },
)

testInTime('first-minutes: shorten the wait for others, unless they would be over by then', async (trial) => {
  const ask = (windowMs: number): Charge[] => [
    trial.charge('fixed-window', { quota: 1, windowMs, number: windowMs }),
    trial.charge('sliding-log', { quota: 1, windowMs: hourMs, number: windowMs, liftable: true }),
    trial.charge('first-minutes', { quota: 5, windowMs: 5 * minuteMs, number: windowMs }),
  ]
  const early = ask(4 * minuteMs)
  await trial.admit(early)
  assert.equal((await trial.refuse(early)).retryAfterUs, 4 * minuteMs * 1000)
  await trial.advance(4 * minuteMs)
  await trial.admit(early)

  const late = ask(5 * minuteMs - 1000)
  await trial.admit(late)
  assert.equal((await trial.refuse(late)).retryAfterUs, hourMs * 1000)
})

// ---- time

for (const kind of kinds) {
  testInTime(
    `${kind}: what was used at one time is back a window later, and not a millisecond before`,
    async (trial) => {
      const all = trial.charge(kind, { quota: 60, cost: 60, windowMs: minuteMs })
      const { outcomes } = await trial.admit(all)
      const used = { verdict: 'fits', remaining: 0, waitUs: minuteMs * 1000, resetUs: minuteMs * 1000 }
      assert.deepEqual(outcomes.map(ofPlainAmount), [used])
      await trial.advance(minuteMs - 1)
      assert.equal((await trial.refuse(all)).retryAfterUs, 1000)
      await trial.advance(1)
      const fresh = (await trial.look(all)).outcomes.map(ofPlainAmount)
      assert.deepEqual(fresh, [{ verdict: 'fits', remaining: 60, waitUs: 0, resetUs: 0 }])
      await trial.admit(all)
    },
  )

  testInTime(`${kind}: is admitted when told, and refused a millisecond earlier`, async (trial) => {
    const random = randomNumbers(kinds.indexOf(kind) + 1)
    let refusals = 0
    for (let step = 0; refusals < 60; step += 1) {
      assert.ok(step < 5000, `of ${step} requests at a limit, only ${refusals} were refused`)
      const charge = trial.charge(kind, { quota: 40, cost: random(1, 12), windowMs: 61_001 })
      const { admitted, retryAfterUs } = await trial.decide(charge)
      if (admitted) {
        await trial.advance(random(0, 900))
        continue
      }
      refusals += 1
      const toldMs = Math.ceil(retryAfterUs! / 1000)
      await trial.advance(toldMs - 1)
      assert.ok(!(await trial.look(charge)).admitted, 'refused a millisecond earlier')
      await trial.advance(1)
      await trial.admit(charge)
    }
  })

  testInTime(`${kind}: keeps its cap over every span of a long random load`, async (trial) => {
    const random = randomNumbers(kinds.indexOf(kind) + 11)
    const windowMs = 10_007
    const quota = 50
    const made: Use[] = []
    let atMs = 0
    for (let step = 0; step < 500; step += 1) {
      const charge = trial.charge(kind, { quota, burst: 20, cost: random(1, 6), windowMs })
      if ((await trial.decide(charge)).admitted) made.push({ atMs, cost: charge.cost })
      const pause = random(0, 9) === 0 ? random(0, windowMs) : random(0, 300)
      await trial.advance(pause)
      atMs += pause
    }
    assert.ok(made.length > 200, 'most of a load about the quota is admitted')
    if (kind === 'token-bucket') assertPace(made, 20, quota / windowMs)
    else if (kind === 'fixed-window') assertFixedWindows(made, quota, windowMs)
    else assertEveryWindow(made, quota, windowMs)
  })

  testInTime(`${kind}: gives back what was added later too`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 1000, cost: 4 }))
    for (const by of [3, 5]) {
      await trial.advance(1)
      await trial.handle.settle([{ charged: made, by }])
    }
    await trial.advance(1)
    await trial.handle.settle([{ charged: { ...made, cost: 12 }, by: -6 }])
    assert.equal(await trial.remaining(made.charge), 994)
    await trial.handle.settle([{ charged: { ...made, cost: 6 }, by: -6 }])
    assert.equal(await trial.remaining(made.charge), 1000)
  })

  testInTime(`${kind}: a refund later than its window gives nothing back`, async (trial) => {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 10, windowMs: minuteMs }))
    await trial.advance(minuteMs)
    await trial.admit(made.charge)
    await trial.handle.settle([{ charged: made, by: -10 }])
    assert.equal(await trial.remaining(made.charge), 0)
    await trial.decide([], { undo: [made] })
    assert.equal(await trial.remaining(made.charge), 0)
  })

  testInTime(`${kind}: a clock that steps back refills nothing, and keeps what was told`, async (trial) => {
    const all = trial.charge(kind, { quota: 10, cost: 10, windowMs: minuteMs })
    const { nowUs } = await trial.admit(all)
    const one = trial.charge(kind, { quota: 10, windowMs: minuteMs })
    const told = nowUs + (await trial.refuse(one)).retryAfterUs!
    await trial.advance(-20_000)
    const back = await trial.refuse(one)
    assert.deepEqual(remainders(back), [0])
    assert.equal(back.nowUs + back.outcomes[0]!.waitUs!, told)
    await trial.advance((nowUs - back.nowUs) / 1000)
    assert.deepEqual(remainders(await trial.refuse(one)), [0])
    await trial.advance((told - nowUs) / 1000)
    await trial.admit(one)
  })

  testInTime(`${kind}: a clock that jumped ahead and was set right locks nobody out`, async (trial) => {
    await trial.advance(30 * dayMs)
    await trial.admit(trial.charge(kind, { quota: 10, cost: 10, windowMs: minuteMs }))
    await trial.advance(-30 * dayMs)
    const { retryAfterUs } = await trial.refuse(trial.charge(kind, { quota: 10, windowMs: minuteMs }))
    assert.ok(retryAfterUs! <= minuteMs * 1000, `told to wait ${retryAfterUs} µs`)
    await trial.advance(minuteMs)
    await trial.admit(trial.charge(kind, { quota: 10, windowMs: minuteMs }))
  })
}

testInTime('token-bucket: refills evenly, exactly, however often it is touched', async (trial) => {
  const claim = { quota: 7, burst: 100, windowMs: 10_000 }
  await trial.admit(trial.charge('token-bucket', { ...claim, cost: 100 }))
  const one = trial.charge('token-bucket', claim)
  let admitted = 0
  for (let step = 0; step < 1000; step += 1) {
    await trial.advance(100)
    if ((await trial.decide(one)).admitted) admitted += 1
  }
  assert.equal(admitted, 70)
})

testInTime('token-bucket: refills at the lower of two quotas until it is touched', async (trial) => {
  await trial.admit(trial.charge('token-bucket', { quota: 10, cost: 10 }))
  await trial.advance(hourMs / 2)
  assert.equal(await trial.remaining(trial.charge('token-bucket', { quota: 20 })), 15)
  assert.equal(await trial.remaining(trial.charge('token-bucket', { quota: 4, burst: 10 })), 2)
})

testInTime('a debt is waited out', async (trial) => {
  for (const [kind, waitMs] of [
    ['token-bucket', 36_000],
    ['sliding-log', minuteMs],
    ['fixed-window', minuteMs],
  ] as const) {
    const made = await trial.charged(trial.charge(kind, { quota: 10, cost: 4, windowMs: minuteMs }))
    await trial.handle.settle([{ charged: made, by: 11 }])
    const one = trial.charge(kind, { quota: 10, windowMs: minuteMs })
    assert.equal((await trial.refuse(one)).retryAfterUs, waitMs * 1000, kind)
    await trial.advance(waitMs - 1)
    await trial.refuse(one)
    await trial.advance(1)
    await trial.admit(one)
  }
})

testInTime('several that refuse: the longest wait is told, and is true', async (trial) => {
  const charges = [
    trial.charge('token-bucket', { quota: 2, windowMs: 10_000 }),
    trial.charge('sliding-log', { quota: 2, windowMs: 30_000 }),
    trial.charge('fixed-window', { quota: 2, windowMs: 20_000 }),
  ]
  await trial.admit(charges)
  await trial.admit(charges)
  const refused = await trial.refuse(charges)
  assert.deepEqual(
    refused.outcomes.map((outcome) => outcome.waitUs),
    [5_000_000, 30_000_000, 20_000_000],
  )
  assert.equal(refused.retryAfterUs, 30_000_000)
  await trial.advance(29_999)
  assert.deepEqual(verdicts(await trial.refuse(charges)), ['fits', 'refused', 'fits'])
  await trial.advance(1)
  await trial.admit(charges)
})

testInTime(
  'counters that differ in how long they last, in one partition, each last as long as they should',
  async (trial) => {
    const short = trial.charge('fixed-window', { quota: 1, windowMs: 1000 })
    const long = trial.charge('token-bucket', { quota: 1, windowMs: 30 * dayMs })
    await trial.admit([short, long])
    await trial.advance(1000)
    await trial.admit(short)
    await trial.advance(29 * dayMs)
    await trial.admit(short)
    await trial.refuse(long)
    await trial.advance(dayMs - 1000)
    await trial.admit([short, long])
  },
)

// ---- cuts and boards

test('says whether only a cut refuses, what was used as it stands', async (trial) => {
  for (const kind of kinds) {
    const partition = `${trial.partition}:${kind}`
    const whole = (cost: number): Charge => trial.charge(kind, { quota: 10, cost, partition })
    const cut = (cost: number): Charge => ({
      ...trial.charge(kind, { quota: 4, cost, partition }),
      base: { quota: 10, capacity: 10 },
    })
    await trial.admit(whole(3))
    assert.equal((await trial.admit(cut(1))).onlyCut, undefined, kind)
    assert.equal((await trial.refuse(cut(1))).onlyCut, true, kind)
    assert.equal((await trial.refuse(cut(6))).onlyCut, true, kind)
    assert.equal((await trial.refuse(cut(7))).onlyCut, undefined, kind)
    const other = trial.charge(kind, { quota: 1, cost: 2, partition, number: 1 })
    assert.equal((await trial.refuse([cut(1), other])).onlyCut, undefined, `${kind}, beside one that refuses anyway`)
    await trial.admit(whole(6))
    assert.equal((await trial.refuse(cut(1))).onlyCut, undefined, kind)
  }
})

testInTime('a board, where a store has any, tells what lives, and drops what does not', async (trial) => {
  const { handle } = trial
  if (handle.post === undefined) return
  const board = randomUUID()
  assert.deepEqual(await handle.post(board, 'one', 5, 3000), [5])
  assert.deepEqual(new Set(await handle.post(board, 'other', 7, 1000)), new Set([5, 7]))
  await trial.advance(1000)
  assert.deepEqual(await handle.post(board, 'one', 6, 3000), [6])
  assert.deepEqual(await handle.post(board, 'one', 6, 0), [])
})

testInTime('answers random histories as the memory store does, to the microsecond', async (trial) => {
  for (let seed = 1; seed <= 12; seed += 1) await playHistory(trial, seed)
})

/**
 * Plays one history to the store and to a memory store whose clock shows the same. The clock is never set back here: what has
 * expired may be gone already or not, and either is right.
 */
async function playHistory(trial: Trial, seed: number): Promise<void> {
  const random = randomNumbers(seed * 7919)
  const clock = manualClock((await trial.look([])).nowUs / 1000)
  const reference = memoryStore({ now: clock }).open({ nameOf })
  const partitions = [`${trial.partition}:${seed}:a`, `${trial.partition}:${seed}:b`]
  const policies = Array.from({ length: 7 }, (_, number) => ({
    kind: plainKinds[number % plainKinds.length]!,
    windowMs: [1000, 1700, 60_000][random(0, 2)]!,
    quota: random(1, 40),
    burst: random(1, 60),
    renewMs: random(60_000, 200_000),
    partition: partitions[random(0, 1)]!,
    number: seed * 100 + number,
    liftable: random(0, 1) === 0,
    shadow: random(0, 5) === 0,
  }))
  const made: Charged[] = []

  for (let step = 0; step < 150; step += 1) {
    const pauses = [0, 0, random(0, 30), random(0, 1000), random(0, 90_000)]
    const pause = pauses[random(0, pauses.length - 1)]!
    await trial.advance(pause)
    clock.advance(pause)

    // One at most has the first minutes' extra, as in a limiter.
    const chosen = policies.filter(({ kind }) => kind !== 'first-minutes' && random(0, 2) > 0)
    const charges = chosen.map(({ kind, liftable, ...rest }) => {
      const quota = random(0, 9) === 0 ? random(1, 60) : rest.quota
      return trial.charge(kind, { ...rest, quota, cost: random(0, 5), liftable: liftable && !rest.shadow })
    })
    const extra = policies.find(({ kind }) => kind === 'first-minutes')!
    if (random(0, 1) === 0)
      charges.push(trial.charge('first-minutes', { ...extra, cost: random(0, 3), shadow: false, liftable: false }))

    const undo = random(0, 9) === 0 ? made.splice(random(0, made.length), 1) : []
    const request: DecisionRequest = { charges, undo, commit: random(0, 9) > 0 }
    const [decision, expected] = [await trial.handle.decide(request), await reference.decide(request)]
    assert.deepEqual(decision, expected, `history ${seed}, step ${step}`)
    if (request.commit && decision.admitted) made.push(...chargesMade(charges, decision))

    if (made.length > 0 && random(0, 5) === 0) {
      const [charged] = made.splice(random(0, made.length - 1), 1)
      const correction = { charged: charged!, by: random(-charged!.cost, 10) }
      await trial.handle.settle([correction])
      await reference.settle([correction])
    }
    if (random(0, 60) === 0) {
      const partition = partitions[random(0, 1)]!
      const logs = policies
        .filter(({ kind }) => kind === 'sliding-log')
        .map((policy) => trial.charge('sliding-log', policy).stateId)
      await trial.handle.reset(partition, logs)
      await reference.reset(partition, logs)
    }
  }
  await reference.close()
}

/** What an admitted request was charged. */
function chargesMade(charges: readonly Charge[], { outcomes, nowUs }: StoreDecision): Charged[] {
  const lifted = outcomes.some((outcome) => outcome.verdict === 'lifted')
  return charges.flatMap((charge, index) => {
    const { verdict, atUs: chargedAtUs = nowUs } = outcomes[index]!
    const made = charge.kind === 'first-minutes' ? lifted : verdict === 'fits'
    return made ? [{ charge, cost: charge.cost, chargedAtUs }] : []
  })
}

// ---- what was admitted, judged from outside

interface Use {
  atMs: number
  cost: number
}

function total(uses: readonly Use[]): number {
  return uses.reduce((sum, use) => sum + use.cost, 0)
}

/** No span of a window, wherever it begins, holds more than the quota. */
function assertEveryWindow(made: readonly Use[], quota: number, windowMs: number): void {
  for (const { atMs } of made) {
    const used = total(made.filter((use) => use.atMs >= atMs && use.atMs < atMs + windowMs))
    assert.ok(used <= quota, `${used} of ${quota} were used within a window from ${atMs} ms`)
  }
}

/** Windows that begin with the first use after the last one ended. */
function assertFixedWindows(made: readonly Use[], quota: number, windowMs: number): void {
  let end = 0
  for (const { atMs } of made) {
    if (atMs < end) continue
    end = atMs + windowMs
    const used = total(made.filter((use) => use.atMs >= atMs && use.atMs < end))
    assert.ok(used <= quota, `${used} of ${quota} were used in the window from ${atMs} ms`)
  }
}

/** No span holds more than the burst and what refilled meanwhile. */
function assertPace(made: readonly Use[], burst: number, perMs: number): void {
  made.forEach(({ atMs }, from) => {
    let used = 0
    for (const use of made.slice(from)) {
      used += use.cost
      assert.ok(used <= burst + (use.atMs - atMs) * perMs + 1e-9, `${used} were used from ${atMs} to ${use.atMs} ms`)
    }
  })
}

/** An outcome without what only those counted by name have. */
function ofPlainAmount({ verdict, remaining, waitUs, resetUs }: ChargeOutcome): ChargeOutcome {
  return { verdict, remaining, waitUs, resetUs }
}

function remainders(decision: StoreDecision): number[] {
  return decision.outcomes.map((outcome) => outcome.remaining)
}

function verdicts(decision: StoreDecision): string[] {
  return decision.outcomes.map((outcome) => outcome.verdict)
}

/** Whole numbers from `least` to `most`, the same ones for the same seed (mulberry32). */
function randomNumbers(seed: number): (least: number, most: number) => number {
  let state = seed
  return (least, most) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return least + (((mixed ^ (mixed >>> 14)) >>> 0) % (most - least + 1))
  }
}
