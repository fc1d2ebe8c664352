import { Session, type Profiler } from 'node:inspector/promises'

/** Whose code was running, of all the time that a process was on the processor, in parts of one. */
export type Parties = ReadonlyMap<Party, number>

export const parties = [
  'the socket',
  'garbage',
  'rampmeter',
  'the Redis client',
  'other packages',
  'the rest of Node',
  'the bench',
  'native',
] as const

export type Party = (typeof parties)[number]

/** How often it is looked who is running, in µs. */
const everyUs = 200

/** Looks at this process while something runs. */
export async function profiled<Result>(run: () => Promise<Result>): Promise<{ result: Result; parties: Parties }> {
  const end = await beginProfile()
  const result = await run()
  return { result, parties: await end() }
}

/** Begins to look at this process; what it returns ends that. */
export async function beginProfile(): Promise<() => Promise<Parties>> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: everyUs })
  await session.post('Profiler.start')
  return async () => {
    const { profile } = await session.post('Profiler.stop')
    session.disconnect()
    return byParty(profile)
  }
}

function byParty({ nodes }: Profiler.Profile): Parties {
  const hits = new Map<Party, number>(parties.map((party) => [party, 0]))
  let all = 0
  for (const { callFrame, hitCount = 0 } of nodes) {
    const party = partyOf(callFrame)
    if (party === undefined) continue
    hits.set(party, hits.get(party)! + hitCount)
    all += hitCount
  }
  return new Map([...hits].map(([party, count]) => [party, count / all]))
}

/** Undefined where nothing ran. */
function partyOf({ functionName, url }: Profiler.Profile['nodes'][number]['callFrame']): Party | undefined {
  if (functionName === '(idle)' || functionName === '(root)') return undefined
  if (functionName === '(garbage collector)') return 'garbage'
  if (/^(?:write|shutdown|readStart)/.test(functionName) && url === '') return 'the socket'
  if (/^node:(?:net|internal\/(?:stream_base_commons|streams)|_?stream)/.test(url)) return 'the socket'
  if (url.startsWith('node:')) return 'the rest of Node'
  const [, inPackage] = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? []
  if (inPackage !== undefined) return ofPackage(inPackage)
  if (/\/dist\/(?:esm|cjs)\//.test(url)) return 'rampmeter'
  if (url.includes('/bench/')) return 'the bench'
  return 'native'
}

function ofPackage(name: string): Party {
  if (/redis|cluster-key-slot|denque|standard-as-callback/.test(name)) return 'the Redis client'
  // What ours depends on works for ours.
  if (/^(?:zod|lru-cache|structured-headers|ipaddr\.js|jose|ms|on-headers|path-to-regexp)$/.test(name))
    return 'rampmeter'
  return 'other packages'
}
