import type { Request } from 'express'
import type { Client, IdentifiedClient } from '../client.ts'
import { presetTierOf } from './presets.ts'

export interface ClassifierOptions {
  /** The tier of everybody, where there is only one. */
  readonly onlyTier: string | undefined
  /** The app's own answer; it is shown what the presets would say. */
  readonly classify: ((req: Request, client: Client) => string | Promise<string>) | undefined
}

/** Makes what puts a client in a tier: the only one there is, else what `classify` says, else its credential, else the presets. */
export function createClassifier({
  onlyTier,
  classify,
}: ClassifierOptions): (req: Request, identified: IdentifiedClient) => Promise<Client> {
  return async function classifyRequest(req: Request, identified: IdentifiedClient): Promise<Client> {
    const client = clientIn(onlyTier ?? identified.namedTier ?? presetTierOf(identified), identified)
    return classify === undefined ? client : clientIn(await classify(req, client), identified)
  }
}

/** One by one: what is left of an object when some of it is taken out is slow to make, and slow to read for good. */
function clientIn(tier: string, identified: IdentifiedClient): Client {
  return {
    id: identified.id,
    kind: identified.kind,
    tier,
    provedBy: identified.provedBy,
    confidence: identified.confidence,
    reasons: identified.reasons,
    claims: identified.claims,
    address: identified.address,
    hint: identified.hint,
  }
}
