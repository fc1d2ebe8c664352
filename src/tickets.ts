import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Client } from './client.ts'
import { observeTicket, type TicketFailure } from './observe/channels.ts'
import { holderOf, type PricedPolicy } from './price.ts'
import type { ShownTicket, TicketAnswer, TicketTerms } from './stores/store.ts'

export interface TicketDeskOptions {
  /** How much of a policy's quota may be reserved. */
  readonly share: number
  readonly horizonMs: number
  /** The first signs; each of them is accepted. */
  readonly secrets: readonly string[]
  /** Hears what became of each ticket that was shown. */
  readonly onShown?: (client: Client, became: ShownTicket | TicketFailure) => void
}

/** Who asks, and for what: what a ticket is good for. */
export interface TicketBearer {
  readonly client: Client
  /** Of the key that the client proved to hold. */
  readonly thumbprint: string | undefined
  readonly priced: readonly PricedPolicy[]
}

/** What is asked of the store, and how its answer is read. */
export interface AskedTicket {
  readonly terms: TicketTerms
  /**
   * Reads the store's answer: tells who listens of a ticket that came to nothing.
   *
   * @returns the ticket that the client is told now, if it is refused: a new one, or the one that it showed too early
   */
  read(answer: TicketAnswer | undefined): string | undefined
}

/** A ticket's parts, in bytes: version, id, slot; then what it is good for, and the signature over all before it, as cut HMACs. */
const [version, idSize, slotSize, hashSize] = [1, 6, 7, 16]
const head = 1 + idSize + slotSize
const size = head + 2 * hashSize

/** All of it, in base64url: nothing longer is read. */
const wellFormed = new RegExp(`^[\\w-]{${Math.ceil((size * 4) / 3)}}$`)

/**
 * Makes what issues tickets and reads those that are shown.
 *
 * A ticket is opaque to its holder. It names a reservation in the store and its slot, and is good for one client, one key where the
 * client proved to hold one, and the same charges; all of that stands in it as a keyed hash. What is wrong with it is found here,
 * before the store is asked.
 */
export function createTickets({
  share,
  horizonMs,
  secrets,
  onShown,
}: TicketDeskOptions): (bearer: TicketBearer, shown?: unknown) => AskedTicket {
  const horizonUs = horizonMs * 1000

  return function ask(bearer, shown) {
    const id = randomBytes(idSize).readUIntBE(0, idSize) || 1
    const read = shown === undefined ? undefined : readTicket(shown, bearer, secrets)
    return {
      terms: {
        share,
        horizonUs,
        id,
        client: holderOf(bearer.client.id),
        shown: typeof read === 'object' ? read : undefined,
      },
      read(answer) {
        const became = answer?.shown
        const why = typeof read === 'string' ? read : became
        if (why === 'forged' || why === 'foreign' || why === 'lapsed' || why === 'used')
          observeTicket(bearer.client, why)
        if (why !== undefined) onShown?.(bearer.client, why)
        if (became === 'early') return shown as string
        const slotUs = answer?.reservedUs
        return slotUs === undefined ? undefined : signTicket(id, slotUs, bearer, secrets[0]!)
      },
    }
  }
}

function signTicket(id: number, slotUs: number, bearer: TicketBearer, secret: string): string {
  const ticket = Buffer.alloc(head)
  ticket.writeUInt8(version)
  ticket.writeUIntBE(id, 1, idSize)
  // Of seven bytes Node writes six at a time.
  ticket.writeUInt8(Math.floor(slotUs / 2 ** 48), 1 + idSize)
  ticket.writeUIntBE(slotUs % 2 ** 48, 2 + idSize, slotSize - 1)
  const signed = Buffer.concat([ticket, digest(secret, 'ticket for', nameOf(bearer))])
  return Buffer.concat([signed, digest(secret, 'ticket', signed)]).toString('base64url')
}

function readTicket(
  text: unknown,
  bearer: TicketBearer,
  secrets: readonly string[],
): NonNullable<TicketTerms['shown']> | 'forged' | 'foreign' {
  if (typeof text !== 'string' || !wellFormed.test(text)) return 'forged'
  const ticket = Buffer.from(text, 'base64url')
  // Base64url has spare bits in its last character: only one way to write a ticket is right.
  if (ticket.length !== size || ticket[0] !== version || ticket.toString('base64url') !== text) return 'forged'
  const signed = ticket.subarray(0, size - hashSize)
  const secret = secrets.find((one) => timingSafeEqual(digest(one, 'ticket', signed), ticket.subarray(size - hashSize)))
  if (secret === undefined) return 'forged'
  if (!timingSafeEqual(digest(secret, 'ticket for', nameOf(bearer)), signed.subarray(head))) return 'foreign'
  const slotUs = ticket.readUInt8(1 + idSize) * 2 ** 48 + ticket.readUIntBE(2 + idSize, slotSize - 1)
  return { id: ticket.readUIntBE(1, idSize), slotUs }
}

/** What a ticket is good for: the same client with the same key, the same counters and the same cost in each. */
function nameOf({ client, thumbprint = '', priced }: TicketBearer): string {
  const charges = priced.map(({ charge: { stateId, partition, cost } }) => [stateId, partition, cost])
  return JSON.stringify([client.id, thumbprint, charges])
}

function digest(secret: string, use: string, text: string | Buffer): Buffer {
  return createHmac('sha256', secret).update(`${use}\n`).update(text).digest().subarray(0, hashSize)
}
