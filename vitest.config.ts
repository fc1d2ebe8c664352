import { defineConfig } from 'vitest/config'

/** What `ioredis` is in this run: `RAMPMETER_IOREDIS=ioredis5 npm test` has everything run on the other version that we promise. */
const ioredis = process.env['RAMPMETER_IOREDIS']

export default defineConfig({
  ...(ioredis && { resolve: { alias: [{ find: /^ioredis$/, replacement: ioredis }] } }),
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Of a busy machine a second is nothing.
    expect: { poll: { timeout: 30_000 } },
  },
})
