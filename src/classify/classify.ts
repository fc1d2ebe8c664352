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
    const { namedTier, provesKey, ...known } = identified
    const tier = onlyTier ?? namedTier ?? presetTierOf({ ...known, provesKey })
    const client: Client = { ...known, tier }
    return classify === undefined ? client : { ...client, tier: await classify(req, client) }
  }
}
