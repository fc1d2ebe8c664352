import {
  signalNames,
  type CaseKind,
  type ConductEvent,
  type ConductRules,
  type Observation,
  type Observed,
  type Standings,
} from '../../standing.ts'
import {
  longestIncidentMs,
  mostAuditLines,
  mostIncidents,
  mostReports,
  mostVouchers,
  reportsLastMs,
} from '../standings.ts'
import type { SlotOf } from './across-slots.ts'
import { isMoving, untilMoved } from './moving-slots.ts'
import type { KeyNames, ScriptCall } from './plan.ts'

export interface RedisStandingsOptions {
  readonly prefix: string
  readonly names: KeyNames
  readonly slotOf: SlotOf | undefined
  readonly call: (script: 'observe' | 'rulings' | 'shared', call: ScriptCall) => Promise<unknown>
}

/** Standings in Redis: of each client a hash of its own, and what all share by names that are none of a client's. */
export function redisStandings({ prefix, names, slotOf, call }: RedisStandingsOptions): Standings {
  const shared = async (keys: string | string[], ...plans: string[]): Promise<unknown> =>
    await call('shared', { keys: [keys].flat(), plans })
  const incidents = `${prefix}incidents`
  const cases = (kind: CaseKind): string[] => [`${prefix}cases:{${kind}}`, `${prefix}cases:{${kind}}:ends`]
  const good = (name: string): string => names.standing(`@good:${name}`, 'vouchers')

  const observeSlot = async (own: readonly Observation[], rules: string): Promise<Observed[]> => {
    const keys = own.flatMap(({ partition, once }) => [
      names.standing(partition, 'standing'),
      names.standing(partition, 'targets'),
      ...(once === undefined ? [] : [names.standing(partition, 'reports')]),
    ])
    const row = (await call('observe', { keys, plans: [rules, ...own.map(planObservation)] })) as number[]
    return readObserved(row, own.length)
  }

  /** While the slot moves: of each client the standing alone, so that no targets are marked. */
  const observeApart = async (own: readonly Observation[], rules: string): Promise<Observed[]> =>
    await Promise.all(
      own.map(async (one) => {
        const keys = [names.standing(one.partition, 'standing')]
        const row = (await call('observe', { keys, plans: [rules, planObservation(one)] })) as number[]
        return readObserved(row, 1)[0]!
      }),
    )

  return {
    async observe(observations, rules) {
      const first = planRules(rules)
      const answers: Observed[] = []
      await Promise.all(
        bySlot(observations, slotOf).map(async (places) => {
          const own = places.map((place) => observations[place]!)
          const observed = await observeSlot(own, first).catch((error: unknown) => {
            if (!isMoving(error)) throw error
            // What is to count once has to know what came before.
            const isOnce = own.some(({ once }) => once !== undefined)
            return isOnce ? untilMoved(() => observeSlot(own, first)) : observeApart(own, first)
          })
          observed.forEach((one, index) => (answers[places[index]!] = one))
        }),
      )
      return answers
    },

    async rule(partition, { set, take, audit }) {
      const fields = Object.entries(set)
      const plan = [fields.length, ...fields.flat(), take.length, ...take, audit]
      const row = (await call('rulings', {
        keys: (['standing', 'audit', 'targets'] as const).map((what) => names.standing(partition, what)),
        plans: [JSON.stringify(plan), String(mostAuditLines)],
      })) as (string | number)[]
      const known: Record<string, string> = {}
      for (let index = 0; index + 1 < row.length; index += 2) known[String(row[index])] = String(row[index + 1])
      return known
    },

    async trail(partition) {
      return (await shared(names.standing(partition, 'audit'), 'trail')) as string[]
    },

    async addIncident(text) {
      await shared(incidents, 'add', text, String(mostIncidents), String(longestIncidentMs))
    },

    async incidents(sinceMs, most) {
      return (await shared(incidents, 'read', String(Math.max(0, Math.floor(sinceMs))), String(most))) as string[]
    },

    async putCase(kind, name, text, most, lastsMs) {
      const lasts = String(Math.ceil(lastsMs))
      const isNoted = await shared(cases(kind), 'put', names.standing(name, 'standing'), text, String(most), lasts)
      return isNoted === 1
    },

    async takeCase(kind, name) {
      await shared(cases(kind), 'take', names.standing(name, 'standing'))
    },

    async cases(kind) {
      return (await shared(cases(kind), 'all')) as string[]
    },

    async vouch(name, who, lastsMs) {
      await shared(good(name), 'vouch', who, String(Math.ceil(lastsMs)), String(mostVouchers))
    },

    async vouchers(name) {
      return (await shared(good(name), 'vouchers')) as string[]
    },

    async now() {
      return (await shared(incidents, 'time')) as number
    },
  }
}

/** The places of the observations, apart by the slot they fall into. */
function bySlot(observations: readonly Observation[], slotOf: SlotOf | undefined): number[][] {
  const all = observations.map((_, place) => place)
  if (slotOf === undefined) return [all]
  const groups = new Map<number, number[]>()
  for (const place of all) {
    const slot = slotOf(observations[place]!.partition)
    groups.set(slot, [...(groups.get(slot) ?? []), place])
  }
  return [...groups.values()]
}

/** As lua/observe.lua says in its header. */
function planRules({ halfLifeUs, signals }: ConductRules): string {
  const rows = signals.flatMap(({ weight, threshold, halfLifeUs: own, needs, label }) => [
    weight,
    threshold,
    own,
    needs,
    label,
  ])
  return `[${[halfLifeUs, ...rows].join()}]`
}

function planObservation({ ladder, events, once }: Observation): string {
  const known = once === undefined ? '' : `,"${once}",${reportsLastMs},${mostReports}`
  return `[[${ladder.join()}],[${events.map(planEvent).join()}]${known}]`
}

function planEvent(event: ConductEvent): string {
  const { atUs, outcome, toldUs, tag, target, sequence, endpoint, place, software, placeIsKnown, result, adds } = event
  return `[${[atUs, outcome, toldUs, tag, target, sequence, endpoint, place, software, placeIsKnown, result, ...adds].join()}]`
}

function readObserved(row: readonly number[], count: number): Observed[] {
  const observed: Observed[] = []
  let from = 0
  while (observed.length < count) {
    const [score, before, step, signals, began, changed] = row.slice(from, from + 6) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ]
    from += 6
    const ofSignals = from + (changed === 0 ? 0 : 2 * signalNames.length)
    const ofLabels = ofSignals + (changed === 0 ? 0 : 12)
    const counts = row.slice(from, ofSignals)
    const labels = row.slice(ofSignals, ofLabels)
    observed.push({ score, before, step, signals, began, changed, counts, labels })
    from = ofLabels
  }
  return observed
}
