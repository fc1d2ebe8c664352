import type { Charge, DecisionRequest } from './store.ts'

/** Where a store is looked at, unless what failed was elsewhere. No client's id begins like that. */
export const probed = '@probe'

/** So many names are tried to find one at a certain place: of a hundred masters one in a hundred is. */
const mostTried = 2000

/** The first of them that is at a certain place of a store that has several. */
export function probedWhere(isThere: (partition: string) => boolean): string | undefined {
  for (let number = 0; number < mostTried; number += 1) {
    const partition = `${probed}${number}`
    if (isThere(partition)) return partition
  }
  return undefined
}

/** Asks for a counter that nothing depends on; written, since a store that is full or a replica answers those who only read. */
export function probeOf(partition: string, commit: boolean): DecisionRequest {
  const charge: Charge = {
    kind: 'fixed-window',
    stateId: 0x70726f62,
    partition,
    windowUs: 1_000_000,
    quota: 1_000_000,
    capacity: 1_000_000,
    cost: 1,
    liftable: false,
    shadow: true,
  }
  return { charges: [charge], undo: [], commit, promise: false }
}
