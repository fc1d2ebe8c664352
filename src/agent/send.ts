// Sends a call once, with what we add to it. What we add is for one server: fetch would take it along on a redirect to another
// origin, so a call that carries a ticket or a payment has its redirects followed here, without them.

import { bodyHolder, type Call } from './call.ts'
import { proofRequest, type PaymentFields, type ProveHook } from './challenges.ts'
import { discard } from './discard.ts'

/** What is added to a call. */
export interface Additions {
  readonly ticket: string | undefined
  readonly payment: PaymentFields | undefined
  readonly prove: ProveHook | undefined
  readonly nonce: string | undefined
}

/** @param again whether it may have to be sent once more, so that a Request's body must not be used up */
export async function send(
  call: Call,
  { ticket, payment, prove, nonce }: Additions,
  again: boolean,
  fetch: typeof globalThis.fetch,
): Promise<Response> {
  const headers = new Headers(call.headers)
  new Headers(payment).forEach((value, name) => headers.set(name, value))
  if (ticket !== undefined) headers.set('RateLimit-Ticket', ticket)
  const proven = await addProof(call.method, call.url, headers, prove, nonce)

  const input = (again ? bodyHolder(call)?.clone() : undefined) ?? call.input
  const added = ticket !== undefined || payment !== undefined
  if (!added && !proven) return fetch(input, call.init)
  if (!added || call.redirect !== 'follow') return fetch(input, { ...call.init, headers })

  const response = await fetch(input, { ...call.init, headers, redirect: 'manual' })
  if (response.type === 'opaqueredirect') {
    // A browser does not say where to. The ticket has been seen; what has been paid must not be asked for twice.
    if (payment !== undefined) return response
    return send(call, { ticket: undefined, payment, prove, nonce }, again, fetch)
  }
  const location = redirectOf(response)
  if (location === null) return response
  void discard(response)
  return follow(call, response.status, location, headers, { payment, prove, nonce }, fetch)
}

/** A spent ticket and a payment stay behind; a proof is made anew; credentials go to their own origin only. */
async function follow(
  call: Call,
  status: number,
  location: string,
  headers: Headers,
  { payment, prove, nonce }: Omit<Additions, 'ticket'>,
  fetch: typeof globalThis.fetch,
): Promise<Response> {
  const url = new URL(location, call.url)
  if (!/^https?:$/.test(url.protocol)) throw new TypeError('fetch failed: it was redirected to what is not HTTP')
  new Headers(payment).forEach((_, name) => headers.delete(name))
  for (const name of ['ratelimit-ticket', 'dpop']) {
    const own = call.headers.get(name)
    if (own === null) headers.delete(name)
    else headers.set(name, own)
  }
  const rewritten = status === 303 ? !/^(GET|HEAD)$/.test(call.method) : status < 303 && call.method === 'POST'
  const method = rewritten ? 'GET' : call.method
  if (rewritten) {
    for (const name of ['encoding', 'language', 'length', 'location', 'type']) headers.delete(`content-${name}`)
  }
  if (url.origin === call.url.origin) await addProof(method, url, headers, prove, nonce)
  else for (const name of ['authorization', 'proxy-authorization', 'cookie', 'host']) headers.delete(name)
  const body = rewritten ? null : (call.init?.body ?? (await bodyHolder(call)?.clone().arrayBuffer()) ?? null)
  const init: RequestInit = { ...call.init, method, headers, body, redirect: 'follow' }
  if (call.signal !== undefined) init.signal = call.signal
  return fetch(url.href, init)
}

/** @see [Fetch, redirect status](https://fetch.spec.whatwg.org/#redirect-status) */
function redirectOf(response: Response): string | null {
  return [301, 302, 303, 307, 308].includes(response.status) ? response.headers.get('location') : null
}

async function addProof(
  method: string,
  url: URL,
  headers: Headers,
  prove: ProveHook | undefined,
  nonce: string | undefined,
): Promise<boolean> {
  const proof = await prove?.(proofRequest(method, url, headers, nonce))
  if (proof === undefined || proof === null) return false
  headers.set('DPoP', proof)
  return true
}
