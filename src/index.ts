export { rampmeter } from './rampmeter.ts'
export { RampmeterError, type ErrorCode } from './errors.ts'

export { adaptive, type Adaptive, type AdaptiveOptions } from './adaptive/adaptive.ts'
export type { AdaptiveHealth } from './adaptive/adaptivity.ts'
export { gradient, type GradientController, type GradientOptions } from './adaptive/gradient.ts'
export type { Health } from './adaptive/health.ts'
export {
  presetLevels,
  type IdleLevel,
  type LevelName,
  type LevelOptions,
  type Levels,
  type TroubledLevel,
} from './adaptive/levels.ts'
export type { Sample } from './adaptive/sample.ts'

export type { AgentHint, Client, ClientKind } from './client.ts'
export type { Decision, LimitStatus, RefusalReason } from './decision.ts'
export type { Duration } from './duration.ts'
export type { DecideRequest, Limiter, LimiterHealth, RouteMiddleware } from './limiter.ts'
export type { ReadyOptions } from './ready.ts'
export type { LimiterOptions, RouteCost, RouteOptions, RouteTarget, TicketOptions } from './options.ts'
export type {
  Amount,
  Cost,
  OnStoreError,
  Partition,
  Policy,
  PolicyKind,
  PolicyOptions,
  Prefetch,
  WindowPolicyOptions,
} from './policy.ts'
export type { InitialBurst, PoolOptions, PresetTier, TierAdaptivity, TierOptions } from './tier.ts'

export { concurrency, type ConcurrencyOptions } from './policies/concurrency.ts'
export { failures, type FailuresOptions } from './policies/failures.ts'
export {
  fixedWindow,
  type EqualWindowOptions,
  type FixedWindowOptions,
  type MonthWindowOptions,
} from './policies/fixed-window.ts'
export { slidingLog } from './policies/sliding-log.ts'
export { slidingWindow } from './policies/sliding-window.ts'
export { uniqueTargets, type UniqueTargetsOptions } from './policies/unique-targets.ts'
export { tokenBucket, type TokenBucketOptions } from './policies/token-bucket.ts'

export { apiKey, type ApiKeyOptions } from './identify/api-key.ts'
export { attestation, type AttestationOptions } from './identify/attestation.ts'
export { bearer } from './identify/bearer.ts'
export { dpop, type DpopOptions } from './identify/dpop.ts'
export { introspect, type IntrospectOptions } from './identify/introspect.ts'
export type { JsonWebKeySet, KeyFunction, KeySource } from './identify/key-source.ts'
export { mtls, type MtlsOptions } from './identify/mtls.ts'
export type { ProofOptions } from './identify/proof.ts'
export {
  protectedResource,
  type ProtectedResourceHandler,
  type ProtectedResourceOptions,
} from './identify/protected-resource.ts'
export type { TokenOptions } from './identify/tokens.ts'
export type { TrustedProxies } from './identify/trusted-proxies.ts'
export type { WebBotAuthOptions } from './identify/web-bot-auth/options.ts'
export { webBotAuth } from './identify/web-bot-auth/web-bot-auth.ts'
export { session, type SessionSubject } from './identify/session.ts'
export type { Subject } from './identify/subject.ts'
export type { Attempts, Identity, LimitedVerification, SingleUse, Verification, Verifier } from './identify/verifier.ts'

export {
  presetClassifier,
  presetTiers,
  type PresetClassifierOptions,
  type PresetTiersOptions,
} from './classify/presets.ts'

export { presetSignals } from './abuse/signals.ts'
export { presetLadder } from './abuse/ladder.ts'
export {
  cloudflare,
  fastly,
  type Environment,
  type EnvironmentFields,
  type EnvironmentReader,
} from './abuse/environment.ts'
export type { AbuseOptions } from './abuse/options.ts'
export type { ReportAbout, ReportedSignal } from './abuse/abuse.ts'
export type { CloudflareItem, Edge, EdgeEntry, FastlyBatch } from './abuse/edge.ts'
export type { Incident, IncidentFilter } from './abuse/incidents.ts'
export type { RelatedIncident } from './abuse/related.ts'
export type { StepCounts } from './abuse/step-counts.ts'
export type { AuditEntry, Moment, Review, ReviewCase, ReviewedClient } from './abuse/review.ts'
export type {
  ConductEvent,
  ConductRules,
  IncidentLabel,
  Ladder,
  LadderStep,
  Observation,
  Observed,
  RulingChange,
  Signal,
  SignalName,
  StandingQuery,
  Standings,
  Step,
} from './standing.ts'

export { memoryStore, type MemoryStoreOptions } from './stores/memory.ts'
export { redisStore, type RedisStoreOptions } from './stores/redis/redis-store.ts'
export type { ClusterClient, RedisClient } from './stores/redis/client.ts'
export type { StoreName } from './store-name.ts'
export type {
  Caller,
  Charge,
  Charged,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  OpenStore,
  PromiseSpan,
  ShownTicket,
  Store,
  StoreDecision,
  StoreSettings,
  TicketAnswer,
  TicketTerms,
  Verdict,
} from './stores/store.ts'

export { creditLedger } from './payments/credit-ledger.ts'
export type {
  CreditBalance,
  CreditHold,
  CreditLedger,
  CreditLedgerOptions,
  GrantOptions,
  HistoryEntry,
  HistoryOptions,
  HoldOptions,
  IdempotencyOptions,
  LedgerAudit,
  LedgerMovement,
} from './payments/ledger.ts'
export {
  stripe,
  type StripeClient,
  type StripeDispute,
  type StripeOffer,
  type StripeOptions,
  type StripePaymentIntent,
  type StripeProvider,
} from './payments/stripe.ts'
export { stripeCredits, type StripeCreditsOptions } from './payments/stripe-credits.ts'
export type { StripeEvent, WebhookHandler } from './payments/webhook.ts'
export { x402, type X402Offer, type X402Options, type X402Requirements } from './payments/x402.ts'
export type { Payment } from './payment.ts'
export type { PaymentsOptions, Price, RoutePrice } from './payments/options.ts'
export type { Bill, Challenge, LaterPayments, Offer, PaymentOutcome, PaymentProvider } from './payments/provider.ts'
export type { MovementType } from './stores/ledger.ts'

export type { HeaderFamily } from './respond/fields.ts'
export type { Problem, ProblemErrorType } from './respond/problem.ts'
export type { RefusalHandler } from './respond/refuse.ts'
export type {
  DecisionMessage,
  DegradedMessage,
  LevelMessage,
  TicketFailure,
  TicketMessage,
} from './observe/channels.ts'
