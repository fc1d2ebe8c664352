export { pacedFetch } from './paced-fetch.ts'
export type { PacedFetchOptions, RetryBudgetOptions, Wait, WaitDuration, WaitReason } from './options.ts'
export type { Allowance, PayBudget } from './spending.ts'
export type { Bill, PayHook, PaymentFields, ProofRequest, ProveHook } from './challenges.ts'
