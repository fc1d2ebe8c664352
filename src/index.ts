export { rampmeter } from './rampmeter.ts'
export { RampmeterError, type ErrorCode } from './errors.ts'

export type { AgentHint, Client, ClientKind } from './client.ts'
export type { Decision, LimitStatus, RefusalReason } from './decision.ts'
export type { Duration } from './duration.ts'
export type { DecideRequest, Limiter, RouteMiddleware } from './limiter.ts'
export type { LimiterOptions, RouteCost, RouteOptions, RouteTarget } from './options.ts'
export type {
  Amount,
  Cost,
  OnStoreError,
  Partition,
  Policy,
  PolicyKind,
  PolicyOptions,
  WindowPolicyOptions,
} from './policy.ts'
export type { InitialBurst, PoolOptions, PresetTier, TierOptions } from './tier.ts'

export { concurrency, type ConcurrencyOptions } from './policies/concurrency.ts'
export { failures, type FailuresOptions } from './policies/failures.ts'
export { fixedWindow, type FixedWindowOptions } from './policies/fixed-window.ts'
export { slidingLog } from './policies/sliding-log.ts'
export { slidingWindow } from './policies/sliding-window.ts'
export { uniqueTargets, type UniqueTargetsOptions } from './policies/unique-targets.ts'
export { tokenBucket, type TokenBucketOptions } from './policies/token-bucket.ts'

export { apiKey, type ApiKeyOptions } from './identify/api-key.ts'
export { session, type SessionSubject } from './identify/session.ts'
export type { Subject } from './identify/subject.ts'
export type { Identity, Verification, Verifier } from './identify/verifier.ts'

export {
  presetClassifier,
  presetTiers,
  type PresetClassifierOptions,
  type PresetTiersOptions,
} from './classify/presets.ts'

export { memoryStore, type MemoryStoreOptions } from './stores/memory.ts'
export { redisStore, type RedisStoreOptions } from './stores/redis/redis-store.ts'
export type { ClusterClient, RedisClient } from './stores/redis/client.ts'
export type {
  Charge,
  Charged,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  OpenStore,
  Store,
  StoreDecision,
  StoreSettings,
  Verdict,
} from './stores/store.ts'

export type { HeaderFamily } from './respond/fields.ts'
export type { Problem, ProblemErrorType } from './respond/problem.ts'
export type { RefusalHandler } from './respond/refuse.ts'
export type { DecisionMessage, DegradedMessage } from './observe/channels.ts'
