import { join } from 'node:path'
import { type Origin, sharedS3, startOrigin, startRedis } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Config, resolveConfig } from '../src/index.ts'
import { ask, listeningUrl, runCli, startProxy, tempFile, tempFolder, until } from './helpers.ts'

const pools = { web: { targets: ['http://127.0.0.1:1'] } }
/** Keys hold the authority, and each server has a port of its own. */
const headers = { host: 'example.org' }

async function originOf(bytes = 1000): Promise<Origin> {
  const origin = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': 'max-age=3600', 'content-length': bytes }).end(Buffer.alloc(bytes, 'x')))
  onTestFinished(() => origin.close())
  return origin
}

/** Samples of the text format: `name{labels}` -> value. */
async function samples(url: string): Promise<Record<string, number>> {
  const { text } = await ask(`${url}/_proxy/metrics`)
  return Object.fromEntries([...text.matchAll(/^(\w+(?:\{[^}]*\})?) (\S+)$/gm)].map(([, name, value]) => [name as string, Number(value)]))
}

describe('cache.tiers', () => {
  const redis = { url: 'redis://127.0.0.1:1' }
  const s3 = { bucket: 'b' }
  const disk = { directory: '/var/cache/proxy' }
  const namesOf = (config: Partial<Config>): string[] => resolveConfig({ pools, ...config }).cache.tiers.map(({ store }) => store)

  // A disk that was configured and not listed held nothing, and nothing said so.
  test('are memory and whatever stores are configured, where they are not said', () => {
    expect(namesOf({})).toEqual(['memory'])
    expect(namesOf({ stores: { disk } })).toEqual(['memory', 'disk'])
    expect(namesOf({ stores: { s3, redis } })).toEqual(['memory', 'redis', 's3'])
    expect(namesOf({ stores: { s3, redis, disk, memory: { maxSize: '1MiB' } } })).toEqual(['memory', 'disk', 'redis', 's3'])
    expect(resolveConfig({ pools, stores: { disk } }).cache.tiers[1]).toEqual({ store: 'disk', admit: 'all' })
  })

  test('are what they are said to be', () => {
    expect(namesOf({ stores: { disk, redis }, cache: { tiers: ['redis'] } })).toEqual(['redis'])
  })

  test('leave a Redis alone that keeps the rate limits, unless it is listed', () => {
    const rateLimit = { algorithm: 'token-bucket', rate: 1, burst: 1, store: 'redis' } as const
    expect(namesOf({ stores: { redis, disk }, rateLimit })).toEqual(['memory', 'disk'])
    expect(namesOf({ stores: { redis }, rateLimit: { ...rateLimit, store: 'memory' } })).toEqual(['memory', 'redis'])
    expect(namesOf({ stores: { redis }, rateLimit, cache: { tiers: ['memory', 'redis'] } })).toEqual(['memory', 'redis'])
  })

  test('a store that is of no use is told of at the start', async () => {
    const unused = async (config: Partial<Config>): Promise<unknown[]> =>
      (await startProxy({ pools, ...config })).lines.filter(({ msg }) => msg === 'store is configured but not used').map(({ level, store }) => [level, store])
    expect(await unused({ stores: { redis, disk }, cache: { tiers: ['memory'] } })).toEqual([
      ['warn', 'disk'],
      ['warn', 'redis']
    ])
    expect(await unused({ stores: { disk }, routes: [{ pool: 'web', cache: false }] })).toEqual([['warn', 'disk']])
    expect(await unused({ stores: { redis }, cache: { tiers: ['memory'] }, rateLimit: { algorithm: 'token-bucket', rate: 1, burst: 1, store: 'redis' } })).toEqual([])
    expect(await unused({ stores: { disk: { directory: join(tempFolder(), 'cache') } } })).toEqual([])
  })

  test('s3 joins by itself, and what lies there is served after memory has gone', async () => {
    const { endpoint, region, accessKeyId, secretAccessKey } = await sharedS3()
    const bucket = `tiers-${process.pid}-${Date.now()}`
    const origin = await originOf()
    const config: Config = {
      pools: { web: { targets: [origin.url] } },
      stores: { s3: { endpoint, region, accessKeyId, secretAccessKey, bucket, createBucket: true, firstByteTimeout: '5s' } }
    }
    const first = await startProxy(config)
    await ask(`${first.url}/a`, { headers })
    await until(async () => (await samples(first.url))['proxy_cache_tier_bytes_written_total{tier="s3"}'] === 1000)
    await first.server.close()
    const second = await startProxy(config)
    expect((await ask(`${second.url}/a`, { headers })).headers['cache-status']).toContain('hit')
    expect(origin.requests).toHaveLength(1)
  })
})

describe('with a disk, a restart keeps the cache', () => {
  test.each(['SIGTERM', 'SIGKILL'] as const)('%s: the hit comes without asking the origin', async (signal) => {
    const origin = await originOf(200_000)
    const file = tempFile(`pools: { web: { targets: ["${origin.url}"] } }\nlisteners: [{ port: 0 }]\nstores: { disk: { directory: cache, maxSize: 10MiB } }\n`)
    const first = runCli(['--config', file])
    const url = await listeningUrl(first)
    for (const path of ['/a', '/b']) expect((await ask(url + path, { headers })).body).toHaveLength(200_000)
    // Nobody waits for the disk: what was answered may not be stored yet.
    await until(async () => (await samples(url))['proxy_cache_tier_bytes_written_total{tier="disk"}'] === 400_000)
    first.child.kill(signal)
    expect(await first.exit).toMatchObject(signal === 'SIGTERM' ? { code: 0 } : { signal })

    const second = runCli(['--config', file])
    const again = await listeningUrl(second)
    for (const path of ['/a', '/b', '/a']) {
      const answer = await ask(again + path, { headers })
      expect(answer.headers['cache-status']).toMatch(/^proxy; hit; ttl=\d+$/)
      expect(answer.body.equals(Buffer.alloc(200_000, 'x'))).toBe(true)
    }
    expect(origin.requests).toHaveLength(2)
    expect(await samples(again)).toMatchObject({
      'proxy_cache_tier_hits_total{tier="memory"}': 1,
      'proxy_cache_tier_hits_total{tier="disk"}': 2,
      'proxy_cache_tier_bytes_served_total{tier="disk"}': 400_000,
      'proxy_cache_tier_bytes_written_total{tier="memory"}': 400_000,
      'proxy_cache_tier_promotions_total{tier="memory"}': 2
    })
  })
})

describe('metrics of the tiers', () => {
  test('of the only one, which is memory where nothing is said', async () => {
    const origin = await originOf()
    const { url } = await startProxy({ pools: { web: { targets: [origin.url] } }, stores: { memory: { maxSize: '64KiB', maxEntrySize: '8KiB' } } })
    for (let i = 0; i < 50; i++) await ask(`${url}/${i}`)
    await ask(`${url}/49`)
    const found = await samples(url)
    expect(found).toMatchObject({
      'proxy_cache_tier_hits_total{tier="memory"}': 1,
      'proxy_cache_tier_misses_total{tier="memory"}': 50,
      'proxy_cache_tier_errors_total{tier="memory"}': 0,
      'proxy_cache_tier_timeouts_total{tier="memory"}': 0,
      'proxy_cache_tier_bytes_served_total{tier="memory"}': 1000,
      'proxy_cache_tier_bytes_written_total{tier="memory"}': 50_000,
      'proxy_cache_tier_writes_given_up_total{tier="memory"}': 0,
      'proxy_cache_tier_promotions_total{tier="memory"}': 0,
      'proxy_cache_tier_buffered_bytes{tier="memory"}': 0,
      'proxy_cache_tier_missed_removals{tier="memory"}': 0,
      'proxy_cache_tier_breaker_state{tier="memory",side="read"}': 0,
      'proxy_cache_tier_breaker_state{tier="memory",side="write"}': 0
    })
    const [entries, evictions, bytes] = ['entries', 'evictions_total', 'size_bytes'].map((name) => found[`proxy_cache_tier_${name}{tier="memory"}`] as number)
    expect(evictions).toBeGreaterThan(0)
    expect((entries as number) + (evictions as number)).toBe(50)
    expect(bytes).toBeGreaterThan(1000)
    expect(bytes).toBeLessThanOrEqual(65_536)
  })

  test('a Redis that is away: what was not asked, and the state of its breaker', async () => {
    const origin = await originOf()
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const { url } = await startProxy({ pools: { web: { targets: [origin.url] } }, stores: { redis: { url: redis.url, commandTimeout: '50ms' } } })
    await until(async () => {
      await ask(`${url}/${Math.random()}`)
      return ((await samples(url))['proxy_cache_tier_bytes_written_total{tier="redis"}'] ?? 0) > 0
    })
    expect((await samples(url))['proxy_cache_tier_entries{tier="redis"}']).toBeUndefined()
    redis.freeze()
    onTestFinished(() => redis.thaw())
    await until(async () => {
      await ask(`${url}/${Math.random()}`)
      return ((await samples(url))['proxy_cache_tier_breaker_state{tier="redis",side="read"}'] ?? 0) > 0
    })
    const found = await samples(url)
    expect(found['proxy_cache_tier_timeouts_total{tier="redis"}']).toBeGreaterThan(0)
    expect(found['proxy_cache_tier_errors_total{tier="redis"}']).toBeGreaterThan(0)
    expect(found['proxy_cache_tier_writes_given_up_total{tier="redis"}']).toBeGreaterThan(0)
  })
})

describe('a fault counts once', () => {
  /** How many faults of each store one request brings. */
  async function faultsOf(config: Config, count: number, request: (url: string, number: number) => Promise<unknown>): Promise<Record<string, number>> {
    const { url } = await startProxy(config)
    for (let i = 0; i < count; i++) await request(url, i)
    const found = Object.entries(await samples(url)).filter(([name]) => name.startsWith('proxy_store_errors_total'))
    return Object.fromEntries(found.map(([name, value]) => [name.slice('proxy_store_errors_total'.length), value]))
  }

  // What could not be removed was counted for the tier, and again for the tiers together: a server that took uploads looked twice as ill as it was.
  test.each<[string, Config['cache']]>([
    ['one of two tiers', { tiers: ['memory', 'redis'] }],
    ['the only tier', { tiers: ['redis'] }]
  ])('a removal that did not reach Redis: %s', async (_, cache) => {
    const origin = await startOrigin((_, response) => response.writeHead(204).end())
    onTestFinished(() => origin.close())
    const config: Config = { pools: { web: { targets: [origin.url] } }, cache: cache ?? {}, stores: { redis: { url: 'redis://127.0.0.1:1', connectTimeout: '60s' } } }
    const before = await faultsOf(config, 0, async () => {})
    const after = await faultsOf(config, 20, (url, i) => ask(`${url}/${i}`, { method: 'POST' }))
    expect(Object.keys(after)).toEqual(['{store="redis"}'])
    // Its attempts to connect are faults too, and of no fixed number.
    const attempts = before['{store="redis"}'] ?? 0
    expect((after['{store="redis"}'] as number) - attempts).toBeGreaterThanOrEqual(20)
    expect((after['{store="redis"}'] as number) - attempts).toBeLessThan(40)
  })

  test('a command that Redis did not answer, which the store tells of itself', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const origin = await originOf()
    const { url } = await startProxy({ pools: { web: { targets: [origin.url] } }, cache: { tiers: ['redis'] }, stores: { redis: { url: redis.url, commandTimeout: '50ms' } } })
    await until(async () => {
      await ask(`${url}/a`)
      return ((await samples(url))['proxy_cache_tier_hits_total{tier="redis"}'] ?? 0) > 0
    })
    const faults = (found: Record<string, number>): number => found['proxy_store_errors_total{store="redis"}'] ?? 0
    const errors = (found: Record<string, number>): number => found['proxy_cache_tier_errors_total{tier="redis"}'] ?? 0
    const before = await samples(url)
    redis.freeze()
    onTestFinished(() => redis.thaw())
    await ask(`${url}/a`)
    const after = await samples(url)
    expect(errors(after) - errors(before)).toBe(1)
    // The lookup, and the write of what was fetched instead.
    expect(faults(after) - faults(before)).toBeLessThanOrEqual(2)
    expect(Object.keys(after).filter((name) => name.startsWith('proxy_store_errors_total'))).toEqual(['proxy_store_errors_total{store="redis"}'])
  })
})
