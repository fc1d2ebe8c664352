// How much heap the clients of a memory store take that have asked once: the process that `bench/memory/in-process.ts` starts
// for each library.

import { memoryStore } from 'rampmeter'
import { libraries, ours } from './libraries/libraries.ts'
import { deciding } from './libraries/rampmeter.ts'
import { lastingLimits, oneRequestEach, smallQuota } from './memory/clients.ts'
import { collectGarbage } from './slice.ts'

const [name, limitCount, clientCount] = process.argv.slice(2)
const clients = Number(clientCount)
const limits = lastingLimits(Number(limitCount), smallQuota)

// Ours keeps no more than it is told to; theirs whatever comes.
const decider =
  name === ours
    ? deciding(limits, memoryStore({ maxKeys: clients }))
    : await libraries.find((library) => library.name === name)!.inMemory!(limits)

await oneRequestEach(decider, 100)
const before = held()
await oneRequestEach(decider, clients)
process.send!(held() - before)

function held(): number {
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
