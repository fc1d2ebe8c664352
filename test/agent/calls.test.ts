import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { pacedFetch, type Bill, type ProofRequest } from '../../src/agent/index.ts'
import { RampmeterError } from '../../src/errors.ts'
import { createWorld, ok, refusal, watch } from './world.ts'

const api = 'https://api.example.com'
const soon = { 'retry-after-ms': '100' }

/** Refuses the first so many, then serves. */
function refusing(times: number, headers: Record<string, string> = soon, status = 429) {
  return (_: unknown, nth: number): Response => (nth <= times ? refusal(headers, status) : ok())
}

describe('a refusal', () => {
  it('is waited out to the millisecond, and reported', async () => {
    const world = createWorld(refusing(1, { 'Retry-After': '2', 'retry-after-ms': '1180' }))
    const call = watch(world.fetch(`${api}/a?q=1`))
    await world.advance(1179)
    expect(world.asked).toHaveLength(1)
    await world.advance(1)
    expect(world.asked).toHaveLength(2)
    expect(call.value?.status).toBe(200)
    expect(world.waits).toEqual([{ url: `${api}/a?q=1`, method: 'GET', ms: 1180, reason: 'refused' }])
  })

  it('with 503 is waited out where it names a time, and else returned', async () => {
    const told = createWorld(refusing(1, { 'retry-after-ms': '500' }, 503))
    const call = watch(told.fetch(`${api}/a`))
    await told.advance(500)
    expect(call.value?.status).toBe(200)

    const untold = createWorld(refusing(1, {}, 503))
    expect((await untold.fetch(`${api}/a`)).status).toBe(503)
  })

  it('without a time is waited out by the fields, else by a guess that doubles', async () => {
    const fields = createWorld(refusing(1, { RateLimit: '"a";r=0;t=3, "b";r=5;t=9' }), { random: () => 0 })
    watch(fields.fetch(`${api}/a`))
    await fields.advance(3000)
    expect(fields.asked.map(({ at }) => at)).toEqual([0, 3000])

    const nothing = createWorld(refusing(3, {}), { random: () => 0.999 })
    watch(nothing.fetch(`${api}/a`))
    await nothing.advance(30_000)
    expect(nothing.waits.map(({ reason }) => reason)).toEqual(['backoff', 'backoff', 'backoff'])
    expect(nothing.waits.map(({ ms }) => Math.round(ms / 100) * 100)).toEqual([1000, 2000, 4000])
  })

  it.each([{ 'Retry-After': '0' }, { 'retry-after-ms': '0' }, { 'Retry-After': 'Thu, 01 Jan 1970 00:00:00 GMT' }])(
    'that says "at once" is not hammered: %j',
    async (headers) => {
      const world = createWorld(() => refusal(headers))
      const call = watch(world.fetch(`${api}/a`))
      await world.advance(5000)
      expect(world.asked.length).toBeLessThanOrEqual(5)
      await world.advance(600_000)
      expect(call.value?.status).toBe(429)
    },
  )

  it.each(['3600', '999999999999999', '60.001'])(
    'that asks for more than maxWait (%s s) is returned as it came',
    async (seconds) => {
      const world = createWorld(() => refusal({ 'retry-after-ms': String(Number(seconds) * 1000) }))
      const response = await world.fetch(`${api}/a`)
      expect(response.status).toBe(429)
      expect(response.bodyUsed).toBe(false)
      expect(await response.json()).toEqual({ error: {} })
      expect(world.waits).toEqual([])
      expect(world.timers()).toBe(0)
    },
  )

  it('of a cache is returned as it came', async () => {
    const world = createWorld(refusing(1, { ...soon, Age: '4' }))
    expect((await world.fetch(`${api}/a`)).status).toBe(429)
  })

  it('is read through as it is thrown away, and only then', async () => {
    const bodies: ReadableStream[] = []
    const world = createWorld((_, nth) => {
      const response = nth <= 2 ? refusal(nth === 1 ? soon : { 'Retry-After': '999' }) : ok()
      bodies.push(response.body!)
      return response
    })
    const call = watch(world.fetch(`${api}/a`))
    await world.advance(100)
    expect(call.value?.status).toBe(429)
    expect(bodies[0]!.locked).toBe(true)
    expect(bodies[1]!.locked).toBe(false)
    expect(await call.value!.text()).toBe('{"error":{}}')
  })

  it('with an endless body is let go', async () => {
    let cancelled = false
    const endless = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(10_000)),
      cancel: () => void (cancelled = true),
    })
    const world = createWorld((_, nth) => (nth === 1 ? new Response(endless, { status: 429, headers: soon }) : ok()))
    const call = watch(world.fetch(`${api}/a`))
    await world.advance(100)
    expect(call.value?.status).toBe(200)
    expect(cancelled).toBe(true)
  })
})

describe('is sent again', () => {
  it.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'get'])('%s', async (method) => {
    const world = createWorld(refusing(1))
    const call = watch(world.fetch(`${api}/a`, { method }))
    await world.advance(100)
    expect(call.value?.status).toBe(200)
  })

  it.each(['POST', 'PATCH', 'post', 'patch'])('%s only with an Idempotency-Key', async (method) => {
    const without = createWorld(refusing(1))
    expect((await without.fetch(`${api}/a`, { method, body: 'x' })).status).toBe(429)

    const withKey = createWorld(refusing(1))
    const call = watch(withKey.fetch(`${api}/a`, { method, body: 'x', headers: { 'Idempotency-Key': '"1"' } }))
    await withKey.advance(100)
    expect(call.value?.status).toBe(200)
    expect(withKey.asked.map(({ init }) => init.body)).toEqual(['x', 'x'])
  })

  it('what `retry` says, and no stream, whatever it says', async () => {
    const world = createWorld(refusing(1), { retry: ({ url, method }) => url.endsWith('/search') && method === 'POST' })
    const call = watch(world.fetch(`${api}/search`, { method: 'POST', body: 'x' }))
    await world.advance(100)
    expect(call.value?.status).toBe(200)

    const stream = createWorld(refusing(1), { retry: () => true })
    const body = new Blob(['x']).stream()
    const init = { method: 'PUT', body, duplex: 'half' } as RequestInit
    expect((await stream.fetch(`${api}/a`, init)).status).toBe(429)
  })

  it('a Request with a body, which is used up then as fetch would', async () => {
    const bodies: string[] = []
    const world = createWorld(refusing(1), {
      async fetch(input) {
        bodies.push(await (input as Request).text())
        return bodies.length === 1 ? refusal(soon) : ok()
      },
    })
    const request = new Request(`${api}/a`, { method: 'PUT', body: 'hello' })
    const call = watch(world.fetch(request))
    await world.advance(100)
    expect(call.value?.status).toBe(200)
    expect(bodies).toEqual(['hello', 'hello'])
    expect(request.bodyUsed).toBe(true)
  })

  it('no request that failed on the network: it may have been served', async () => {
    const world = createWorld(() => {
      throw new TypeError('fetch failed')
    })
    await expect(world.fetch(`${api}/a`)).rejects.toThrow('fetch failed')
    expect(world.asked).toHaveLength(1)
    expect(world.timers()).toBe(0)
  })
})

describe('the retry budget', () => {
  it('ends a call that is refused for ever', async () => {
    const world = createWorld(() => refusal(soon), { retryBudget: { perCall: 3 } })
    const call = watch(world.fetch(`${api}/a`))
    await world.advance(600_000)
    expect(call.value?.status).toBe(429)
    expect(world.asked).toHaveLength(4)
  })

  it('bounds what an origin that refuses everything is asked, and is refilled by what it serves', async () => {
    let refuse = true
    const world = createWorld(() => (refuse ? refusal(soon) : ok()), { retryBudget: { reserve: 5, share: 0.5 } })
    async function refusedCalls(count: number): Promise<number> {
      const before = world.asked.length
      for (let n = 0; n < count; n += 1) {
        const call = watch(world.fetch(`${api}/a`))
        while (!call.done) await world.advance(5000)
        expect(call.value?.status).toBe(429)
      }
      return world.asked.length - before
    }
    // Each is asked, once more when it was told, and five times more among them.
    expect(await refusedCalls(20)).toBe(20 + 20 + 5)
    refuse = false
    for (let n = 0; n < 6; n += 1) {
      const call = watch(world.fetch(`${api}/a`))
      while (!call.done) await world.advance(1000)
    }
    refuse = true
    expect(await refusedCalls(10)).toBe(10 + 10 + 3)
  })

  it('of nothing still lets the first retry be, where the time was told', async () => {
    const told = createWorld(refusing(1), { retryBudget: { reserve: 0, share: 0 } })
    const call = watch(told.fetch(`${api}/a`))
    await told.advance(100)
    expect(call.value?.status).toBe(200)

    const guessed = createWorld(refusing(1, {}), { retryBudget: { reserve: 0, share: 0 } })
    expect((await guessed.fetch(`${api}/a`)).status).toBe(429)
  })
})

describe('an AbortSignal', () => {
  it('ends a wait at once, with its own reason', async () => {
    const reason = new Error('no longer needed')
    const abort = new AbortController()
    const world = createWorld(() => refusal({ 'Retry-After': '50' }))
    const call = watch(world.fetch(`${api}/a`, { signal: abort.signal }))
    await world.advance(10)
    abort.abort(reason)
    await world.advance(0)
    expect(call.error).toBe(reason)
    expect(world.timers()).toBe(0)
  })

  it('of a Request does so too, in the middle of a crowd that goes on', async () => {
    const world = createWorld(() => ok({ 'RateLimit-Policy': '"b";q=1;w=1', RateLimit: '"b";r=0;t=1' }))
    watch(world.fetch(`${api}/a`))
    await world.advance(0)
    const abort = new AbortController()
    const crowd = Array.from({ length: 5 }, (_, n) =>
      watch(world.fetch(new Request(`${api}/a`, n === 2 ? { signal: abort.signal } : {}))),
    )
    abort.abort()
    await world.advance(0)
    expect(crowd[2]!.error).toMatchObject({ name: 'AbortError' })
    await world.advance(5000)
    expect(crowd.filter(({ value }) => value?.status === 200)).toHaveLength(4)
    expect(world.asked).toHaveLength(5)
    expect(world.timers()).toBe(0)
  })

  it('shared by a crowd ends all its waits, and holds on to none that is over', async () => {
    const abort = new AbortController()
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    const world = createWorld((_, nth) =>
      nth <= 30 ? refusal({ 'retry-after-ms': '100' }) : refusal({ 'Retry-After': '50' }),
    )
    const calls = Array.from({ length: 30 }, () => watch(world.fetch(`${api}/a`, { signal: abort.signal })))
    await world.advance(50)
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(1)
    abort.abort('enough')
    await world.advance(0)
    expect(calls.map(({ error }) => error)).toEqual(Array.from({ length: 30 }, () => 'enough'))
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(0)
    process.off('warning', note)
    expect(warnings).toEqual([])

    const kept = new AbortController()
    const served = createWorld((_, nth) => (nth === 1 ? refusal(soon) : ok()))
    watch(served.fetch(`${api}/a`, { signal: kept.signal }))
    await served.advance(100)
    expect(served.asked).toHaveLength(2)
    expect(getEventListeners(kept.signal, 'abort')).toHaveLength(0)
  })

  it('that is aborted already sends nothing', async () => {
    const world = createWorld(() => ok())
    await expect(world.fetch(`${api}/a`, { signal: AbortSignal.abort('why') })).rejects.toBe('why')
    expect(world.asked).toHaveLength(0)
  })

  it('aborted by onWait ends that wait', async () => {
    const abort = new AbortController()
    const world = createWorld(() => refusal({ 'Retry-After': '50' }), { onWait: () => abort.abort('too long') })
    await expect(world.fetch(`${api}/a`, { signal: abort.signal })).rejects.toBe('too long')
    expect(world.timers()).toBe(0)
  })
})

describe('`prove`', () => {
  it('makes a proof for each attempt, for what that is sent to', async () => {
    const asked: ProofRequest[] = []
    const world = createWorld(refusing(1), {
      prove(request) {
        asked.push(request)
        return `proof.${asked.length}`
      },
    })
    const headers = { authorization: 'DPoP token-1' }
    const call = watch(world.fetch(`${api}/a?q=1#x`, { method: 'put', headers }))
    await world.advance(100)
    expect(call.value?.status).toBe(200)
    expect(world.asked.map(({ headers }) => headers.get('dpop'))).toEqual(['proof.1', 'proof.2'])
    expect(asked[0]).toEqual({
      method: 'PUT',
      url: `${api}/a?q=1#x`,
      htu: `${api}/a`,
      nonce: undefined,
      accessToken: 'token-1',
    })
  })

  it('answers a challenge for a nonce once, and remembers the newest nonce of each origin', async () => {
    const nonces: (string | undefined)[] = []
    const challenge = { 'WWW-Authenticate': 'DPoP error="use_dpop_nonce", algs="ES256"', 'DPoP-Nonce': 'n1' }
    const world = createWorld(
      ({ url }, nth) => (nth === 1 ? refusal(challenge, 401) : ok(url.includes('/next') ? { 'DPoP-Nonce': 'n2' } : {})),
      {
        prove({ nonce }) {
          nonces.push(nonce)
          return 'p'
        },
      },
    )
    expect((await world.fetch(`${api}/a`, { method: 'POST', body: 'x' })).status).toBe(200)
    await world.fetch(`${api}/next`)
    await world.fetch(`${api}/a`)
    await world.fetch('https://other.example.com/a')
    expect(nonces).toEqual([undefined, 'n1', 'n1', 'n2', undefined])
    expect(world.asked).toHaveLength(5)
  })

  it.each([
    [{ 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce': 'n1' }, 2],
    [{ 'WWW-Authenticate': 'Bearer, DPoP algs="ES256", error=use_dpop_nonce', 'DPoP-Nonce': 'n1' }, 2],
    [{ 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"' }, 1],
    [{ 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce': 'not one' }, 1],
    [{ 'WWW-Authenticate': 'DPoP error="invalid_token"', 'DPoP-Nonce': 'n1' }, 1],
    [{ 'WWW-Authenticate': 'Bearer error="use_dpop_nonce"', 'DPoP-Nonce': 'n1' }, 1],
  ])('%j is asked %i times', async (headers, times) => {
    const world = createWorld(() => refusal(headers, 401), { prove: () => 'p' })
    expect((await world.fetch(`${api}/a`)).status).toBe(401)
    expect(world.asked).toHaveLength(times)
  })

  it('may send none; without it a challenge is returned', async () => {
    const silent = createWorld(() => ok(), { prove: async () => null })
    await silent.fetch(`${api}/a`)
    expect(silent.asked[0]!.headers.has('dpop')).toBe(false)
    const challenge = { 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce': 'n1' }
    const without = createWorld(() => refusal(challenge, 401))
    expect((await without.fetch(`${api}/a`)).status).toBe(401)
    expect(without.asked).toHaveLength(1)
  })
})

describe('`pay`', () => {
  it('answers a 402 with fields, keeps them through a refusal, and reads the bill without taking it', async () => {
    const bills: Bill[] = []
    const world = createWorld(
      ({ headers }, nth) => {
        if (!headers.has('payment-signature')) return new Response('{"price":5}', { status: 402 })
        return nth === 2 ? refusal(soon) : ok()
      },
      {
        async pay(bill) {
          bills.push(bill)
          expect(await bill.response.json()).toEqual({ price: 5 })
          return { 'PAYMENT-SIGNATURE': 'paid' }
        },
      },
    )
    const call = watch(world.fetch(`${api}/a`, { method: 'PUT', body: 'x', headers: { 'x-mine': '1' } }))
    await world.advance(100)
    expect(call.value?.status).toBe(200)
    expect(bills).toHaveLength(1)
    expect([bills[0]!.request.url, bills[0]!.request.method, bills[0]!.request.headers.get('x-mine')]).toEqual([
      `${api}/a`,
      'PUT',
      '1',
    ])
    expect(world.asked.map(({ headers, init }) => [headers.get('payment-signature'), init.body])).toEqual([
      [null, 'x'],
      ['paid', 'x'],
      ['paid', 'x'],
    ])
  })

  it('is asked once a call, and may decline: the 402 is then the caller’s to read', async () => {
    let asked = 0
    const bill = (): Response => new Response('{"price":5}', { status: 402 })
    const again = createWorld(bill, { pay: () => ((asked += 1), { 'x-payment': '1' }) })
    expect((await again.fetch(`${api}/a`)).status).toBe(402)
    expect([asked, again.asked.length]).toEqual([1, 2])

    const declined = createWorld(bill, {
      async pay({ response }) {
        await response.text()
        return undefined
      },
    })
    const response = await declined.fetch(`${api}/a`)
    expect(response.status).toBe(402)
    expect(await response.json()).toEqual({ price: 5 })
    expect((await createWorld(bill).fetch(`${api}/a`)).status).toBe(402)
  })

  it('that throws fails the call', async () => {
    const world = createWorld(() => new Response(null, { status: 402 }), {
      pay() {
        throw new Error('no money')
      },
    })
    await expect(world.fetch(`${api}/a`)).rejects.toThrow('no money')
  })
})

describe('as fetch itself', () => {
  it('sends what it was given where there is nothing to add', async () => {
    const given: unknown[][] = []
    const world = createWorld(() => ok(), {
      fetch: async (...args: unknown[]) => {
        given.push(args)
        return ok()
      },
    })
    const init: RequestInit = { headers: { a: 'b' }, keepalive: true }
    const url = new URL(`${api}/a`)
    const request = new Request(`${api}/b`)
    await world.fetch(url, init)
    await world.fetch(request)
    expect(given[0]![0]).toBe(url)
    expect(given[0]![1]).toBe(init)
    expect(given[1]![0]).toBe(request)
  })

  it('leaves to fetch what is not HTTP or not valid', async () => {
    const paced = pacedFetch()
    expect(await (await paced('data:text/plain,hello')).text()).toBe('hello')
    await expect(paced('/relative')).rejects.toThrow(TypeError)
    await expect(paced(`${api}/a`, { headers: { 'not a name': 'x' } })).rejects.toThrow(TypeError)
  })

  it('takes a mistake in its options for one', () => {
    const mistakes: [unknown, string][] = [
      [{ maxwait: '1s' }, 'RAMPMETER_UNKNOWN_OPTION'],
      [{ retryBudget: { ratio: 1 } }, 'RAMPMETER_UNKNOWN_OPTION'],
      [{ maxWait: '1 s' }, 'RAMPMETER_INVALID_DURATION'],
      [{ maxWait: -1 }, 'RAMPMETER_INVALID_DURATION'],
      [{ maxWait: Number.NaN }, 'RAMPMETER_INVALID_DURATION'],
      [{ maxWait: '25h' }, 'RAMPMETER_INVALID_DURATION'],
      [{ maxWait: '2d' }, 'RAMPMETER_INVALID_DURATION'],
      [{ fetch: {} }, 'RAMPMETER_INVALID_OPTION'],
      [{ onWait: 'log' }, 'RAMPMETER_INVALID_OPTION'],
      [{ retryBudget: { perCall: 1.5 } }, 'RAMPMETER_INVALID_OPTION'],
      [{ retryBudget: { share: -1 } }, 'RAMPMETER_INVALID_OPTION'],
      [{ retryBudget: 3 }, 'RAMPMETER_INVALID_OPTION'],
      [{ payBudget: { usd: { total: 5 } } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { credits: 5 } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { usd: { total: 5, perCall: 6 } } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { usd: { total: 0.5 } } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { usd: { total: '-5' } } }, 'RAMPMETER_INVALID_OPTION'],
      // Units that no payment has.
      [{ pay: () => null, payBudget: { 'eip155:8453/usdc': { total: 5 } } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { [`base/0x${'8'.repeat(40)}`]: { total: 5 } } }, 'RAMPMETER_INVALID_OPTION'],
      [{ pay: () => null, payBudget: { usd: { total: 5, perRequest: 5 } } }, 'RAMPMETER_UNKNOWN_OPTION'],
      [null, 'RAMPMETER_INVALID_OPTION'],
    ]
    for (const [options, code] of mistakes) {
      let caught: unknown
      try {
        pacedFetch(options as object)
      } catch (error) {
        caught = error
      }
      expect(caught).toBeInstanceOf(RampmeterError)
      expect({ options, caught }).toMatchObject({ options, caught: { code } })
    }
    for (const maxWait of [0, 5000, '250ms', '1.5s', '2m', '24h', '1d'] as const) pacedFetch({ maxWait })
  })
})
