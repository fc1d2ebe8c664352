import { decisionsInMemory, decisionsOnRedis, type Scenario } from './decisions.ts'
import { dimensionsOf } from './dimensions.ts'
import type { Findings } from './goals.ts'
import { profileRequests, requests } from './http.ts'
import { uniform, zipf } from './keys.ts'
import { measureLayouts } from './layouts.ts'
import { heapBytes } from './memory/in-process.ts'
import { clientBytes, crowdBytes, keysLeft } from './memory/in-redis.ts'
import type { Pace } from './pace.ts'
import { profileDecisions } from './profile/node-time.ts'
import { redisSteps } from './profile/redis-time.ts'
import type { RedisMeter } from './redis-meter.ts'
import { dimensionTable, httpTable, memoryTable, redisTable, stormTable } from './report.ts'
import { clientTable, crowdTable, heapTable, layoutTable, startTable } from './report-memory.ts'
import { profileTable, stepTable } from './report-profile.ts'
import { startUps } from './start-up.ts'
import { retryStorm } from './storm.ts'
import { grouped } from './table.ts'

/** What a section measures with, and whom it tells. */
export interface Bench {
  readonly redisUrl: string
  readonly meter: RedisMeter
  readonly pace: Pace
  readonly findings: Findings
  readonly section: (title: string, text: string) => void
}

/** What can be chosen with --only, in the order of the page. */
export const sections: Readonly<Record<string, (bench: Bench) => Promise<void>>> = {
  async decisions(bench) {
    const { pace, findings, section } = bench
    const measure = (scenario: Scenario): ReturnType<typeof decisionsOnRedis> =>
      decisionsOnRedis(bench.redisUrl, bench.meter, pace, scenario)
    const { redisMs: ms, aloneMs } = pace

    findings.busy = await measure({ inFlight: 64, ms, keys: uniform, counts: [1, 2, 3, 7] })
    section('Decisions on Redis, 64 in flight', redisTable(findings.busy))
    findings.alone = await measure({ inFlight: 1, ms: aloneMs, keys: uniform, counts: [1, 3] })
    section('Decisions on Redis, one at a time', redisTable(findings.alone))
    const crowded = await measure({ inFlight: 512, ms, keys: uniform, counts: [1, 3] })
    section('Decisions on Redis, 512 in flight', redisTable(crowded))
    const uneven = await measure({ inFlight: 64, ms, keys: zipf, counts: [1, 3] })
    section('Decisions on Redis, 64 in flight, some clients ask much more than others', redisTable(uneven))
  },

  async storm({ redisUrl, meter, pace, findings, section }) {
    findings.storm = await retryStorm(redisUrl, meter, pace)
    section('A retry storm: one client that has used up its quota, 64 in flight', stormTable(findings.storm))
  },

  async 'in-memory'({ pace, findings, section }) {
    findings.inMemory = await decisionsInMemory(pace, [1, 2, 3, 7])
    section('Decisions in memory', memoryTable(findings.inMemory))
  },

  async dimensions({ redisUrl, meter, pace, section }) {
    section('Dimensions, in memory', dimensionTable(await dimensionsOf(pace)))
    section('Dimensions, on Redis', dimensionTable(await dimensionsOf(pace, { url: redisUrl, meter })))
  },

  async http({ redisUrl, meter, pace, findings, section }) {
    findings.http = await requests(redisUrl, meter, pace)
    section('Requests to an Express 5 app, counted on Redis', httpTable(findings.http))
  },

  async memory({ redisUrl, meter, pace, findings, section }) {
    findings.clientBytes = await clientBytes(redisUrl, meter)
    section('Memory of one client in Redis', clientTable(findings.clientBytes))
    const crowd = await crowdBytes(redisUrl, meter, pace.clients)
    findings.crowdBytes = crowd
    const few = pace.clients.least / 2
    const left = [...(await keysLeft(redisUrl, meter, few))].map(([name, keys]) => `${name} ${grouped(keys)}`)
    section(
      'Memory of many clients in Redis, one request each',
      `${crowdTable(crowd)}\n\nKeys left of ${grouped(few)} clients, three seconds after one request each, of 60 a minute: ${left.join(', ')}.`,
    )
    section('Memory of many clients in memory stores', heapTable(await heapBytes(crowd[0]!.clients)))
  },

  async profile({ redisUrl, meter, pace, section }) {
    const found = [
      ...(await profileDecisions(redisUrl, meter, pace)),
      ...(await profileRequests(redisUrl, meter, pace)),
    ]
    section("Where Node's time goes", profileTable(found))
    section("Where Redis's time goes, 64 in flight", stepTable(await redisSteps(redisUrl, meter, pace)))
  },

  async layouts({ redisUrl, meter, pace, section }) {
    section('Layouts of state in Redis', layoutTable(await measureLayouts(redisUrl, meter, pace)))
  },

  async 'start-up'({ pace, section }) {
    section('Start-up', startTable(await startUps(pace)))
  },
}
