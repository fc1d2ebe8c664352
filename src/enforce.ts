import { createHash } from 'node:crypto'
import type { Client } from './client.ts'

/**
 * Makes what tells whether a client's decisions are obeyed, or only told (shadow). With a share, it is the same clients always:
 * nobody is limited on one request and not on the next.
 */
export function createEnforcement(
  mode: 'enforce' | 'shadow',
  percent: number,
): (client: Pick<Client, 'id'>) => boolean {
  if (mode === 'shadow' || percent === 0) return () => false
  if (percent === 100) return () => true
  return ({ id }) => {
    const share = createHash('sha256').update(id).digest().readUInt32BE() / 2 ** 32
    return share * 100 < percent
  }
}
