import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Seen } from './load.ts'
import type { Phase, Variant } from './settings.ts'

/** What the app said of itself, in ms from the start. */
interface Look {
  readonly at: number
  readonly multiplier: number
  readonly limit: number | null
}

export interface Played {
  readonly variant: Variant
  readonly phases: readonly Phase[]
  readonly seen: readonly Seen[]
  readonly looks: readonly Look[]
}

/** Plays all phases to an app of its own. */
export async function play(variant: Variant, phases: readonly Phase[]): Promise<Played> {
  const app = start('app.ts', [variant])
  const looks: Look[] = []
  try {
    const [{ port }] = (await once(app, 'message')) as [{ port: number }]
    const load = start('load.ts', [String(port), JSON.stringify(phases)])
    const startedAt = performance.now()
    app.on('message', ({ health }: { health: Partial<Look> }) => {
      looks.push({ at: performance.now() - startedAt, multiplier: health.multiplier ?? 1, limit: health.limit ?? null })
    })
    const [seen] = (await once(load, 'message')) as [Seen[]]
    return { variant, phases, seen, looks }
  } finally {
    app.disconnect()
    await once(app, 'exit')
  }
}

function start(file: string, args: string[]): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), args)
}
