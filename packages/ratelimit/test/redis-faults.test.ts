import { createBreaker } from '@proxy/pipeline/breaker'
import { createFakeClock, type RedisServer, startRedis } from '@proxy/testing'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Decision, Limiter } from '../src/index.ts'
import { type FaultReason, type RedisOptions, redisSlidingWindow, redisTokenBucket } from '../src/redis.ts'

let server: RedisServer
const clients: Redis[] = []
beforeEach(async () => {
  server = await startRedis()
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect()
  await server.stop()
})

interface ClientOptions {
  readonly enableOfflineQueue?: boolean
  readonly maxRetriesPerRequest?: number
}

/** Default options of ioredis hang when the server is gone; nothing may depend on better ones. */
async function connected(options: ClientOptions = {}): Promise<Redis> {
  const client = new Redis({ port: server.port, host: '127.0.0.1', lazyConnect: true, retryStrategy: () => 20, ...options })
  clients.push(client)
  client.on('error', () => {
    // ioredis complains about each attempt to reconnect; what matters here is what the limiter makes of it.
  })
  await client.connect()
  return client
}

/** A bucket of 10 that practically does not refill, and what it reports. The breaker's time stands still until it is moved. */
async function setup(options: Partial<RedisOptions> = {}, clientOptions?: ClientOptions) {
  const faults: FaultReason[] = []
  const clock = createFakeClock()
  const breaker = createBreaker({ failureThreshold: 5, openMs: 1000, clock })
  const client = await connected(clientOptions)
  const limiter = redisTokenBucket({ rate: 1, perMs: 3_600_000, burst: 10, client, timeoutMs: 1000, breaker, onFault: (reason) => faults.push(reason), ...options })
  return { limiter, faults, clock, breaker, client }
}

const times = (count: number, limiter: Limiter, key = 'a'): Promise<Decision[]> => Promise.all(Array.from({ length: count }, () => limiter.take(key)))
const repeat = (count: number, reason: FaultReason): FaultReason[] => Array.from({ length: count }, () => reason)
const allowedIn = (decisions: Decision[]): number => decisions.filter((decision) => decision.allowed).length

describe('Redis frozen (SIGSTOP)', () => {
  test('costs a bounded number of timeouts, then no time at all, and is used again when it is back', async () => {
    const { limiter, faults, clock, breaker } = await setup({ timeoutMs: 400 })
    expect(allowedIn(await times(4, limiter))).toBe(4)
    expect(faults).toEqual([])
    server.freeze()

    let waited = 0
    while (breaker.state === 'closed') {
      await limiter.take('a')
      waited++
    }
    expect(waited).toBe(5)
    expect(faults).toEqual(repeat(5, 'timeout'))

    // A thousand decisions, one after the other, take less than one of them would if it waited.
    const startMs = performance.now()
    for (let i = 0; i < 1000; i++) await limiter.take('b')
    expect(performance.now() - startMs).toBeLessThan(400)
    expect(faults.slice(5)).toEqual(repeat(1000, 'open'))

    // The probe does not make its request wait either: the answer is there before its timeout, that of the probe comes after.
    faults.length = 0
    clock.advance(1000)
    await limiter.take('c')
    expect(faults).toEqual(['open'])
    expect(breaker.state).toBe('half-open')
    await times(50, limiter, 'c')
    expect(faults).toEqual(repeat(51, 'open'))
    await expect.poll(() => breaker.state, { timeout: 10_000, interval: 5 }).toBe('open')
    expect(faults.at(-1)).toBe('timeout')

    server.thaw()
    clock.advance(1000)
    await limiter.take('d')
    await expect.poll(() => breaker.state, { timeout: 10_000, interval: 5 }).toBe('closed')
    faults.length = 0
    // The probe took one of these on Redis.
    expect(allowedIn(await times(20, limiter, 'd'))).toBe(9)
    expect(faults).toEqual([])
  })

  test('200 takes at once are all answered after one timeout, and limited locally meanwhile', async () => {
    const { limiter, faults } = await setup({ timeoutMs: 200 })
    server.freeze()
    const startMs = performance.now()
    const decisions = await times(200, limiter)
    expect(performance.now() - startMs).toBeLessThan(2000)
    expect(allowedIn(decisions)).toBe(10)
    expect(faults).toEqual(repeat(200, 'timeout'))
    server.thaw()
  })

  test('a reply that comes after its timeout changes nothing', async () => {
    const { limiter, faults, client } = await setup({ timeoutMs: 400, onError: 'deny' })
    server.freeze()
    expect((await limiter.take('a')).allowed).toBe(false)
    server.thaw()
    // Replies come in order, so by now the late one has been read.
    await client.ping()
    expect(faults).toEqual(['timeout'])
    expect((await limiter.take('a')).remaining).toBe(8)
  })
})

describe('Redis killed', () => {
  test('in the middle of 200 takes: none fails, none waits longer than the timeout', async () => {
    const { limiter, faults } = await setup()
    await limiter.take('a')
    server.freeze()
    const startMs = performance.now()
    const pending = times(200, limiter)
    await server.kill()
    expect(allowedIn(await pending)).toBe(10)
    expect(performance.now() - startMs).toBeLessThan(10_000)
    expect(faults).toHaveLength(200)
  })

  test('with a client that fails at once, no request waits at all', async () => {
    const { limiter, faults, client, breaker } = await setup({ timeoutMs: 20_000 }, { enableOfflineQueue: false, maxRetriesPerRequest: 0 })
    const closed = new Promise((resolve) => client.once('close', resolve))
    await server.kill()
    await closed
    const startMs = performance.now()
    for (let i = 0; i < 20; i++) await limiter.take('a')
    expect(performance.now() - startMs).toBeLessThan(2000)
    expect(faults).toEqual([...repeat(5, 'error'), ...repeat(15, 'open')])
    expect(breaker.state).toBe('open')
  })

  test('and started anew: its scripts are gone, and are sent again without a fault', async () => {
    const { limiter, faults, client, breaker } = await setup({ timeoutMs: 20_000 })
    const window = redisSlidingWindow({ limit: 10, windowMs: 3_600_000, client, timeoutMs: 20_000, breaker, onFault: (reason) => faults.push(reason) })
    await Promise.all([limiter.take('a'), window.take('a')])
    await server.restart()
    // The client queues what comes while it reconnects; that is within this timeout.
    expect(allowedIn(await times(20, limiter))).toBe(10)
    expect(allowedIn(await times(20, window))).toBe(10)
    expect(faults).toEqual([])
  })
})

describe('onError', () => {
  const dead = { enableOfflineQueue: false, maxRetriesPerRequest: 0 }

  async function withoutRedis(onError: 'memory' | 'allow' | 'deny'): Promise<Limiter> {
    const { limiter, client } = await setup({ onError }, dead)
    const closed = new Promise((resolve) => client.once('close', resolve))
    await server.kill()
    await closed
    return limiter
  }

  test('memory: the same limit, in this process', async () => {
    const limiter = await withoutRedis('memory')
    expect(await limiter.take('a', 3)).toMatchObject({ allowed: true, limit: 10, remaining: 7, retryAfterMs: 0, policy: { name: 'default', limit: 10, windowMs: 36_000_000 } })
    expect(allowedIn(await times(20, limiter))).toBe(7)
    expect(await limiter.take('a')).toMatchObject({ allowed: false, remaining: 0 })
    expect(allowedIn(await times(20, limiter, 'b'))).toBe(10)
  })

  test('allow: everything', async () => {
    const decisions = await times(50, await withoutRedis('allow'))
    expect(allowedIn(decisions)).toBe(50)
    expect(decisions[49]).toMatchObject({ limit: 10, remaining: 10, resetAfterMs: 0, retryAfterMs: 0 })
  })

  test('deny: nothing, and to come back in a second', async () => {
    const decisions = await times(50, await withoutRedis('deny'))
    expect(allowedIn(decisions)).toBe(0)
    expect(decisions[0]).toMatchObject({ limit: 10, remaining: 0, resetAfterMs: 1000, retryAfterMs: 1000 })
  })

  test('a failed probe takes nothing from the local limiter', async () => {
    const { limiter, client, clock, breaker } = await setup({}, dead)
    const closed = new Promise((resolve) => client.once('close', resolve))
    await server.kill()
    await closed
    for (let i = 0; i < 5; i++) await limiter.take('a', 0)
    expect(breaker.state).toBe('open')
    clock.advance(1000)
    expect((await limiter.take('a')).remaining).toBe(9)
    await expect.poll(() => breaker.state, { timeout: 10_000, interval: 5 }).toBe('open')
    expect((await limiter.take('a')).remaining).toBe(8)
  })
})

describe('errors of a server that answers', () => {
  test('a key that holds something else', async () => {
    const { limiter, faults, client } = await setup()
    await client.lpush('rl:bucket:default:a', 'x')
    expect((await limiter.take('a')).allowed).toBe(true)
    await client.set('rl:bucket:default:b', 'not a bucket')
    expect((await limiter.take('b')).allowed).toBe(true)
    expect(faults).toEqual(['error', 'error'])
  })

  test('a server out of memory', async () => {
    const { limiter, faults, client } = await setup()
    await client.config('SET', 'maxmemory', '1')
    expect(allowedIn(await times(20, limiter))).toBe(10)
    expect(faults.length).toBeGreaterThan(0)
  })

  test('a reply that is no decision', async () => {
    const { limiter, faults } = await setup({ client: { evalsha: async () => 'OK', eval: async () => 'OK' } })
    expect((await limiter.take('a')).allowed).toBe(true)
    expect(faults).toEqual(['error'])
  })

  test('a client that throws instead of rejecting', async () => {
    const throwing = () => {
      throw new Error('closed')
    }
    const { limiter, faults } = await setup({ client: { evalsha: throwing, eval: throwing } })
    expect((await limiter.take('a')).allowed).toBe(true)
    expect(faults).toEqual(['error'])
  })
})

test('a pause of this process is not taken for a timeout of Redis', async () => {
  const { limiter, faults } = await setup({ timeoutMs: 200, onError: 'deny' })
  await limiter.take('a')
  const pending = limiter.take('a')
  const untilMs = performance.now() + 1000
  while (performance.now() < untilMs) {
    // Blocks the event loop: the reply arrives meanwhile, and so does the end of the timeout.
  }
  expect((await pending).allowed).toBe(true)
  expect(faults).toEqual([])
})

test('an onFault that throws harms nobody', async () => {
  const { limiter } = await setup({
    onFault: () => {
      throw new Error('metrics are down too')
    }
  })
  server.freeze()
  expect(allowedIn(await times(20, limiter))).toBe(10)
  server.thaw()
})

test('the breaker that comes with a limiter opens after five failures', async () => {
  const faults: FaultReason[] = []
  const client = await connected()
  const limiter = redisTokenBucket({ rate: 1, burst: 10, client, timeoutMs: 50, onFault: (reason) => faults.push(reason) })
  server.freeze()
  for (let i = 0; i < 6; i++) await limiter.take('a')
  expect(faults).toEqual([...repeat(5, 'timeout'), 'open'])
  server.thaw()
})

test('limiters that share a breaker learn from each other', async () => {
  const { limiter, breaker, client } = await setup({ timeoutMs: 50 })
  const faults: FaultReason[] = []
  const other = redisSlidingWindow({ limit: 10, windowMs: 60_000, client, breaker, onFault: (reason) => faults.push(reason) })
  server.freeze()
  for (let i = 0; i < 5; i++) await limiter.take('a')
  await other.take('a')
  expect(faults).toEqual(['open'])
  server.thaw()
})
