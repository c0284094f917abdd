import type { PurgeRecord } from '@proxy/cache'
import { purgeLogConformance, sampleMeta } from '@proxy/cache/conformance'
import { encodePurgeRecord } from '@proxy/cache/purging'
import type { Clock, ProxyError } from '@proxy/pipeline'
import { createFakeClock, sharedRedisUrl, startRedis } from '@proxy/testing'
import type { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test } from 'vitest'
import { connectRedis } from '../src/connect.ts'
import { RedisPurgeLog, type RedisPurgeLogOptions } from '../src/purge-log.ts'
import { connected, freshPrefix, patientConnection, until } from './support.ts'

const HOUR = 3_600_000

async function open(redis: Redis, key: string, options: Partial<RedisPurgeLogOptions> = {}): Promise<RedisPurgeLog> {
  const log = new RedisPurgeLog({ commandTimeoutMs: 20_000, pollMs: 10, clockMarginMs: 0, ...options, redis, key })
  onTestFinished(() => log.close())
  await log.prepare()
  return log
}

async function shared(): Promise<{ redis: Redis; key: string }> {
  return { redis: await connected(await sharedRedisUrl()), key: `${freshPrefix()}purges` }
}

/** To come, so that it stays what it is. */
const later = Date.now() + 24 * HOUR
const tag = (value: string, at = later): PurgeRecord => ({ scope: 'tag', value, at, soft: false })
const hardAt = (log: RedisPurgeLog, value: string): number => log.verdict(sampleMeta({ tags: [value] })).hardAt
/** Numbers from 0 up to 1, the same ones for the same seed. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
const never = Number.NEGATIVE_INFINITY

describe('conformance', () => {
  purgeLogConformance({
    test,
    create: async (options) => {
      const { redis, key } = await shared()
      const opened = async (): Promise<{ log: RedisPurgeLog; close: () => Promise<void> }> => {
        const log = await open(redis, key, options)
        return { log, close: () => log.close() }
      }
      return { ...(await opened()), again: opened }
    }
  })
})

describe('several processes on one Redis', () => {
  test('each hears of what the others purge', async () => {
    const { redis, key } = await shared()
    const one = await open(redis, key)
    const two = await open(await connected(await sharedRedisUrl()), key)
    const { revision } = two
    await one.add(tag('a'))
    await until('the other one knows', () => hardAt(two, 'a') === later)
    expect(two.revision).not.toBe(revision)
    await Promise.all(Array.from({ length: 1200 }, (_, i) => two.add(tag(`b${i}`))))
    await until('more than one page has come', () => hardAt(one, 'b0') === later && hardAt(one, 'b1199') === later)
  })

  test('nothing is written before something is purged', async () => {
    const { redis, key } = await shared()
    const logs = [await open(redis, key), await open(redis, key)]
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await redis.exists(key)).toBe(0)
    await logs[0]?.add(tag('a'))
    await until('the other one knows', () => hardAt(logs[1] as RedisPurgeLog, 'a') === later)
  })

  test('one key holds it, bounded by twice the records, and members that are not understood stay', async () => {
    const { redis, key } = await shared()
    const logs = [await open(redis, key, { maxRecords: 20 }), await open(redis, key, { maxRecords: 20 })]
    await redis.zadd(key, 0.5, 'of a later version')
    for (let i = 0; i < 300; i++) await (logs[i % 2] as RedisPurgeLog).add(tag(`t${i}`, later + i))
    await until('it is bounded', async () => (await redis.zcard(key)) <= 42)
    await until('both have read all of it', () => logs.every((log) => hardAt(log, 't298') >= later + 298 && hardAt(log, 't299') >= later + 299))
    expect(await redis.zscore(key, 'of a later version')).not.toBeNull()
    const third = await open(redis, key, { maxRecords: 20 })
    for (const log of [...logs, third]) {
      for (let i = 0; i < 300; i++) expect(hardAt(log, `t${i}`)).toBeGreaterThanOrEqual(later + i)
      expect(hardAt(log, 'none')).toBeLessThan(later + 295)
    }
  })

  test('the same purge again and again takes no room in the end', async () => {
    const { redis, key } = await shared()
    const log = await open(redis, key, { maxRecords: 20 })
    for (let i = 0; i < 300; i++) await log.add(tag('news', later + i))
    await until('it is bounded', async () => (await redis.zcard(key)) <= 42)
    expect(hardAt(await open(redis, key), 'none')).toBe(never)
  })

  test('old records become one purge of everything before', async () => {
    const { redis, key } = await shared()
    const log = await open(redis, key, { retentionMs: 100 })
    for (let i = 0; i < 5; i++) await log.add(tag(`t${i}`, 0))
    // The time of Redis is an estimate: each may be a little before the one that was made before it.
    const at = Math.max(...[0, 1, 2, 3, 4].map((i) => hardAt(log, `t${i}`)))
    expect(hardAt(log, 'none')).toBe(never)
    await until('only that is left', async () => (await redis.zcard(key)) === 2)
    expect([hardAt(log, 'none'), hardAt(await open(redis, key), 'none')]).toEqual([at, at])
  })
})

describe('clocks that differ', () => {
  const skewed = (ms: number): Clock => ({ wallMs: () => Date.now() + ms, monotonicMs: () => performance.now() })

  // The purge was older than what it was about, by the clocks of those who had fetched that.
  test('one that is behind: the time of Redis counts, and the margin is added', async () => {
    const { redis, key } = await shared()
    const before = Date.now()
    const log = await open(redis, key, { clock: skewed(-HOUR), clockMarginMs: 300 })
    await log.add(tag('a', before - HOUR))
    expect(hardAt(log, 'a')).toBeGreaterThanOrEqual(before + 300)
    expect(hardAt(log, 'a')).toBeLessThan(Date.now() + 300 + 20_000)
    expect(hardAt(await open(redis, key), 'a')).toBe(hardAt(log, 'a'))
  })

  test('one that is ahead: its own time counts, and it is told once', async () => {
    const { redis, key } = await shared()
    const faults: ProxyError[] = []
    const clock = skewed(HOUR)
    const log = await open(redis, key, { clock, clockMarginMs: 300, onFault: (error) => faults.push(error) })
    const at = clock.wallMs()
    await log.add(tag('a', at))
    expect(hardAt(log, 'a')).toBeGreaterThanOrEqual(at + 300)
    const other = await open(redis, key, { onFault: (error) => faults.push(error), clockMarginMs: 10_000 })
    await other.add(tag('b'))
    await until('it has read again', () => hardAt(log, 'b') > later)
    expect(faults.map(({ code }) => code)).toEqual(['REDIS_CLOCK_AHEAD'])
  })
})

describe('Redis fails', () => {
  async function server(args: readonly string[] = []) {
    const redis = await startRedis({ args })
    onTestFinished(() => redis.stop())
    return redis
  }

  test('away: the purge is rejected and counts here; back and empty: it gets that and all that was known before', async () => {
    const redis = await server()
    const logs = [await open(await connected(redis.url), 'p'), await open(await connected(redis.url), 'p')]
    const [one, two] = logs as [RedisPurgeLog, RedisPurgeLog]
    await one.add(tag('a'))
    await two.add(tag('b'))
    await until('both know both', () => hardAt(one, 'b') === later && hardAt(two, 'a') === later)
    await redis.kill()
    await until('it is noticed', () =>
      one.add(tag('c')).then(
        () => false,
        ({ code }) => code === 'REDIS_UNAVAILABLE'
      )
    ) // prettier-ignore
    await expect(one.add(tag('d'))).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE', status: 503 })
    expect([hardAt(one, 'd'), hardAt(two, 'd')]).toEqual([later, never])
    await redis.restart()
    await until('the other one knows', () => hardAt(two, 'd') === later)
    const raw = await connected(redis.url)
    await until('all of it is there', async () => (await raw.zcard('p')) === 5)
    const third = await open(raw, 'p')
    expect(['a', 'b', 'c', 'd'].map((value) => hardAt(third, value))).toEqual([later, later, later, later])
  })

  test('away at the start: what was stored before has to be confirmed, until all is known', async () => {
    const redis = await server()
    const first = await open(await connected(redis.url), 'p')
    await first.add(tag('a'))
    await redis.kill()
    const connection = connectRedis(redis.url, patientConnection)
    onTestFinished(() => connection.close())
    const log = new RedisPurgeLog({ redis: connection.client, key: 'p', pollMs: 10, clockMarginMs: 0 })
    onTestFinished(() => log.close())
    await expect(log.prepare()).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    const [before, after] = [sampleMeta({ requestTime: Date.now() - 1000, tags: ['a'] }), sampleMeta({ requestTime: Date.now() + 1000, tags: ['a'] })]
    expect([log.verdict(before), log.verdict(after)]).toEqual([
      { hardAt: never, softAt: Number.POSITIVE_INFINITY },
      { hardAt: never, softAt: never }
    ])
    const { revision } = log
    await redis.restart()
    // The log that knows it writes it to the empty Redis.
    await until('it is known', () => hardAt(log, 'a') === later && log.verdict(before).softAt === never)
    expect(log.revision).toBeGreaterThan(revision)
    await log.prepare()
  })

  test('its last writes are lost: who knows them writes them again, whatever has been written since', async () => {
    const { redis, key } = await shared()
    const one = await open(redis, key)
    for (const value of ['a', 'b', 'c']) await one.add(tag(value))
    await until('it has read its own', async () => (await redis.zcard(key)) === 4)
    const copy = await redis.dumpBuffer(key)
    await one.add(tag('lost'))
    await until('it has read that too', () => hardAt(one, 'lost') === later)
    await new Promise((resolve) => setTimeout(resolve, 100))
    // As a replica that took over would have it, with a purge of somebody else in the place of the one that is lost.
    const other = encodePurgeRecord(tag('new'))
    await redis.multi().restore(key, 0, copy, 'REPLACE').zadd(key, 4, other).exec()
    await until('nothing is lost', async () => hardAt(one, 'new') === later && (await redis.zscore(key, encodePurgeRecord(tag('lost')))) !== null)
    expect(hardAt(await open(redis, key), 'lost')).toBe(later)
  })

  // A purge that was lost before its own process had read it again was never written again.
  test.each([1, 2, 3, 4, 5, 6])('whatever it loses, and however often, no purge is lost: seed %d', async (seed) => {
    const random = generator(seed)
    const { redis, key } = await shared()
    const maxRecords = seed % 2 === 0 ? 20 : 1000
    const logs: RedisPurgeLog[] = []
    for (let i = 0; i < 3; i++) logs.push(await open(redis, key, { maxRecords, pollMs: 1 + i * 7 }))
    for (let i = 0; i < 200; i++) {
      const added = (logs[Math.floor(random() * 3)] as RedisPurgeLog).add(tag(`t${i}`, later + Math.floor(random() * 200)))
      if (random() < 0.7) await added
      const fate = random()
      if (fate < 0.02) await redis.del(key)
      else if (fate < 0.1) await redis.zremrangebyrank(key, -Math.ceil(random() * 10), -1)
      await added
    }
    const isKnown = (log: RedisPurgeLog): boolean => Array.from({ length: 200 }, (_, i) => hardAt(log, `t${i}`)).every((at) => at >= later)
    await until('all know all of it', () => logs.every(isKnown))
    await until('so does one that is opened then', async () => isKnown(await open(redis, key, { maxRecords })))
  })

  test('full: the purge is rejected, counts here, and is written when there is room', async () => {
    const redis = await server()
    const raw = await connected(redis.url)
    const clock = createFakeClock(Date.now())
    const faults: ProxyError[] = []
    const log = await open(await connected(redis.url), 'p', { clock, onFault: (error) => faults.push(error) })
    await raw.config('SET', 'maxmemory', '1')
    await expect(log.add(tag('a'))).rejects.toMatchObject({ code: 'REDIS_WRITE_REFUSED' })
    expect(hardAt(log, 'a')).toBe(later)
    await until('it is tried again', () => faults.length > 1)
    // Not with every look at Redis: the pause doubles from a second to half a minute.
    const { length } = faults
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(faults.length).toBeLessThanOrEqual(length + 1)
    await raw.config('SET', 'maxmemory', '0')
    clock.advance(60_000)
    await until('it is written', async () => (await raw.zcard('p')) === 2)
    expect(hardAt(await open(raw, 'p'), 'a')).toBe(later)
  })

  test('silent: the purge is rejected in time, and reaches the others when Redis answers again', async () => {
    const redis = await server()
    const faults: ProxyError[] = []
    const log = await open(await connected(redis.url), 'p', { commandTimeoutMs: 50, onFault: (error) => faults.push(error) })
    redis.freeze()
    await expect(log.add(tag('a'))).rejects.toMatchObject({ code: expect.stringMatching(/^REDIS_(TIMEOUT|UNAVAILABLE)$/) })
    expect(hardAt(log, 'a')).toBe(later)
    await until('Redis is left alone', () => faults.length >= 3)
    redis.thaw()
    const other = await open(await connected(redis.url), 'p')
    await until('it is there', () => hardAt(other, 'a') === later)
  })
})

test('limits that cannot be meant are refused; after close nothing is asked or promised', async () => {
  const { redis, key } = await shared()
  for (const wrong of [{ pollMs: 0 }, { pollMs: 2 ** 31 }, { retentionMs: 0 }, { clockMarginMs: -1 }, { commandTimeoutMs: Number.NaN }, { maxRecords: 3 }]) {
    expect(() => new RedisPurgeLog({ redis, key, ...wrong })).toThrow(RangeError)
  }
  const listeners = redis.listenerCount('ready')
  const log = await open(redis, key)
  await log.close()
  expect(redis.listenerCount('ready')).toBe(listeners)
  await expect(log.add(tag('a'))).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
  await log.close()
})
