import { Redis } from 'ioredis'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter, RedisWork } from './redis-meter.ts'

// Three ways to lay out the state of N policies of one client: two numbers each, as a bucket has. All of them do the same
// arithmetic; what differs is how the state is read and written.

/** What a decision costs in a layout. */
export interface LayoutSample {
  readonly redisUs: number
  readonly reads: number
  readonly writes: number
}

export interface LayoutFinding {
  readonly name: string
  readonly policies: number
  readonly bytes: number
  readonly samples: readonly LayoutSample[]
}

interface Layout {
  readonly name: string
  /** How many keys a client has. */
  readonly keysOf: (policies: number) => number
  /** Lua that sets `levels` and `times` of the client whose keys begin at `base`, all zero for one that is new. */
  readonly read: string
  readonly write: string
}

const layouts: readonly Layout[] = [
  {
    name: 'one packed string',
    keysOf: () => 1,
    read: `
      local value = redis.call('GET', KEYS[base + 1])
      for index = 1, policies do
        if value then levels[index], times[index] = struct.unpack('<dd', value, index * 16 - 15)
        else levels[index], times[index] = 0, 0 end
      end`,
    write: `
      local parts = {}
      for index = 1, policies do parts[index] = struct.pack('<dd', levels[index], times[index]) end
      redis.call('SET', KEYS[base + 1], table.concat(parts), 'PX', 3600000)`,
  },
  {
    name: 'one hash',
    keysOf: () => 1,
    read: `
      local found = redis.call('HMGET', KEYS[base + 1], unpack(fields))
      for index = 1, policies do
        levels[index], times[index] = tonumber(found[index * 2 - 1] or 0), tonumber(found[index * 2] or 0)
      end`,
    write: `
      local pairs_of = {}
      for index = 1, policies do
        pairs_of[index * 4 - 3] = fields[index * 2 - 1]
        pairs_of[index * 4 - 2] = string.format('%.0f', levels[index])
        pairs_of[index * 4 - 1] = fields[index * 2]
        pairs_of[index * 4] = string.format('%.0f', times[index])
      end
      redis.call('HSET', KEYS[base + 1], unpack(pairs_of))
      redis.call('PEXPIRE', KEYS[base + 1], 3600000)`,
  },
  {
    name: 'a key a policy',
    keysOf: (policies) => policies,
    read: `
      local found = redis.call('MGET', unpack(KEYS, base + 1, base + policies))
      for index = 1, policies do
        if found[index] then levels[index], times[index] = struct.unpack('<dd', found[index])
        else levels[index], times[index] = 0, 0 end
      end`,
    write: `
      for index = 1, policies do
        redis.call('SET', KEYS[base + index], struct.pack('<dd', levels[index], times[index]), 'PX', 3600000)
      end`,
  },
]

/** So many decisions travel in a call, so that what is measured is the layout and not the call. */
const together = 32

const counts = [1, 3, 7]
const clients = 10_000
const readers = ['get', 'mget', 'hmget']
const writers = ['set', 'hset', 'pexpire']

export async function measureLayouts(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<LayoutFinding[]> {
  const redis = new Redis(redisUrl)
  const found: LayoutFinding[] = []
  for (const policies of counts) {
    await meter.flush()
    const contenders = await Promise.all(layouts.map((layout) => Contender.load(redis, layout, policies)))
    const samples = await inTurns(contenders, pace, (contender) => slice(contender, pace.layoutMs, meter))
    for (const [index, { layout, prefix }] of contenders.entries()) {
      const bytes = await meter.bytesOf(`${prefix}{${clients - 1}}`)
      found.push({ name: layout.name, policies, bytes, samples: samples[index]! })
    }
  }
  await redis.quit()
  return found
}

/** A layout for so many policies, as a script of its own. */
class Contender {
  readonly layout: Layout
  readonly prefix: string
  readonly #redis: Redis
  readonly #keys: number
  readonly #hash: string
  #next = 0

  private constructor(redis: Redis, layout: Layout, policies: number, hash: string) {
    this.#redis = redis
    this.layout = layout
    this.prefix = `${layout.name.replaceAll(' ', '-')}:`
    this.#keys = layout.keysOf(policies)
    this.#hash = hash
  }

  static async load(redis: Redis, layout: Layout, policies: number): Promise<Contender> {
    const hash = (await redis.script('LOAD', scriptOf(layout, policies))) as string
    const contender = new Contender(redis, layout, policies, hash)
    for (let client = 0; client < clients; client += together) await contender.decide()
    return contender
  }

  /** Decides for the next clients. */
  async decide(): Promise<void> {
    const keys: string[] = []
    for (let index = 0; index < together; index += 1) {
      const client = this.#next
      this.#next = (client + 1) % clients
      // Names as long as those of most clients.
      const name = `${this.prefix}{${client}}:0123456789abcdef`
      if (this.#keys === 1) keys.push(name)
      else for (let policy = 1; policy <= this.#keys; policy += 1) keys.push(`${name}:${policy}`)
    }
    const admitted = await this.#redis.evalsha(this.#hash, keys.length, ...keys, Date.now() * 1000)
    if (admitted !== together) throw new Error(`${this.layout.name}: ${String(admitted)} of ${together} were admitted`)
  }
}

function scriptOf({ keysOf, read, write }: Layout, policies: number): string {
  return `
    local policies, keys, now = ${policies}, ${keysOf(policies)}, tonumber(ARGV[1])
    local fields, levels, times, admitted = {}, {}, {}, 0
    for index = 1, policies do fields[index * 2 - 1], fields[index * 2] = 'l' .. index, 't' .. index end
    for base = 0, #KEYS - 1, keys do
      ${read}
      local fits = true
      for index = 1, policies do
        levels[index] = math.max(0, levels[index] - (now - times[index])) + 1
        times[index] = now
        if levels[index] > 1000000000 then fits = false end
      end
      if fits then
        ${write}
        admitted = admitted + 1
      end
    end
    return admitted`
}

async function slice(contender: Contender, ms: number, meter: RedisMeter): Promise<LayoutSample> {
  const end = await meter.start()
  const until = performance.now() + ms
  let calls = 0
  async function keepAsking(): Promise<void> {
    while (performance.now() < until) {
      await contender.decide()
      calls += 1
    }
  }
  await Promise.all([keepAsking(), keepAsking()])
  const work = await end()
  const decisions = calls * together
  const count = (names: readonly string[]): number => sum(work, names) / decisions
  return { redisUs: work.cpuUs / decisions, reads: count(readers), writes: count(writers) }
}

function sum({ commands }: RedisWork, names: readonly string[]): number {
  return names.reduce((total, name) => total + (commands.get(name) ?? 0), 0)
}
