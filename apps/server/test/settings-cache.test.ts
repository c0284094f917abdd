import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { rawExchange, sharedS3, startFaultProxy, startOrigin, startRedis } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Config, loadConfig } from '../src/index.ts'
import { ask, silentPort, startProxy, tempFile, tempFolder, until } from './helpers.ts'

const KIB = 1024

/** `/TYPE/SIZE/STATUS?CACHE-CONTROL` is answered accordingly. */
async function originOf() {
  const origin = await startOrigin((request, response) => {
    const [path, control = ''] = (request.url ?? '').split('?')
    const [, type = 'text', size = '10', status = '200'] = (path as string).split('/')
    response.writeHead(Number(status), { 'content-type': `${type}/x`, 'content-length': size, ...(control !== '' && { 'cache-control': control }) }).end(Buffer.alloc(Number(size), 'x'))
  })
  onTestFinished(() => origin.close())
  return origin
}

async function proxied(config: Partial<Config>) {
  const origin = await originOf()
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, ...config })
  /** What the cache did with each of two requests. */
  const twice = async (path: string): Promise<string> => {
    await ask(proxy.url + path)
    await ask(proxy.url + path)
    return proxy
      .requests()
      .slice(-2)
      .map(({ cache }) => cache)
      .join(' ')
  }
  return { origin, proxy, twice }
}

describe('cache', () => {
  test('on by default, in memory, by what the origin says', async () => {
    const { twice } = await proxied({})
    expect(await twice('/text/10/200?max-age=60')).toBe('miss hit')
    expect(await twice('/text/10/200?no-store')).toBe('miss miss')
    expect(await twice('/text/10/200')).toBe('miss miss')
  })

  test('stale: what may be served beyond its lifetime, and for how long it is kept', async () => {
    const { origin, twice, proxy } = await proxied({ cache: { stale: { whileRevalidate: '1h' } } })
    expect(await twice('/text/10/200?max-age=0,stale-while-revalidate=60')).toBe('miss stale')
    const strict = await startProxy({ pools: { web: { targets: [origin.url] } }, cache: { rules: [{ ttl: '1ms' }], stale: { ifUnreachable: '0s' } } })
    const lenient = await startProxy({ pools: { web: { targets: [origin.url] } }, cache: { rules: [{ ttl: '1ms' }] } })
    for (const { url } of [strict, lenient, proxy]) await ask(`${url}/text/10/200?max-age=60`)
    await origin.close()
    expect((await ask(`${strict.url}/text/10/200?max-age=60`)).status).toBe(502)
    expect((await ask(`${lenient.url}/text/10/200?max-age=60`)).headers['cache-status']).toContain('stale-if-error')
  })

  test('stale.ifError and stale.keep', async () => {
    let status = 200
    const seen: unknown[] = []
    const origin = await startOrigin((request, response) => {
      seen.push(request.headers['if-none-match'])
      response.writeHead(status, { etag: '"a"', 'cache-control': 'max-age=0' }).end('text')
    })
    onTestFinished(() => origin.close())
    const rules = [{ ttl: '1ms' }]
    const served = await startProxy({ pools: { web: { targets: [origin.url] } }, cache: { rules, stale: { ifError: '1h' } } })
    const forgetful = await startProxy({ pools: { web: { targets: [origin.url] } }, cache: { rules, stale: { keep: '0s', ifUnreachable: '0s' } } })
    for (const { url } of [served, forgetful]) await ask(url)
    status = 503
    expect((await ask(served.url)).headers['cache-status']).toContain('fwd=stale; fwd-status=503')
    expect((await ask(forgetful.url)).status).toBe(503)
    expect(seen).toEqual([undefined, undefined, '"a"', undefined])
  })

  test('heuristic and targetedFields', async () => {
    const fields: Record<string, string> = { 'last-modified': 'Mon, 01 Jan 2001 00:00:00 GMT' }
    const origin = await startOrigin((_, response) => response.writeHead(200, fields).end('text'))
    onTestFinished(() => origin.close())
    const ttlOf = async (cache: Config['cache']): Promise<string | undefined> => {
      const { url } = await startProxy({ pools: { web: { targets: [origin.url] } }, cache })
      return /ttl=(\d+)/.exec(String((await ask(url)).headers['cache-status']))?.[1]
    }
    expect(Number(await ttlOf({}))).toBeGreaterThan(86_000)
    expect(Number(await ttlOf({ heuristic: { max: '1h' } }))).toBeLessThanOrEqual(3600)
    expect(await ttlOf({ heuristic: false })).toBe('0')
    fields['my-cache-control'] = 'max-age=77'
    fields['cdn-cache-control'] = 'max-age=55'
    expect(Number(await ttlOf({}))).toBeGreaterThan(50)
    expect(Number(await ttlOf({ targetedFields: ['My-Cache-Control'] }))).toBeGreaterThan(70)
    expect(await ttlOf({ targetedFields: [], heuristic: false })).toBe('0')
  })

  test('rules: the first that fits, by type and status', async () => {
    const { twice } = await proxied({
      cache: {
        rules: [
          { contentType: 'image/*', ttl: '1h' },
          { contentType: ['audio/x', 'video/*'], status: [200, '3xx'], ttl: '1h' },
          { contentType: 'text/*', ttl: '0s' }
        ]
      }
    })
    expect(await twice('/image/10/200')).toBe('miss hit')
    expect(await twice('/video/10/200')).toBe('miss hit')
    expect(await twice('/audio/10/302')).toBe('miss hit')
    expect(await twice('/audio/10/410')).toBe('miss miss')
    expect(await twice('/text/10/200?max-age=60')).toBe('miss miss')
    expect(await twice('/image/11/200?no-store')).toBe('miss miss')
  })

  test('negative: by status, by class, and where nothing answers', async () => {
    const { twice, origin } = await proxied({ cache: { negative: { 404: '1h', '5xx': '1h' } } })
    expect(await twice('/text/10/404')).toBe('miss negative-hit')
    expect(await twice('/text/10/503')).toBe('miss negative-hit')
    expect(await twice('/text/10/403')).toBe('miss miss')
    await origin.close()
    expect(await twice('/text/10/200?a')).not.toContain('negative')
    const remembering = await proxied({ cache: { negative: { connectError: '1h' } }, pools: { web: { targets: ['http://127.0.0.1:1'] } } })
    await ask(`${remembering.proxy.url}/x`)
    await until(async () => {
      await ask(`${remembering.proxy.url}/x`)
      return remembering.proxy.requests().at(-1)?.cache === 'negative-hit'
    })
    expect(remembering.proxy.requests().at(-1)?.status).toBe(502)
  })

  test('maxObjectSize: larger answers are passed on', async () => {
    const { twice } = await proxied({ cache: { maxObjectSize: '1KB' } })
    expect(await twice('/text/1000/200?max-age=60')).toBe('miss hit')
    expect(await twice('/text/1001/200?max-age=60')).toBe('miss miss')
  })
})

describe('stores.memory', () => {
  test('maxEntrySize: larger entries are not kept', async () => {
    const { twice } = await proxied({ stores: { memory: { maxSize: '1MiB', maxEntrySize: '20KiB' } } })
    expect(await twice(`/text/${10 * KIB}/200?max-age=60`)).toBe('miss hit')
    expect(await twice(`/text/${30 * KIB}/200?max-age=60`)).toBe('miss miss')
  })

  test('eviction: s3-fifo keeps through a crawl what was asked for again, lru what came last', async () => {
    for (const [memory, left] of [
      [{}, 'hit'],
      [{ eviction: 'lru' }, 'miss']
    ] as const) {
      const { proxy, twice } = await proxied({ stores: { memory: { maxSize: '200KiB', ...memory } } })
      const wanted = `/text/${10 * KIB}/200?max-age=60`
      expect(await twice(wanted)).toBe('miss hit')
      for (let i = 1; i < 40; i++) await ask(`${proxy.url}/text/${10 * KIB + i}/200?max-age=60`)
      await ask(proxy.url + wanted)
      expect(proxy.requests().at(-1)?.cache).toBe(left)
    }
  })

  test('maxSize: what was not used for long goes first', async () => {
    const { proxy, twice } = await proxied({ stores: { memory: { maxSize: '200KiB', maxEntrySize: '100KiB' } } })
    for (let i = 0; i < 5; i++) expect(await twice(`/text/${60 * KIB + i}/200?max-age=60`)).toBe('miss hit')
    await ask(`${proxy.url}/text/${60 * KIB}/200?max-age=60`)
    expect(proxy.requests().at(-1)?.cache).toBe('miss')
  })
})

describe('stores.redis', () => {
  async function redisSays(port: number, command: string): Promise<string> {
    return (await rawExchange(port, `${command}\r\nQUIT\r\n`)).toString('latin1')
  }

  test('url, prefix, maxEntrySize; tiers[].admit', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const { twice } = await proxied({
      cache: { tiers: [{ store: 'redis', admit: 'content' }], negative: { 404: '1h' } },
      stores: { redis: { url: `${redis.url}/3`, prefix: 'images:', maxEntrySize: '20KiB' } }
    })
    const path = `/text/${10 * KIB}/200?max-age=60`
    await until(async () => (await twice(path)).endsWith('hit'))
    expect(await redisSays(redis.port, 'SELECT 3\r\nKEYS *')).toMatch(/\r\nimages:/)
    expect(await twice(`/text/${30 * KIB}/200?max-age=60`)).toBe('miss miss')
    expect(await twice('/text/10/404')).toBe('miss miss')
    expect(await redisSays(redis.port, 'SELECT 3\r\nDBSIZE')).toContain(':1\r\n')
  })

  test('commandTimeout: how long a silent Redis is waited for', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const timeOf = async (commandTimeout: string): Promise<number> => {
      const { proxy } = await proxied({ cache: { tiers: ['redis'] }, stores: { redis: { url: redis.url, commandTimeout } } })
      await until(async () => {
        await ask(`${proxy.url}/text/10/200?max-age=60`)
        return proxy.requests().at(-1)?.cache === 'hit'
      })
      redis.freeze()
      const startedMs = performance.now()
      expect((await ask(`${proxy.url}/text/10/200?max-age=60`)).status).toBe(200)
      const tookMs = performance.now() - startedMs
      redis.thaw()
      return tookMs
    }
    expect(await timeOf('20ms')).toBeLessThan(800)
    expect(await timeOf('900ms')).toBeGreaterThan(800)
  })

  test('connectTimeout: an attempt that leads nowhere is given up', async () => {
    const url = `rediss://127.0.0.1:${await silentPort()}`
    const quick = await proxied({ cache: { tiers: ['redis'] }, stores: { redis: { url, connectTimeout: '100ms' } } })
    await until(() => quick.proxy.lines.some(({ msg, store }) => msg === 'store failed' && store === 'redis'))
    expect((await ask(`${quick.proxy.url}/text/10/200?max-age=60`)).status).toBe(200)
    expect((await ask(`${quick.proxy.url}/_proxy/metrics`)).text).toMatch(/proxy_store_errors_total\{store="redis"\} [1-9]/)
  })

  test('rateLimit.store: redis is one limit for all processes; onError says what happens without it', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const limit = { algorithm: 'sliding-window', limit: 2, window: '1h', store: 'redis' } as const
    const stores = { redis: { url: redis.url } }
    const proxies = [
      await proxied({ rateLimit: limit, stores }),
      await proxied({ rateLimit: { ...limit, onError: 'deny' }, stores }),
      await proxied({ rateLimit: { ...limit, onError: 'allow' }, stores })
    ]
    const statusOf = async (index: number): Promise<number> => (await ask(proxies[index]?.proxy.url as string)).status
    await until(async () => (await redisSays(redis.port, 'CLIENT LIST')).split('proxy-server').length === 4)
    expect([await statusOf(0), await statusOf(1), await statusOf(2), await statusOf(0)]).toEqual([200, 200, 429, 429])
    await redis.kill()
    // In memory the client is new: two more.
    expect([await statusOf(0), await statusOf(0), await statusOf(0)]).toEqual([200, 200, 429])
    expect(await statusOf(1)).toBe(429)
    expect(await statusOf(2)).toBe(200)
  })
})

describe('stores.disk', () => {
  test('directory: what is stored is still there after a restart, and moves to memory when it is asked for', async () => {
    const directory = join(tempFolder(), 'cache')
    const origin = await originOf()
    const config: Partial<Config> = { pools: { web: { targets: [origin.url] } }, cache: { tiers: ['memory', 'disk'] }, stores: { disk: { directory, maxSize: '10MiB', maxEntrySize: '100KiB' } } }
    const path = `/text/${10 * KIB}/200?max-age=60`
    // The key holds the authority, and each server has a port of its own.
    const headers = { host: 'example.org' }
    const first = await startProxy(config as Config)
    await ask(first.url + path, { headers })
    await ask(`${first.url}/text/${200 * KIB}/200?max-age=60`, { headers })
    await first.server.close()
    await origin.close()
    const second = await startProxy(config as Config)
    expect((await ask(second.url + path, { headers })).headers['cache-status']).toContain('hit')
    expect((await ask(`${second.url}/text/${200 * KIB}/200?max-age=60`, { headers })).status).toBe(502)
    // Without its files it lives on in memory.
    await until(async () => {
      rmSync(directory, { recursive: true, force: true })
      return (await ask(second.url + path, { headers })).status === 200
    })
    expect((await ask(second.url + path, { headers })).headers['cache-status']).toContain('hit')
  })

  test('a folder that cannot be made: the server serves without it, and says so', async () => {
    const file = tempFile('', 'not-a-folder')
    const { proxy, twice } = await proxied({ cache: { tiers: ['disk'] }, stores: { disk: { directory: join(file, 'cache') } } })
    expect(await twice('/text/10/200?max-age=60')).toBe('miss miss')
    expect(proxy.lines.filter(({ msg, store }) => msg === 'store failed' && store === 'disk')).toHaveLength(1)
  })

  test('directory counts from the folder of the configuration', async () => {
    const file = tempFile('pools: { web: { targets: ["http://127.0.0.1:1"] } }\nstores: { disk: { directory: cache } }\n')
    expect((await loadConfig(file, {})).stores?.disk?.directory).toBe(join(dirname(file), 'cache'))
  })
})

describe('stores.s3', () => {
  test('bucket, createBucket, prefix, maxEntrySize, pathStyle', async () => {
    const { endpoint, region, accessKeyId, secretAccessKey } = await sharedS3()
    const bucket = `settings-${process.pid}-${Date.now()}`
    const s3 = { endpoint, region, accessKeyId, secretAccessKey, bucket, createBucket: true, pathStyle: true, prefix: 'cache/', maxEntrySize: '20KiB', firstByteTimeout: '5s' }
    const { twice } = await proxied({ cache: { tiers: ['s3'] }, stores: { s3 } })
    const path = `/text/${10 * KIB}/200?max-age=60`
    await until(async () => (await twice(path)).endsWith('hit'))
    expect(await twice(`/text/${30 * KIB}/200?max-age=60`)).toBe('miss miss')
    const elsewhere = await proxied({ cache: { tiers: ['s3'] }, stores: { s3: { ...s3, prefix: 'other/' } } })
    expect((await elsewhere.twice(path)).startsWith('miss')).toBe(true)
  })

  test('firstByteTimeout and requestTimeout: how long a silent S3 is waited for', async () => {
    const s3 = await sharedS3()
    const { hostname, port } = new URL(s3.endpoint)
    const link = await startFaultProxy({ host: hostname, port: Number(port) })
    onTestFinished(() => link.stop())
    await link.setMode({ kind: 'freeze' })
    const { accessKeyId, secretAccessKey, region } = s3
    const store = { endpoint: `http://127.0.0.1:${link.port}`, bucket: 'none', accessKeyId, secretAccessKey, region }
    const timeOf = async (firstByteTimeout: string): Promise<number> => {
      const { proxy } = await proxied({ cache: { tiers: ['s3'] }, stores: { s3: { ...store, firstByteTimeout, requestTimeout: '300ms' } } })
      const startedMs = performance.now()
      expect((await ask(`${proxy.url}/text/10/200?max-age=60`)).status).toBe(200)
      const tookMs = performance.now() - startedMs
      // The end waits for the write, which is given up long before the ten seconds of the default are over.
      const closingMs = performance.now()
      await proxy.server.close(60_000)
      expect(performance.now() - closingMs).toBeLessThan(4000)
      return tookMs
    }
    expect(await timeOf('20ms')).toBeLessThan(800)
    expect(await timeOf('900ms')).toBeGreaterThan(800)
  })
})
