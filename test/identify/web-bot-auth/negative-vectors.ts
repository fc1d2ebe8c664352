// Requests that must not verify: https://github.com/ParallaxGrain/webbotauth-negative-vectors, commit
// 2a31101afea6d8254aa617a0b6c04ef5ed3fdf5b. Each is a GET of https://example.com/, a minute after it was signed with the key of
// RFC 9421 appendix B.1.4, unless it says something else. The directory of https://signature-agent.test holds that key.

export interface NegativeVector {
  readonly id: string
  readonly title: string
  /** What a verifier concludes; `unverified` is what it cannot decide. */
  readonly outcome: 'invalid' | 'unverified'
  readonly now: number
  readonly method: string
  readonly fields: Readonly<Record<string, string>>
  /** Our word for its defect; null where we do not see it. */
  readonly reason: string | null
}

const signedAMinuteAgo = 1735689660
const agent = 'sig1="https://signature-agent.test"'

export const negativeVectors: readonly NegativeVector[] = [
  {
    id: 'NV-01',
    title: 'Signature covers no request target',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:OfqFF7JEZnSAkthXM22HF3Ghlrslj4CHN1ZO9HMaOlf4rCCCSHcaQT82AtaWrXV0avoXjS4A7LJUMkdamFXLCg==:',
    },
    reason: 'it does not cover the host',
  },
  {
    id: 'NV-03',
    title: 'Signature-Input omits a required parameter',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";tag="web-bot-auth"',
      Signature: 'sig1=:vwMiAiACovfQ9Cnj5b145eU183Ce2YGO02p+H5n/86NQiOeaZPLmiA1Cry2TUqmj+uAqzw5pHvLu33Q4dRS1CQ==:',
    },
    reason: 'it does not say created and expires',
  },
  {
    id: 'NV-04',
    title: 'Signature expired before the request arrived',
    outcome: 'invalid',
    now: 1735696800,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=1735693200;tag="web-bot-auth"',
      Signature: 'sig1=:PGCXcZbx5FaCr8JzBK0Rcs/h+eV0s+o6JhsQpiWfoBZnvREvjbmZexFna9jGiNfvbXfZ4Q/nO7wDc9RJzF8SDw==:',
    },
    reason: 'it has expired',
  },
  {
    id: 'NV-05',
    title: "Signature is dated in the signer's future",
    outcome: 'invalid',
    now: 1735686000,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:JE1yD+mpEKRsD1jC6gpbZXXFMoupdDH6EEwU1+QKgwDGXftEABdV3XbSANQzNQxU7UtgavuSgunABEfoHBxtDQ==:',
    },
    reason: 'it is from the future',
  },
  {
    id: 'NV-06',
    title: 'Signature does not verify against the published key',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:tlN1YC7fkMH5W7SBtB/uwrm65jP8d1la9pAPxphRsBrR+dAYAEPF+BVvJpX8oIf7DJZrsAaq65Iil6YdKCuGDg==:',
    },
    reason: 'it does not verify',
  },
  {
    id: 'NV-07',
    title: 'Signer wrote an empty @path where the rule requires a single slash',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "@path" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:gVyV1O4BnincHcl/dIHWUaGagmEldaC7JN4KtkCsRtbOGwxrRJTdm0HHyKBcOYW3uA4R7FjcdaERQBbDJSzRAg==:',
    },
    reason: 'it does not verify',
  },
  {
    id: 'NV-08',
    title: 'Covered Content-Digest does not match the body sent',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'POST',
    fields: {
      'Signature-Agent': agent,
      'Content-Digest': 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:',
      'Signature-Input':
        'sig1=("@authority" "content-digest" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:6xuRq2Nf1ZbzTCosEy2cFaQ6Nx/NzDjCzlbEN4uqnEhkp3iNLr8xrTFc+vdPWtqTq+FAVHzPoGPDbL7m6y9eCw==:',
    },
    reason: null,
  },
  {
    id: 'NV-09',
    title: 'Signature covers a component the request does not carry',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "content-digest" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:6xuRq2Nf1ZbzTCosEy2cFaQ6Nx/NzDjCzlbEN4uqnEhkp3iNLr8xrTFc+vdPWtqTq+FAVHzPoGPDbL7m6y9eCw==:',
    },
    reason: 'it covers a field that did not come',
  },
  {
    id: 'NV-10',
    title: 'Signature-Input is not a readable structured field',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1";created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:JE1yD+mpEKRsD1jC6gpbZXXFMoupdDH6EEwU1+QKgwDGXftEABdV3XbSANQzNQxU7UtgavuSgunABEfoHBxtDQ==:',
    },
    reason: 'Signature-Input is not a Dictionary',
  },
  {
    id: 'NV-11',
    title: 'Signature has no member matching the Signature-Input label',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig9=:JE1yD+mpEKRsD1jC6gpbZXXFMoupdDH6EEwU1+QKgwDGXftEABdV3XbSANQzNQxU7UtgavuSgunABEfoHBxtDQ==:',
    },
    reason: 'Signature has no member for it',
  },
  {
    id: 'NV-19',
    title: 'The same component identifier is covered twice',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': agent,
      'Signature-Input':
        'sig1=("@authority" "@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:pI8eHSuMEPbVLPtEQK368TDMssBWtvsVc6NCuQyp1T6oMnk/Pkpxc4yJhm/kzHLNwqelACukRNMMgh0/FqtFBA==:',
    },
    reason: 'it covers a component twice',
  },
  {
    id: 'NV-12',
    title: 'Signed request carries no Signature-Agent header',
    outcome: 'unverified',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Input':
        'sig1=("@authority");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:emtWW7ctXrq/Jxc/GrRNbHSTol22e5tabmwNFjtFnpl62D/XwZuJNpa4dUhOmI5Q3pYJNxMkA3bnLBUnm8xzBQ==:',
    },
    reason: 'no Signature-Agent says by whom',
  },
  {
    id: 'NV-13',
    title: 'Several Signature-Agent members and none matches this signature',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': 'first="https://signature-agent.test", second="https://other-agent.test"',
      'Signature-Input':
        'sig1=("@authority" "signature-agent");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:+1vomCIkcZg+3SGgA/XX2FFlS13bVmSPQjBgCclNhatOKs08sckrIx723RIJ/gTAJPGvXfnP3O6W70q41C+BDg==:',
    },
    reason: 'it does not cover its own member of Signature-Agent',
  },
  {
    id: 'NV-14',
    title: 'Signature covers a Signature-Agent member the header does not contain',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': 'other="https://signature-agent.test"',
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:JE1yD+mpEKRsD1jC6gpbZXXFMoupdDH6EEwU1+QKgwDGXftEABdV3XbSANQzNQxU7UtgavuSgunABEfoHBxtDQ==:',
    },
    reason: 'it covers a member that Signature-Agent does not have',
  },
  {
    id: 'NV-16',
    title: 'Signature-Agent names an http address',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': 'sig1="http://signature-agent.test"',
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:Mwv2BtF7JrgdsyTdpxNJzjc7BMWu0IvufR7FjzCJaYx1VZFDvSFvqnCyHQOBpH5HUmGfMmZHwmp2LAKsFt6cCA==:',
    },
    reason: 'its Signature-Agent is no https URL of a directory',
  },
  {
    id: 'NV-17',
    title: 'Directory-type Signature-Agent carries a path',
    outcome: 'unverified',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': 'sig1="https://signature-agent.test/keys"',
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:vIPkgnOG178b20lu4tMkGgyEPpsAOOFODichdLIrrNt0Y/KMQtoLxWrODh4srzzLySJtihrYgoP4bLWV+jweDw==:',
    },
    reason: 'the directory cannot be had',
  },
  {
    id: 'NV-18',
    title: 'Signature-Agent is not a readable structured field',
    outcome: 'invalid',
    now: signedAMinuteAgo,
    method: 'GET',
    fields: {
      'Signature-Agent': 'sig1="https://signature-agent.test',
      'Signature-Input':
        'sig1=("@authority" "signature-agent";key="sig1");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;tag="web-bot-auth"',
      Signature: 'sig1=:JE1yD+mpEKRsD1jC6gpbZXXFMoupdDH6EEwU1+QKgwDGXftEABdV3XbSANQzNQxU7UtgavuSgunABEfoHBxtDQ==:',
    },
    reason: 'Signature-Agent is not a Dictionary',
  },
]
