// Options of the layer that would do nothing, or something else than what was meant, are mistakes at start-up.

import { describe, expect, it } from 'vitest'
import {
  cloudflare,
  fastly,
  presetLadder,
  presetSignals,
  presetTiers,
  rampmeter,
  type AbuseOptions,
} from '../../src/index.ts'

const [throttle, challenge, deny] = presetLadder()

describe('is a mistake:', () => {
  it.each<[string, RegExp, () => unknown]>([
    [
      'a preset signal that does not exist',
      /no signal "missing-target"; there are early-retries, /,
      () => presetSignals({ 'missing-target': {} } as never),
    ],
    [
      'a preset step that does not exist',
      /no step "denied"; there are throttle, challenge, deny, suspend/,
      () => presetLadder({ denied: {} } as never),
    ],
    [
      'a misspelt field of a preset signal',
      /presetSignals: "missing-targets": unknown option `treshold`; there are weight, threshold, halfLife, /,
      // @ts-expect-error -- the compiler knows the fields too
      () => presetSignals({ 'missing-targets': { treshold: 50 } }),
    ],
    [
      'a value of a preset signal that is out of range',
      /presetSignals: "disputes": `weight`: saw 500, expected a number/,
      () => presetSignals({ disputes: { weight: 500 } }),
    ],
    [
      'a half-life of a preset signal that is no duration',
      /the half-life of "disputes"/,
      () => presetSignals({ disputes: { halfLife: 'soon' as never } }),
    ],
    ['a preset signal that is a number', /presetSignals: "disputes"/, () => presetSignals({ disputes: 5 as never })],
    [
      'a preset step that is left above where it is taken',
      /presetLadder: the step "deny" is taken at 10 and left below 20; write a `below` that is less/,
      () => presetLadder({ deny: { above: 10, below: 20 } }),
    ],
    [
      'a misspelt field of a preset step',
      /presetLadder: "deny": unknown option `over`; there are above, below, /,
      // @ts-expect-error -- likewise
      () => presetLadder({ deny: { over: 70 } }),
    ],
    [
      'a misspelt field of Cloudflare',
      /unknown option `contry`; there are country, asn, ja4/,
      () => cloudflare({ contry: 'x' } as never),
    ],
    ['a field of Cloudflare that is no text', /`country`: saw 5/, () => cloudflare({ country: 5 } as never)],
    [
      'a field of Fastly that cannot be a name',
      /`ja4`: saw "a b", expected the name of a header field/,
      () => fastly({ ja4: 'a b' }),
    ],
  ])('%s', (_name, message, call) => {
    expect(call).toThrow(message)
    expect(call).toThrow(expect.objectContaining({ code: expect.stringMatching(/^RAMPMETER_/) as string }))
  })

  it.each<[string, RegExp, AbuseOptions]>([
    [
      'a signal that needs itself',
      /"bursts" `needs` itself/,
      { signals: presetSignals({ bursts: { needs: 'bursts' } }) },
    ],
    [
      'a signal that needs what is not watched',
      /"greedy-targets" `needs` "new-targets", which is not among/,
      { signals: presetSignals().filter(({ name }) => name !== 'new-targets') },
    ],
    [
      'a step that is left where it is taken',
      /"deny" is taken at 60 and left below 60/,
      { ladder: [{ ...deny!, below: 60 }] },
    ],
    ['a share of deny', /"deny" has a `share`/, { ladder: [{ ...deny!, share: 0.5 }] }],
    [
      'a share of challenge beside throttle',
      /"challenge" has a `share`/,
      { ladder: [throttle!, { ...challenge!, share: 0.5 }] },
    ],
    ['a reader that is not called', /call it: environment: cloudflare\(\)/, { environment: cloudflare as never }],
    ['a half-life of 0', /`halfLife` is 0; write a duration from "1s" to "1d"/, { halfLife: 0 }],
    ['a half-life of a week', /`halfLife` is "7d"; write a duration from "1s" to "1d"/, { halfLife: '7d' }],
    [
      'an unknown option',
      /^abuse: unknown option `signal`; there are signals, ladder, halfLife, mode, environment, onIncident/,
      { signal: [] } as never,
    ],
  ])('%s', (_name, message, abuse) => {
    expect(() => rampmeter({ abuse })).toThrow(message)
  })

  it('a ladder where no scores are kept', () => {
    const ladder = presetLadder()
    const tiers = presetTiers()
    expect(() => rampmeter({ routes: { '/': { ladder } } })).toThrow(
      /routes\["\/"\] has a `ladder`, and this limiter keeps no/,
    )
    expect(() => rampmeter({ tiers: { ...tiers, human: { ...tiers.human, ladder } } })).toThrow(
      /the tier "human" has a `ladder`/,
    )
    expect(() => rampmeter().route({ ladder })).toThrow(/limiter\.route has a `ladder`/)
    rampmeter({ abuse: {}, routes: { '/': { ladder } } })
  })
})

it('a ladder without throttle may say what challenge leaves', () => {
  rampmeter({ abuse: { ladder: [{ ...challenge!, share: 0.25 }] } })
})
