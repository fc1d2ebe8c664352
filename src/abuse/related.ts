import type { Incident, Suspect } from './incidents.ts'

/** Another incident that tells of the same conduct. */
export interface RelatedIncident {
  readonly id: string
  readonly clientId: string
}

/**
 * Incidents at about the same time: of the same client, of any label; and with the same label of the accounts behind an address, or of the
 * address of an account.
 */
export function relatedTo(incident: Incident, others: Iterable<Incident>, quietMs: number): RelatedIncident[] {
  const related: RelatedIncident[] = []
  for (const other of others) {
    if (other.id === incident.id) continue
    const isBehind = isBehindOf(other, incident) || isBehindOf(incident, other)
    const isSame = other.client.id === incident.client.id || (isBehind && other.label === incident.label)
    const overlaps = other.lastSeen + quietMs >= incident.firstSeen && incident.lastSeen + quietMs >= other.firstSeen
    if (isSame && overlaps) related.push({ id: other.id, clientId: other.client.id })
  }
  return related
}

/**
 * Of an address, the account's incident that says all that this one does: that account is alone behind it. Undefined where there is
 * none: several accounts at one address, and strangers there, are more than any of them.
 */
export function repeatedBy(suspect: Suspect, related: readonly RelatedIncident[]): RelatedIncident | undefined {
  if (!isOfOneAccount(suspect)) return undefined
  return related.find(({ clientId }) => clientId === suspect.accounts[0])
}

/** Whether one account did all that an address is suspected of. */
export function isOfOneAccount({ accounts, itself }: Suspect): boolean {
  return !itself && accounts.length === 1
}

function isBehindOf(account: Incident, address: Incident): boolean {
  return address.client.accounts?.includes(account.client.id) === true
}
