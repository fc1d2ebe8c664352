import { randomBytes } from 'node:crypto'
import type { Request } from 'express'
import type { AttemptLimit } from './attempts.ts'
import type { Ruling } from './decide.ts'
import { LRUCache } from 'lru-cache'
import { RampmeterError } from './errors.ts'
import type { Identified } from './identify/identify.ts'
import type { SingleUse } from './identify/verifier.ts'
import { createNotes } from './notes.ts'
import { fnv1a } from './policies/build.ts'
import { slidingWindow } from './policies/sliding-window.ts'
import type { Charge, Charged } from './stores/store.ts'

/**
 * What goes with a request's policies into the same decision: the proofs that it uses up, and the wrong credentials that it
 * showed, which other processes learn of by that.
 */
export interface Beside {
  readonly charges: readonly Charge[]
  /** What a limiter further out has taken of it: given back in the same step, so that a refusal leaves it unused. */
  readonly undo: readonly Charged[]
  /** A proof that this process itself has seen used. */
  readonly spent?: SpentProof | undefined
  /** Says which proof was used up before, or why it cannot be told; otherwise learns what the store knows of the address. */
  read(ruling: Ruling): SpentProof | undefined
}

/** Why a proof was not taken. */
export type SpentProof =
  | { readonly why: 'used'; readonly name: string; readonly challenge: string }
  | { readonly why: 'full'; readonly error: RampmeterError }

const nothingBeside: Beside = { charges: [], undo: [], read: () => undefined }

/** Of what this process itself has seen used, so much is remembered; the store remembers all. */
const rememberedProofs = 50_000

const processId = randomBytes(9).toString('base64url')
let requests = 0

/** Tells requests apart, in all processes: who used up a proof may show it again, to a limiter further in. */
const idOfRequest = createNotes<Request, string>()

function idOf(req: Request): string {
  let id = idOfRequest.get(req)
  if (id === undefined) {
    requests += 1
    id = `${processId}.${requests.toString(36)}`
    idOfRequest.set(req, id)
  }
  return id
}

/**
 * Makes what tells what goes beside a request's policies.
 *
 * @param attempts what this process knows of failed proofs
 * @param failures how many an address may show
 */
export function createBeside(
  attempts: AttemptLimit,
  failures: { readonly quota: number; readonly windowMs: number },
): (req: Request, identified: Identified, takesProofs: boolean, again: boolean) => Beside {
  const { quota, windowMs } = failures
  // A name that no policy of an app is likely to have, since they would share a counter.
  const { stateId } = slidingWindow({ name: '@failed proofs', quota, window: windowMs })
  // What was used with the store is not taken again without it, nor the other way round.
  let usedHere: LRUCache<string, string> | undefined

  function isUsedByAnother({ name }: SingleUse, holder: string): boolean {
    const user = usedHere?.get(name)
    return user !== undefined && user !== holder
  }

  function remember(singleUses: readonly SingleUse[], holder: string): void {
    usedHere ??= new LRUCache({ max: rememberedProofs })
    for (const { name, lastsMs } of singleUses) usedHere.set(name, holder, { ttl: Math.max(1, lastsMs) })
  }

  function ofFailures(partition: string, cost: number): Charge {
    return {
      kind: 'sliding-window',
      stateId,
      partition,
      windowUs: windowMs * 1000,
      quota,
      capacity: quota,
      cost,
      liftable: false,
      // It tells how many there were; who is looked at is decided before there is anything to charge.
      shadow: true,
    }
  }

  function forget(singleUses: readonly SingleUse[]): void {
    for (const { name } of singleUses) usedHere?.delete(name)
  }

  /**
   * @param takesProofs false for a request that is refused anyway
   * @param again a limiter further out has decided about it
   */
  return function besideOf(req, identified, takesProofs, again) {
    if (again) return besideOfAgain(req, identified, takesProofs)
    const singleUses = identified.outcome === 'known' && takesProofs ? identified.singleUses : []
    const failed = identified.failures
    if (singleUses.length === 0 && failed === 0) return nothingBeside
    const { id, address } = identified.client
    const holder = singleUses.length === 0 ? '' : idOf(req)
    const known = singleUses.find((proof) => isUsedByAnother(proof, holder))
    if (known !== undefined) return { ...nothingBeside, spent: { why: 'used', ...known } }
    const charges = singleUses.map((proof) => ofProof(proof, id, holder))
    if (failed > 0) charges.push(ofFailures(address, Math.min(failed, quota)))
    return {
      charges,
      undo: [],
      read({ beside, admitted }) {
        const spent = spentOf(singleUses, beside)
        if (spent !== undefined) return spent
        if (admitted && singleUses.length > 0) remember(singleUses, holder)
        const told = failed > 0 ? beside[singleUses.length] : undefined
        if (told !== undefined && told.remaining === 0) attempts.learn(address, (told.waitUs ?? 0) / 1000)
        return undefined
      },
    }
  }

  /** The proofs that a limiter further out has taken are taken once more, by the same request: what is refused here is not used up. */
  function besideOfAgain(req: Request, identified: Identified, takesProofs: boolean): Beside {
    const singleUses = identified.outcome === 'known' ? identified.singleUses : []
    if (singleUses.length === 0) return nothingBeside
    const holder = idOf(req)
    const proofs = singleUses.map((proof) => ofProof(proof, identified.client.id, holder))
    return {
      charges: takesProofs ? proofs : [],
      undo: proofs.map((charge) => ({ charge, cost: 1, chargedAtUs: 0 })),
      read({ beside, admitted }) {
        const spent = takesProofs ? spentOf(singleUses, beside) : undefined
        if (spent === undefined && admitted && takesProofs) remember(singleUses, holder)
        else if (spent === undefined) forget(singleUses)
        return spent
      },
    }
  }
}

/** Which proof was used up before, or that no further one is taken. */
function spentOf(singleUses: readonly SingleUse[], beside: Ruling['beside']): SpentProof | undefined {
  const index = singleUses.findIndex((_, at) => beside[at]?.verdict === 'refused')
  if (index === -1) return undefined
  return beside[index]!.waitUs === null ? { why: 'used', ...singleUses[index]! } : { why: 'full', error: fullError() }
}

function ofProof({ name, lastsMs }: SingleUse, partition: string, holder: string): Charge {
  return {
    kind: 'single-use',
    stateId: fnv1a(name),
    partition,
    windowUs: Math.max(1, Math.ceil(lastsMs)) * 1000,
    quota: 1,
    capacity: 1,
    cost: 1,
    members: [name, holder],
    liftable: false,
    shadow: false,
  }
}

function fullError(): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_PROOFS_FULL',
    'the memory store remembers as many proofs as it may, so no further one is taken until some have ended; give it a larger `maxKeys`, or use redisStore',
  )
}
