import type { Algorithm } from '../policies/algorithm.ts'
import { firstMinutesAlgorithm, hasExtra, type FirstMinutesState } from '../policies/first-minutes.ts'
import { fixedWindowAlgorithm } from '../policies/fixed-window.ts'
import { slidingLogAlgorithm } from '../policies/sliding-log.ts'
import { slidingWindowAlgorithm } from '../policies/sliding-window.ts'
import { tokenBucketAlgorithm } from '../policies/token-bucket.ts'
import type { PolicyKind } from '../policy.ts'
import type { Charge, ChargeOutcome, DecisionRequest, StoreDecision, Verdict } from './store.ts'

/** The arithmetic of each kind. States pass through untyped: each kind only ever sees its own. */
export const algorithms: Record<PolicyKind, Algorithm<unknown>> = {
  'token-bucket': tokenBucketAlgorithm as Algorithm<unknown>,
  'sliding-window': slidingWindowAlgorithm as Algorithm<unknown>,
  'sliding-log': slidingLogAlgorithm as Algorithm<unknown>,
  'fixed-window': fixedWindowAlgorithm as Algorithm<unknown>,
  'first-minutes': firstMinutesAlgorithm as Algorithm<unknown>,
}

/** Told waits that would end this close to the end of the first minutes do not count on them, in µs. */
const extraMarginUs = 1_000_000

/** How long until a cost fits; Infinity when it never will. */
function waitFor(charge: Charge, state: unknown, now: number, cost: number): number {
  if (cost > charge.capacity) return Infinity
  return algorithms[charge.kind].earliest(state, charge, now, cost) - now
}

/**
 * All policies or none: the twin of `decide` in lua/decide.lua, step by step the same.
 *
 * @param open finds a charge's state, fit for use at `now`; what the decision changes in it is kept
 */
export function decideTogether(
  request: DecisionRequest,
  now: number,
  open: (charge: Charge) => unknown,
): StoreDecision {
  for (const { charge, cost, chargedAtUs } of request.undo) {
    algorithms[charge.kind].refund(open(charge), charge, now, chargedAtUs, cost)
  }

  // What each policy says on its own. The first minutes' extra never refuses: it stands in for those it may lift.
  const { charges } = request
  const states = charges.map(open)
  const waits = charges.map((charge, index) =>
    charge.kind === 'first-minutes' || charge.cost === 0 ? 0 : waitFor(charge, states[index], now, charge.cost),
  )
  let hardWait = 0
  let softWait = 0
  charges.forEach((charge, index) => {
    if (charge.shadow) return
    if (charge.liftable) softWait = Math.max(softWait, waits[index]!)
    else hardWait = Math.max(hardWait, waits[index]!)
  })
  const extraIndex = charges.findIndex((charge) => charge.kind === 'first-minutes')
  const extra = charges[extraIndex]
  const extraState = states[extraIndex] as FirstMinutesState | undefined
  const extraEnds = extra && extraState ? extraState.start + extra.windowUs : 0
  const lifts = extra !== undefined && hasExtra(extraState!, extra, now, extra.cost)
  const admitted = hardWait === 0 && (softWait === 0 || lifts)

  let wait = 0
  if (!admitted) {
    wait = lifts && now + hardWait + extraMarginUs < extraEnds ? hardWait : Math.max(hardWait, softWait)
  } else if (request.commit) {
    charges.forEach((charge, index) => {
      const charged = index === extraIndex ? softWait > 0 : waits[index] === 0 && charge.cost > 0
      if (charged) algorithms[charge.kind].charge(states[index], charge, now, charge.cost)
    })
  }

  const outcomes = charges.map((charge, index): ChargeOutcome => {
    const algorithm = algorithms[charge.kind]
    let verdict: Verdict = 'fits'
    if (index === extraIndex) {
      if (now >= extraEnds) verdict = 'inactive'
    } else if (waits[index] !== 0) {
      verdict = lifts && charge.liftable && !charge.shadow ? 'lifted' : 'refused'
    }
    return {
      verdict,
      remaining: algorithm.remaining(states[index], charge, now),
      waitUs: finite(waitFor(charge, states[index], now, Math.max(charge.cost, 1))),
      resetUs: Math.max(0, algorithm.expires(states[index], charge, now) - now),
    }
  })
  return { admitted, nowUs: now, retryAfterUs: finite(wait), outcomes }
}

function finite(wait: number): number | null {
  return wait === Infinity ? null : wait
}
