import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { expect, it } from 'vitest'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, Charged, StoreDecision } from '../../src/stores/store.ts'
import { startTestRedis } from '../redis.ts'
import {
  ask,
  chargesOf,
  hourUs,
  limitOf,
  madeBy,
  mixOf,
  mixWithExtra,
  onBothStores,
  pauseUs,
  refillingKinds,
  smallStep,
  someStep,
  stepsOf,
  type Limit,
  type Step,
  type TimedStore,
} from './histories.ts'
import { ExactBucket, overCap, usedInLastWindow, usedInOwnWindow, type Use } from './uses.ts'

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: the cap holds, whatever is settled and undone`, async () => {
      await fc.assert(
        fc.asyncProperty(mixOf([kind], 2), turns, (limits, turns) => keepsCap(stage.fresh(), limits, turns)),
        stage.runs(300),
      )
    })
  }

  it('sliding-window: the cap holds where many small charges are merged', async () => {
    const narrow = fc
      .tuple(limitOf(['sliding-window']), fc.integer({ min: 17, max: 80 }))
      .map(([limit, quota]) => [{ ...limit, quota, capacity: quota }])
    await fc.assert(
      fc.asyncProperty(narrow, turnsOf(smallStep, 90, 12), (limits, turns) => keepsCap(stage.fresh(), limits, turns)),
      stage.runs(200),
    )
  })

  it('mixes of policies: every cap holds, whatever is settled and undone', async () => {
    await fc.assert(
      fc.asyncProperty(mixOf(), turns, (limits, turns) => keepsCap(stage.fresh(), limits, turns)),
      stage.runs(500),
    )
  })

  it('first minutes: no grant lifts more than its quota, nor after its window, nor is there another before it renews', async () => {
    await fc.assert(
      fc.asyncProperty(mixWithExtra(), stepsOf(40), (limits, steps) => keepsGrants(stage.fresh(), limits, steps)),
      stage.runs(500),
    )
  })

  // Up to these, nothing is rounded: the bucket's arithmetic stays in the exact integers, a window has an entry for each.
  for (const [kind, most] of [
    ['token-bucket', Infinity],
    ['sliding-log', Infinity],
    ['sliding-window', 16],
    ['fixed-window', Infinity],
  ] as const) {
    it(`${kind}${most < Infinity ? ` of a quota up to ${most}` : ''}: admits all that the cap allows`, async () => {
      const one = mixOf([kind], 1).filter(([limit]) => limit!.quota <= most && isExact(limit!))
      await fc.assert(
        fc.asyncProperty(one, stepsOf(60), ([limit], steps) => admitsAll(stage.fresh(), limit!, steps)),
        stage.runs(200),
      )
    })
  }
})

/** A step, and what becomes of earlier requests: one is undone by this one, one is settled after it. */
interface Turn {
  readonly step: Step
  readonly undoes: number | undefined
  readonly settles: { whose: number; permille: number; after: number } | undefined
}

function turnsOf(step: fc.Arbitrary<Step>, most: number, settlesOneIn: number): fc.Arbitrary<Turn[]> {
  const settlement = fc.record({ whose: fc.nat(30), permille: fc.nat(2500), after: fc.nat(600) })
  const turn = fc.record<Turn>({
    step,
    undoes: oneIn(2 * settlesOneIn, fc.nat(30)),
    settles: oneIn(settlesOneIn, settlement),
  })
  return fc.array(turn, { minLength: 1, maxLength: most, size: 'max' })
}

function oneIn<Value>(times: number, value: fc.Arbitrary<Value>): fc.Arbitrary<Value | undefined> {
  return fc.oneof({ weight: times - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value })
}

const turns = fc.oneof(turnsOf(someStep, 35, 2), turnsOf(smallStep, 70, 12))

/** What a request was charged under its limits, and is by now. */
interface Request {
  readonly number: number
  charged: Charged[]
}

async function keepsCap(timed: TimedStore, limits: readonly Limit[], turns: readonly Turn[]): Promise<void> {
  const uses = new Map(limits.map((limit): [number, Use[]] => [limit.stateId, []]))
  const requests: Request[] = []

  const note = (request: Request, { stateId }: Charge, amount: number): void => {
    uses.get(stateId)!.push({ atUs: timed.timeUs(), amount, request: request.number })
  }
  /** A refund that comes after its window gives nothing back. */
  const noteBack = (request: Request, { charge, chargedAtUs }: Charged, amount: number): void => {
    if (chargedAtUs + charge.windowUs > timed.timeUs()) note(request, charge, -amount)
  }

  for (const [number, { step, undoes, settles }] of turns.entries()) {
    timed.advanceUs(pauseUs(step.pause, limits))
    const charges = chargesOf(step, limits)
    const undone = undoes === undefined ? undefined : requests.splice(undoes % (requests.length + 1), 1)[0]
    let decision = await timed.store.decide({ charges, undo: undone?.charged ?? [], commit: true })
    for (const charged of undone?.charged ?? []) noteBack(undone!, charged, charged.cost)
    if (step.patient && !decision.admitted && decision.retryAfterUs !== null) {
      // To the microsecond: no more than is needed has come back by then.
      timed.advanceUs(decision.retryAfterUs)
      decision = await timed.store.decide(ask(charges))
    }

    const request: Request = { number, charged: [] }
    for (const charge of madeBy(charges, decision)) {
      note(request, charge, charge.cost)
      request.charged.push({ charge, cost: charge.cost, chargedAtUs: decision.nowUs })
      expect(overCap(charge, uses.get(charge.stateId)!, decision.nowUs)).toBe(undefined)
    }
    if (request.charged.length > 0) requests.push(request)

    const settled = settles && requests[settles.whose % (requests.length + 1)]
    if (settled === undefined) continue
    timed.advanceUs(pauseUs({ whose: settles!.whose, permille: settles!.after, us: 0 }, limits))
    const corrections = settled.charged.map((charged) => {
      const by = Math.floor((charged.cost * settles!.permille) / 1000) - charged.cost
      return { charged, by }
    })
    await timed.store.settle(corrections)
    settled.charged = corrections.map(({ charged, by }) => {
      if (by < 0) noteBack(settled, charged, -by)
      else if (by > 0) note(settled, charged.charge, by)
      return { ...charged, cost: charged.cost + by }
    })
  }
}

async function keepsGrants(timed: TimedStore, limits: readonly Limit[], steps: readonly Step[]): Promise<void> {
  const extra = limits.at(-1)!
  let grantedUs = -Infinity
  let used = 0
  for (const step of steps) {
    timed.advanceUs(pauseUs(step.pause, limits))
    const charges = chargesOf(step, limits)
    const { admitted, outcomes, nowUs } = await timed.store.decide(ask(charges))
    const index = charges.findIndex(({ kind }) => kind === 'first-minutes')
    if (index === -1) continue
    const granted = nowUs < grantedUs + extra.capacity
    if (granted) expect(outcomes[index]!.verdict).toBe(nowUs < grantedUs + extra.windowUs ? 'fits' : 'inactive')
    if (!admitted) continue
    if (!granted) {
      grantedUs = nowUs
      used = 0
    }
    if (!outcomes.some(({ verdict }) => verdict === 'lifted')) continue
    expect(nowUs).toBeLessThan(grantedUs + extra.windowUs)
    used += charges[index]!.cost
    expect(used).toBeLessThanOrEqual(extra.quota)
    expect(outcomes[index]!.remaining).toBe(extra.quota - used)
    charges.forEach((charge, other) => {
      if (outcomes[other]!.verdict === 'lifted') expect(charge.liftable).toBe(true)
    })
  }
}

function isExact({ kind, capacity, quota, windowUs }: Limit): boolean {
  return kind !== 'token-bucket' || Math.max(capacity, quota) * windowUs <= 2 ** 49
}

async function admitsAll(timed: TimedStore, limit: Limit, steps: readonly Step[]): Promise<void> {
  const bucket = new ExactBucket(limit.quota)
  const uses: Use[] = []
  for (const [request, step] of steps.entries()) {
    timed.advanceUs(pauseUs(step.pause, [limit]))
    const nowUs = timed.timeUs()
    const [charge] = chargesOf(step, [limit]) as [Charge]
    bucket.touch(limit.quota, nowUs)
    const used =
      limit.kind === 'fixed-window' ? usedInOwnWindow(limit, uses, nowUs) : usedInLastWindow(limit, uses, nowUs)
    const fits =
      limit.kind === 'token-bucket' ? bucket.fits(limit, charge.cost, nowUs) : used + charge.cost <= limit.quota
    const { admitted } = await timed.store.decide(ask([charge]))
    expect(admitted).toBe(fits || charge.cost === 0)
    if (!admitted || charge.cost === 0) continue
    bucket.charge(limit, charge.cost, nowUs)
    uses.push({ atUs: nowUs, amount: charge.cost, request })
  }
}

it('on Redis, over four connections at once, admits to the last unit and no more, and gives back what is undone', async () => {
  const server = await startTestRedis()
  const clients = Array.from({ length: 4 }, () => new Redis(server.url))
  const prefix = `${randomUUID()}:`
  const stores = clients.map((client) =>
    redisStore(client, { prefix, rememberRefusals: false }).open({ nameOf: (partition) => partition }),
  )
  await Promise.all(stores.map((store) => store.ready()))

  const limits = refillingKinds.map((kind, index): Limit => {
    // A bucket that refills one a day, so that nothing comes back while the test runs.
    const quota = kind === 'token-bucket' ? 1 : 100 + index
    const windowUs = kind === 'token-bucket' ? 24 * hourUs : hourUs
    const shared = { windowUs, quota, capacity: 100 + index, liftable: false, shadow: false }
    return { kind, stateId: index + 1, partition: index % 2 === 0 ? 'key:one' : 'ip:two', ...shared }
  })
  const charges = limits.map((limit): Charge => ({ ...limit, cost: 1 }))
  const rush = (undo: readonly Charged[][]): Promise<StoreDecision[]> =>
    Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        stores[index % 4]!.decide({ charges, undo: undo[index] ?? [], commit: true }),
      ),
    )

  const admitted = (await rush([])).filter((decision) => decision.admitted)
  expect(admitted.length).toBe(100)
  // Forty come back, each in the same step as a request that may take its place.
  const undo = admitted
    .slice(0, 40)
    .map(({ nowUs }) => charges.map((charge) => ({ charge, cost: 1, chargedAtUs: nowUs })))
  expect((await rush(undo)).filter((decision) => decision.admitted).length).toBe(40)

  await Promise.all(stores.map((store) => store.close()))
  await Promise.all(clients.map((client) => client.quit()))
  await server.stop()
})
