import { randomUUID } from 'node:crypto'
import { createFakeClock, type RedisServer, startRedis } from '@proxy/testing'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { limiterConformance } from '../src/conformance.ts'
import { type RedisOptions, redisSlidingWindow, redisTokenBucket, type ScriptClient } from '../src/redis.ts'
import { slidingWindowScript, tokenBucketScript } from '../src/redis-scripts.ts'

let server: RedisServer
let client: Redis
let faults: unknown[] = []
beforeAll(async () => {
  server = await startRedis()
  client = new Redis(server.url)
})
afterAll(async () => {
  client?.disconnect()
  await server?.stop()
})
afterEach(() => {
  const seen = faults
  faults = []
  expect(seen).toEqual([])
})

/** A prefix of its own per limiter; time enough not to have a fault, which would fail the test. */
function fresh(): RedisOptions {
  return { client, prefix: `test:${randomUUID()}:`, timeoutMs: 20_000, onFault: (reason, error) => faults.push([reason, error]), onError: 'deny' }
}

async function allowedOf(limiter: { take(key: string): Promise<{ allowed: boolean }> }, times: number): Promise<number> {
  const decisions = await Promise.all(Array.from({ length: times }, () => limiter.take('a')))
  return decisions.filter((decision) => decision.allowed).length
}

limiterConformance(
  'Redis',
  (settings, clock) => (settings.algorithm === 'token-bucket' ? redisTokenBucket({ ...settings, ...fresh(), clock }) : redisSlidingWindow({ ...settings, ...fresh(), clock })),
  { describe, test }
)

describe("the server's time", () => {
  test('200 takes at once from four connections are allowed exactly burst times', async () => {
    const others = [1, 2, 3].map(() => new Redis(server.url))
    const shared = fresh()
    const limiters = [client, ...others].map((one) => redisTokenBucket({ rate: 1, perMs: 3_600_000, burst: 10, ...shared, client: one }))
    const decisions = await Promise.all(limiters.flatMap((limiter) => Array.from({ length: 50 }, () => limiter.take('a'))))
    expect(decisions.filter((decision) => decision.allowed)).toHaveLength(10)
    for (const other of others) other.disconnect()
  })

  test('200 takes at once are allowed exactly limit times by a window', async () => {
    expect(await allowedOf(redisSlidingWindow({ limit: 10, windowMs: 3_600_000, ...fresh() }), 200)).toBe(10)
  })

  test('a bucket refills at its rate and not faster', async () => {
    const limiter = redisTokenBucket({ rate: 100, burst: 5, ...fresh() })
    const startMs = performance.now()
    let allowed = 0
    while (allowed < 25) if ((await limiter.take('a')).allowed) allowed++
    // 5 at once and 20 more: 200 ms of real time, less what the clocks are read apart.
    expect(performance.now() - startMs).toBeGreaterThan(198)
  })

  test('a window gives back what has left it, and not earlier', async () => {
    const limiter = redisSlidingWindow({ limit: 5, windowMs: 200, ...fresh() })
    const startMs = performance.now()
    let allowed = 0
    while (allowed < 6) if ((await limiter.take('a')).allowed) allowed++
    expect(performance.now() - startMs).toBeGreaterThan(198)
  })

  test('is not moved by a wrong clock of this process', async () => {
    const shared = fresh()
    await redisTokenBucket({ rate: 1, perMs: 60_000, burst: 1, ...shared }).take('a')
    const [seconds] = await client.time()
    const { retryAfterMs } = await redisTokenBucket({ rate: 1, perMs: 60_000, burst: 1, ...shared }).take('a')
    expect(retryAfterMs).toBeGreaterThan(50_000)
    expect(retryAfterMs).toBeLessThanOrEqual(60_000)
    const [, at] = ((await client.get(`${shared.prefix}bucket:default:a`)) as string).split(' ')
    expect(Math.abs(Number(at) / 1e6 - Number(seconds))).toBeLessThan(10)
  })
})

describe('keys', () => {
  test('are named by prefix, algorithm, policy and key, and expire when they say nothing any more', async () => {
    const shared = fresh()
    await redisTokenBucket({ rate: 1, perMs: 1000, burst: 60, name: 'api', ...shared }).take('user-1', 30)
    await redisSlidingWindow({ limit: 5, windowMs: 45_000, name: 'api', ...shared }).take('user-1')
    const [bucket, window] = [`${shared.prefix}bucket:api:user-1`, `${shared.prefix}window:api:user-1`]
    expect((await client.keys(`${shared.prefix}*`)).sort()).toEqual([bucket, window])
    const [bucketMs, windowMs] = [await client.pttl(bucket), await client.pttl(window)]
    expect(bucketMs).toBeGreaterThan(10_000)
    expect(bucketMs).toBeLessThanOrEqual(30_001)
    expect(windowMs).toBeGreaterThan(25_000)
    expect(windowMs).toBeLessThanOrEqual(45_001)
  })

  test('have the prefix rl: by default', async () => {
    const { prefix: _, ...rest } = fresh()
    const key = randomUUID()
    await redisTokenBucket({ rate: 1, burst: 1, ...rest }).take(key)
    expect(await client.exists(`rl:bucket:default:${key}`)).toBe(1)
  })

  test('are gone from the server after their time', async () => {
    const shared = fresh()
    await redisTokenBucket({ rate: 1000, burst: 10, ...shared }).take('a')
    await expect.poll(() => client.keys(`${shared.prefix}*`), { timeout: 10_000, interval: 10 }).toEqual([])
  })

  test('are not made by denied takes or by looking', async () => {
    const shared = fresh()
    await redisTokenBucket({ rate: 1, burst: 10, ...shared }).take('a', 11)
    await redisTokenBucket({ rate: 1, burst: 10, ...shared }).take('b', 0)
    await redisSlidingWindow({ limit: 10, windowMs: 1000, ...shared }).take('a', 11)
    await redisSlidingWindow({ limit: 10, windowMs: 1000, ...shared }).take('b', 0)
    expect(await client.keys(`${shared.prefix}*`)).toEqual([])
  })

  test('do not grow with traffic: a window holds resolution + 2 entries at most', async () => {
    const clock = createFakeClock()
    const shared = fresh()
    const limiter = redisSlidingWindow({ limit: 1_000_000, windowMs: 1000, resolution: 4, ...shared, clock })
    for (let i = 0; i < 500; i++) {
      await limiter.take('a')
      clock.advance(7)
    }
    expect(await client.strlen(`${shared.prefix}window:default:a`)).toBeLessThan(6 * 16)
  })
})

describe('a clock that steps back', () => {
  test('does not stop a bucket, nor fill it', async () => {
    const clock = createFakeClock()
    const limiter = redisTokenBucket({ rate: 10, burst: 10, ...fresh(), clock })
    expect(await allowedOf(limiter, 15)).toBe(10)
    clock.jumpWall(-3_600_000)
    expect(await allowedOf(limiter, 15)).toBe(0)
    clock.advance(500)
    expect(await allowedOf(limiter, 15)).toBe(5)
  })

  test('makes a window wait once more, not until the clock has caught up', async () => {
    const clock = createFakeClock()
    const limiter = redisSlidingWindow({ limit: 10, windowMs: 1000, ...fresh(), clock })
    expect(await allowedOf(limiter, 15)).toBe(10)
    clock.jumpWall(-3_600_000)
    expect(await allowedOf(limiter, 15)).toBe(0)
    clock.advance(1000)
    expect(await allowedOf(limiter, 15)).toBe(10)
  })
})

describe('scripts', () => {
  test('are sent once and then called by their digest', async () => {
    await client.script('FLUSH')
    await client.config('RESETSTAT')
    expect(await allowedOf(redisTokenBucket({ rate: 1, perMs: 3_600_000, burst: 1000, ...fresh() }), 1)).toBe(1)
    expect(await allowedOf(redisTokenBucket({ rate: 1, perMs: 3_600_000, burst: 1000, ...fresh() }), 100)).toBe(100)
    const stats = await client.info('commandstats')
    expect(stats).toMatch(/cmdstat_eval:calls=1,/)
    expect(stats).toMatch(/cmdstat_evalsha:calls=101,/)
  })

  test('have the digest that Redis gives them', async () => {
    expect(await client.script('LOAD', tokenBucketScript.text)).toBe(tokenBucketScript.sha)
    expect(await client.script('LOAD', slidingWindowScript.text)).toBe(slidingWindowScript.sha)
  })

  test('touch one key, so a cluster runs them where the key is', () => {
    for (const { text } of [tokenBucketScript, slidingWindowScript]) expect(text.match(/KEYS\[\d\]/g)?.every((key) => key === 'KEYS[1]')).toBe(true)
  })

  test('a client that gives numbers as text is understood', async () => {
    const asText: ScriptClient = {
      evalsha: async (...args) => ((await client.evalsha(...args)) as number[]).map(String),
      eval: async (...args) => ((await client.eval(...args)) as number[]).map(String)
    }
    expect(await redisTokenBucket({ rate: 1, burst: 5, ...fresh(), client: asText }).take('a', 2)).toMatchObject({ allowed: true, remaining: 3, resetAfterMs: 2000, retryAfterMs: 0 })
  })
})

test('refuses settings out of range', () => {
  for (const timeoutMs of [0, -1, Number.NaN, 2 ** 31]) expect(() => redisTokenBucket({ client, rate: 1, burst: 1, timeoutMs })).toThrow(RangeError)
  expect(() => redisSlidingWindow({ client, limit: 0, windowMs: 1 })).toThrow(RangeError)
  expect(() => redisTokenBucket({ client, rate: 1, burst: 1, maxKeys: 0 })).toThrow(RangeError)
})
