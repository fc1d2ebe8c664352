import { markdownTable } from '../honesty/tables.ts'
import { quantile } from '../statistics.ts'
import type { Seen } from './load.ts'
import type { Played } from './play.ts'
import { tiers, worthMs, type Phase } from './settings.ts'

/** Served, and in time to be worth something. */
export function isGood({ status, ms }: Seen): boolean {
  return status === 200 && ms <= worthMs
}

export function phaseOf({ phases }: Played, name: Phase['name']): { from: number; until: number } {
  const index = phases.findIndex((phase) => phase.name === name)
  const from = phases.slice(0, index).reduce((sum, { ms }) => sum + ms, 0)
  return { from, until: from + phases[index]!.ms }
}

function perSecond(played: Played, name: Phase['name'], counts: (one: Seen) => boolean): number {
  const { from, until } = phaseOf(played, name)
  return (1000 * played.seen.filter((one) => one.phase === name && counts(one)).length) / (until - from)
}

/** From the end of the overload until a second begins after which nobody is refused, lost or late within three seconds. */
function recoversMs(played: Played): number | null {
  const { from, until } = phaseOf(played, 'after')
  for (let at = from; at + 3000 <= until; at += 250) {
    const then = played.seen.filter((one) => one.at >= at && one.at < at + 3000)
    if (then.length > 0 && then.every(isGood)) return at - from
  }
  return null
}

export function overloadTable(all: readonly Played[]): string {
  const during = ({ seen }: Played): Seen[] => seen.filter(({ phase }) => phase === 'overload')
  const share = (played: Played, tier: string): string => {
    const asked = during(played).filter((one) => one.tier === tier)
    return `${Math.round((100 * asked.filter(isGood).length) / asked.length)} %`
  }
  const count = (played: Played, is: (one: Seen) => boolean): string => perSecond(played, 'overload', is).toFixed(0)
  return markdownTable(all, [
    { title: '', words: true, cell: ({ variant }) => variant },
    { title: 'asked, a second', cell: (played) => count(played, () => true) },
    { title: 'served in time', cell: (played) => count(played, isGood) },
    { title: 'served too late', cell: (played) => count(played, (one) => one.status === 200 && !isGood(one)) },
    { title: 'client had gone', cell: (played) => count(played, ({ status }) => status === 0) },
    { title: '429', cell: (played) => count(played, ({ status }) => status === 429) },
    { title: '503', cell: (played) => count(played, ({ status }) => status === 503) },
    { title: 'p99 of served, ms', cell: (played) => p99(during(played)) },
    ...tiers.map(({ name }) => ({ title: `${name}, in time`, cell: (played: Played) => share(played, name) })),
  ])
}

/** What became of the bursts while nobody else was there. */
export function burstTable(all: readonly Played[]): string {
  const count = ({ seen }: Played, is: (one: Seen) => boolean): string =>
    String(seen.filter((one) => one.phase === 'burst' && is(one)).length)
  return markdownTable(all, [
    { title: '', words: true, cell: ({ variant }) => variant },
    { title: 'asked', cell: (played) => count(played, () => true) },
    { title: 'served in time', cell: (played) => count(played, isGood) },
    { title: 'refused', cell: (played) => count(played, ({ status }) => status === 429 || status === 503) },
  ])
}

export function afterTable(all: readonly Played[]): string {
  return markdownTable(all, [
    { title: '', words: true, cell: ({ variant }) => variant },
    {
      title: 'recovered after, s',
      cell: (played) => {
        const ms = recoversMs(played)
        return ms === null ? 'not' : (ms / 1000).toFixed(2)
      },
    },
    {
      title: 'one alone: asked, a second',
      cell: (played) => perSecond(played, 'one alone', () => true).toFixed(1),
    },
    { title: 'served', cell: (played) => perSecond(played, 'one alone', isGood).toFixed(1) },
  ])
}

function p99(seen: readonly Seen[]): string {
  const served = seen.filter(({ status }) => status === 200).map(({ ms }) => ms)
  return served.length === 0 ? '-' : quantile(served, 0.99).toFixed(0)
}
