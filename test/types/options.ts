// What the compiler must catch, and what it must let pass. `npm run typecheck` is the test: a line that should not compile and
// does is an unused `@ts-expect-error`.

import {
  apiKey,
  fixedWindow,
  memoryStore,
  presetClassifier,
  presetTiers,
  rampmeter,
  redisStore,
  session,
  slidingWindow,
  tokenBucket,
  type Limiter,
  type LimiterOptions,
  type PresetTier,
  type Store,
  type Verifier,
} from '../../src/index.ts'
import { Cluster, Redis } from 'ioredis'

const policies = [tokenBucket({ quota: 100, window: '1m' })]

// Misspelt options.
// @ts-expect-error -- `polices`
rampmeter({ polices: policies })
// @ts-expect-error -- `initalBurst`, although the names of tiers are inferred
rampmeter({ tiers: { ...presetTiers(), human: { policies, initalBurst: { quota: 5, window: '5m' } } } })
// @ts-expect-error -- `initalBurst`, in tiers of one's own
rampmeter({ tiers: { free: { policies, initalBurst: { quota: 5, window: '5m' } } }, classify: () => 'free' })
// @ts-expect-error -- `windw`
rampmeter({ tiers: { free: { policies, initialBurst: { quota: 5, windw: '5m' } } }, classify: () => 'free' })
// @ts-expect-error -- `windowMs`
tokenBucket({ quota: 5, windowMs: 60_000 })
// @ts-expect-error -- a sliding window has no burst
slidingWindow({ quota: 5, window: '1m', burst: 5 })
// @ts-expect-error -- no unit of time
slidingWindow({ quota: 5, window: '1 minute' })
// @ts-expect-error -- no family of header fields
rampmeter({ headers: ['draft-8'] })
// @ts-expect-error -- a list of at least one
rampmeter({ keySecret: [] })
// @ts-expect-error -- no way to decide without a store
rampmeter({ onStoreError: 'fail' })
// @ts-expect-error -- a look-up has to say who
apiKey({ lookup: () => ({ name: 'acme' }) })
// @ts-expect-error -- no type of key
apiKey({ lookup: () => ({ id: 'acme', type: 'robot' }) })
// @ts-expect-error -- neither
memoryStore({ max: 5 })

// Tiers are known by their names.
rampmeter({ classify: (_req, client) => (client.kind === 'agent' ? 'agent' : 'human') })
rampmeter({ classify: async (req) => (req.get('x-paid') ? 'premium' : 'human') })
rampmeter({ classify: presetClassifier({ agentAbove: 50 }) })
// @ts-expect-error -- no preset tier
rampmeter({ classify: () => 'gold' })
// @ts-expect-error -- no preset tier, by promise
rampmeter({ classify: async (req) => (req.get('x-paid') ? 'gold' : 'human') })
rampmeter({ tiers: { free: { policies }, paid: { policies: [] } }, classify: () => 'free' })
// @ts-expect-error -- none of these tiers
rampmeter({ tiers: { free: { policies }, paid: { policies: [] } }, classify: () => 'gold' })
// @ts-expect-error -- `classify` does not add to the tiers
rampmeter({ tiers: { free: { policies } }, classify: (): 'free' | 'gold' => 'gold' })

const own = rampmeter({ tiers: { free: { policies }, paid: { policies: [] } }, classify: () => 'free' })
own satisfies Limiter<'free' | 'paid'>
own.route({ policies: { default: policies, paid: policies }, replace: true })
own.route({ policies })
own.route({ cost: async (req, client) => Number(req.get('x-cost')) + client.reasons.length })
// @ts-expect-error -- no such tier
own.route({ policies: { gold: policies } })
// @ts-expect-error -- misspelt
own.route({ costs: 5 })
// @ts-expect-error -- no such tier
rampmeter({ routes: { '/a': { policies: { gold: policies } } } })
rampmeter({ routes: { 'GET /a/:id': { cost: (_req, _client, params) => String(params['id']).length } } })
// @ts-expect-error -- a cost is a number
rampmeter({ routes: { '/a': { cost: () => '5' } } })

void own.decide({ client: { id: 'key:a', tier: 'paid' }, cost: 5, policies, partitions: { 'token-bucket': 'a' } })
void own.peek({ id: 'key:a', tier: 'free' })
// @ts-expect-error -- no such tier
void own.decide({ client: { id: 'key:a', tier: 'gold' } })
// @ts-expect-error -- no such tier
void own.peek({ id: 'key:a', tier: 'gold' })
// @ts-expect-error -- misspelt
void own.decide({ client: { id: 'key:a' }, costs: 5 })

// Months need a day to begin with, and other windows have none.
fixedWindow({ quota: 5, window: 'month', align: { day: 15 } })
fixedWindow({ quota: 5, window: 'month', align: 'utc' })
fixedWindow({ quota: 5, window: '1d', align: 'utc' })
fixedWindow({ quota: 5, window: '1d' })
// @ts-expect-error -- a month without
fixedWindow({ quota: 5, window: 'month' })
// @ts-expect-error -- a day with one
fixedWindow({ quota: 5, window: '1d', align: { day: 15 } })
// @ts-expect-error -- misspelt
fixedWindow({ quota: 5, window: 'month', algin: 'utc' })

// A function of the request is given its types.
slidingWindow({
  quota: (client) => client.claims['quota'] ?? 100,
  window: '1h',
  partition: (req, client) => `${req.hostname} ${client.id}`,
  when: (req) => req.method === 'POST',
  cost: async (req) => Number(req.query['n']),
})
// @ts-expect-error -- a quota has to be known at once
slidingWindow({ quota: async () => 5, window: '1h' })
// @ts-expect-error -- a partition too
slidingWindow({ quota: 5, window: '1h', partition: async () => 'a' })
// @ts-expect-error -- and a partition is a text
slidingWindow({ quota: 5, window: '1h', partition: () => 5 })

// Options may be built on their own.
const options: LimiterOptions = { policies, deadline: '50ms', keySecret: ['a secret', 'another'] }
rampmeter(options) satisfies Limiter<PresetTier>
const tiered: LimiterOptions<'a' | 'b'> = { tiers: { a: { policies }, b: { policies } }, classify: () => 'a' }
rampmeter(tiered) satisfies Limiter<'a' | 'b'>
rampmeter({ identify: [session(() => null), apiKey({ lookup: async () => null })] satisfies Verifier[] })
// @ts-expect-error -- no tier may be left out
rampmeter<'a' | 'b'>({ tiers: { a: { policies } }, classify: () => 'a' })

// A limiter with one set of policies has a tier, called `default`.
void rampmeter({ policies }).decide({ client: { id: 'key:one', tier: 'default' } })
void rampmeter({ policies }).peek({ id: 'key:one', tier: 'default' })
// @ts-expect-error -- and no other
void rampmeter({ policies }).decide({ client: { id: 'key:one', tier: 'gold' } })

// A client of ioredis is one that the store takes, of a cluster too.
redisStore(new Redis()) satisfies Store
redisStore(new Redis({ protocol: 3 }), { prefix: 'a:' })
redisStore(new Cluster([]), { prefix: 'a:' })
// @ts-expect-error -- no client
redisStore('redis://localhost')
