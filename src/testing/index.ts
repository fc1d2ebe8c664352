export { manualClock, type ManualClock } from './manual-clock.ts'
export { startRedis, type StartRedisOptions, type TestRedis } from './start-redis.ts'
export { describeStore, type StoreMaker, type StoreUnderTest, type TestRunner } from './describe-store.ts'
