import type { Standings } from '../standing.ts'

/**
 * Standings of a store that may be away: no call waits longer for it than any other that no request waits for, and what fails is
 * told by an error of ours, whatever the client of the store threw.
 *
 * @param patiently waits for a call of the store, and says that it is away
 */
export function patientStandings(
  standings: Standings,
  patiently: <T>(call: () => Promise<T>) => Promise<T>,
): Standings {
  return {
    observe: (...call) => patiently(() => standings.observe(...call)),
    rule: (...call) => patiently(() => standings.rule(...call)),
    trail: (...call) => patiently(() => standings.trail(...call)),
    addIncident: (...call) => patiently(() => standings.addIncident(...call)),
    incidents: (...call) => patiently(() => standings.incidents(...call)),
    putCase: (...call) => patiently(() => standings.putCase(...call)),
    takeCase: (...call) => patiently(() => standings.takeCase(...call)),
    cases: (...call) => patiently(() => standings.cases(...call)),
    vouch: (...call) => patiently(() => standings.vouch(...call)),
    vouchers: (...call) => patiently(() => standings.vouchers(...call)),
    now: () => patiently(() => standings.now()),
  }
}
