import type { Attempts } from '../../src/identify/verifier.ts'

/** Lets a verifier do all its work, at once: what attempts cost is tested with them. */
export const unlimited: Attempts = { address: 'ip:192.0.2.1', check: (_credential, work) => work() }
