import { afterEach, describe, expect, test } from 'vitest'
import { type CacheOptions, cache, MemoryStore } from '../src/index.ts'
import { storability } from '../src/storability.ts'
import { type Bench, headers, standardPolicy, startBench } from './support.ts'

let bench: Bench | undefined
afterEach(async () => {
  await bench?.close()
  bench = undefined
})

type Fields = Record<string, string | string[]>

/** An origin that answers every request with its count, and with these fields. */
async function start(fields: Fields | ((path: string, count: number) => Fields), options: Partial<CacheOptions> = {}, status = 200): Promise<Bench> {
  let count = 0
  bench = await startBench((incoming, outgoing) => {
    count++
    outgoing.writeHead(status, typeof fields === 'function' ? fields(incoming.url as string, count) : fields)
    outgoing.end(`answer ${count}`)
  }, options)
  return bench
}

const hour: Fields = { 'cache-control': 'max-age=3600' }

describe('key', () => {
  test('parameters that do not count share an answer; the origin is sent all of them', async () => {
    const { get, origin } = await start(hour, { key: { query: { except: ['utm_*'] } } })
    await get('/a?utm_source=x&w=1')
    const again = await get('/a?w=1&utm_source=y')
    expect(again.cacheStatus).toContain('hit')
    expect(origin.requests.map(({ url }) => url)).toEqual(['/a?utm_source=x&w=1'])
    expect((await get('/a?w=2')).cacheStatus).toContain('uri-miss')
  })

  test('a purge by URL means what the key means', async () => {
    const { get, middleware } = await start(hour, { key: { query: 'sorted', host: false } })
    await get('/a?b=1&a=2')
    expect((await get('/a?a=2&b=1', { host: 'other.example' })).cacheStatus).toContain('hit')
    expect(await middleware.purge({ url: 'http://third.example/a?b=1&a=2' })).toEqual({ touched: 1 })
    expect((await get('/a?a=2&b=1')).cacheStatus).toContain('uri-miss')
    await middleware.purge({ prefix: 'http://any.example/a' })
    expect((await get('/a?a=2&b=1')).cacheStatus).toContain('uri-miss')
  })

  test('named fields and cookies tell answers apart, others do not', async () => {
    const { get, origin } = await start(hour, { key: { headers: ['X-Device'], cookies: ['theme'] } })
    const one = await get('/a', { 'x-device': 'phone', cookie: 'theme=dark; id=1' })
    expect((await get('/a', { 'x-device': ' phone', cookie: 'id=2; theme=dark' })).body).toEqual(one.body)
    expect((await get('/a', { 'x-device': 'phone', cookie: 'theme=light' })).cacheStatus).toContain('vary-miss')
    expect((await get('/a', { 'x-device': 'desk', cookie: 'theme=dark' })).cacheStatus).toContain('vary-miss')
    expect((await get('/a')).cacheStatus).toContain('vary-miss')
    expect((await get('/a')).cacheStatus).toContain('hit')
    expect(origin.requests.length).toBe(4)
  })

  test('an unsafe request, and a purge by URL, forget all that differ by a named field', async () => {
    const { ask, clock, get, middleware } = await start(hour, { key: { headers: ['x-device'] } })
    const devices = ['phone', 'desk']
    const statuses = async (): Promise<string[]> => Promise.all(devices.map(async (device) => (await get('/a', { 'x-device': device })).cacheStatus.split(';')[1] as string))
    await get('/a', { 'x-device': 'phone' })
    await get('/a', { 'x-device': 'desk' })
    expect(await statuses()).toEqual([' hit', ' hit'])
    expect(await middleware.purge({ url: 'http://example.org/a' })).toEqual({ touched: 2 })
    clock.advance(1)
    expect(await statuses()).not.toContain(' hit')
    expect(await statuses()).toEqual([' hit', ' hit'])
    await ask('/a', { method: 'POST', headers: { 'x-device': 'other' } })
    expect(await statuses()).not.toContain(' hit')
  })

  // A configuration was mended, and what the store held was still given to everybody.
  test('fields that a configuration has gained count for what is stored already', async () => {
    const store = new MemoryStore()
    const first = await start(hour, { store })
    await first.get('/a', { cookie: 'lang=en' })
    await first.middleware.drain()
    const second = await startBench((_, outgoing) => outgoing.writeHead(200, hour).end('new'), { store, key: { cookies: ['lang'] } })
    try {
      expect((await second.get('/a', { cookie: 'lang=de' })).body.toString()).toBe('new')
    } finally {
      await second.close()
    }
  })

  test('an explicit default port is the same URL', async () => {
    const { clock, get, middleware } = await start(hour)
    await get('/a', { host: 'example.org:80' })
    expect((await get('/a')).cacheStatus).toContain('hit')
    expect((await get('/a', { host: 'example.org:443' })).cacheStatus).toContain('uri-miss')
    expect(await middleware.purge({ url: 'http://example.org:80/a' })).toEqual({ touched: 1 })
    clock.advance(1)
    expect((await get('/a')).cacheStatus).toContain('uri-miss')
  })

  test('a field of the key and Vary count together', async () => {
    const { get } = await start({ ...hour, vary: 'Accept' }, { key: { headers: ['x-device'] } })
    await get('/a', { 'x-device': 'phone', accept: 'image/png' })
    expect((await get('/a', { 'x-device': 'phone', accept: 'image/png' })).cacheStatus).toContain('hit')
    expect((await get('/a', { 'x-device': 'phone', accept: 'image/avif' })).cacheStatus).toContain('vary-miss')
    expect((await get('/a', { 'x-device': 'desk', accept: 'image/png' })).cacheStatus).toContain('vary-miss')
  })
})

describe('bypass', () => {
  test.each<[object, string, Fields, boolean]>([
    [{ header: 'X-No-Cache' }, '/a', { 'x-no-cache': '' }, true],
    [{ header: 'X-No-Cache' }, '/a', {}, false],
    [{ header: 'x-no-cache', value: '1' }, '/a', { 'x-no-cache': '0' }, false],
    [{ cookie: 'session' }, '/a', { cookie: 'a=1; session=x' }, true],
    [{ cookie: 'session' }, '/a', { cookie: 'xsession=x' }, false],
    [{ query: '_health_check', value: '1' }, '/a?_health_check=1', {}, true],
    [{ query: '_health_check', value: '1' }, '/a?_health_check=0', {}, false],
    [{ path: '/account' }, '/account/me?x', {}, true],
    [{ path: '/account' }, '/account?x', {}, true],
    [{ path: '/account' }, '/accounts', {}, false],
    // An origin may read all of these as /account.
    [{ path: '/account' }, '/%61ccount', {}, true],
    [{ path: '/account' }, '/%2561ccount/me', {}, true],
    [{ path: '/account' }, '//account', {}, true],
    [{ path: '/account' }, '/x/../account', {}, true],
    [{ path: '/account' }, '/x/..%5caccount', {}, true],
    [{ path: '/account' }, '/account;x', {}, true],
    [{ path: '/account' }, '/%61ccounts', {}, false],
    [{ query: 'preview', value: '1' }, '/a?preview=0&preview=1', {}, true],
    [{ cookie: 's', value: '1' }, '/a', { cookie: 's=0; s=1' }, true],
    [{ path: '/a', cookie: 's' }, '/a', {}, false],
    [{ path: '/a', cookie: 's' }, '/a', { cookie: 's=1' }, true]
  ])('%j, %s with %j: %s', async (rule, path, fields, bypassed) => {
    const { get } = await start(hour, { bypass: [{ header: 'never-sent' }, rule] })
    await get(path, fields as Record<string, string>)
    const again = await get(path, fields as Record<string, string>)
    expect(again.cacheStatus).toContain(bypassed ? 'fwd=bypass' : 'hit')
  })

  test.each([{}, { header: 'Host' }, { value: 'x' }, { path: '/a', value: 'x' }, { header: 'a', cookie: 'b', value: 'x' }])('%j is refused', (rule) => {
    expect(() => cache({ store: new MemoryStore(), bypass: [rule] })).toThrow(TypeError)
  })
})

describe('directives', () => {
  test('of the origin, ignored: a rule decides, whatever the origin says', async () => {
    const { get } = await start({ 'cache-control': 'no-store, private', expires: '0' }, { originDirectives: 'ignore', ttl: [{ ttlMs: 60_000 }] })
    await get('/a')
    const hit = await get('/a')
    expect(hit.cacheStatus).toContain('hit; ttl=60')
    expect(hit.headers['cache-control']).toBe('no-store, private')
  })

  test('of the origin, ignored, with no rule: nothing says how long it is fresh', async () => {
    const { get } = await start({ 'cache-control': 'max-age=60', expires: 'Fri, 31 Dec 2100 23:59:59 GMT' }, { originDirectives: 'ignore' })
    await get('/a')
    expect((await get('/a')).cacheStatus).toContain('no-freshness')
  })

  test('of the origin, ignored: answers to somebody with credentials are still not shared', async () => {
    const { get } = await start({ 'cache-control': 'public, s-maxage=60' }, { originDirectives: 'ignore', ttl: [{ ttlMs: 60_000 }] })
    await get('/a', { authorization: 'Bearer x' })
    expect((await get('/a', { authorization: 'Bearer y' })).cacheStatus).toContain('detail=authorization')
  })

  test('of requests, ignored: no client can have the origin asked', async () => {
    const { get, origin } = await start(hour, { requestDirectives: 'ignore' })
    await get('/a')
    for (const fields of [{ 'cache-control': 'no-cache' }, { 'cache-control': 'no-store' }, { 'cache-control': 'max-age=0' }, { pragma: 'no-cache' }] as Record<string, string>[])
      expect((await get('/a', fields)).cacheStatus).toContain('hit')
    expect((await get('/b', { 'cache-control': 'only-if-cached' })).status).toBe(200)
    // What one client does not want stored is stored all the same.
    await get('/c', { 'cache-control': 'no-store' })
    expect((await get('/c')).cacheStatus).toContain('hit')
    expect(origin.requests.length).toBe(3)
  })
})

describe('bounds of lifetimes', () => {
  const lifetime = (fields: Fields, bounds: { minMs?: number; maxMs?: number }, status = 200, initialAgeMs = 0): number | string => {
    const input = { method: 'GET', authorized: false, requestNoStore: false, status, headers: headers(fields), responseTime: 1_700_000_000_000, initialAgeMs }
    const decision = storability(input, { ...standardPolicy, ...bounds })
    return decision.store ? decision.lifetimeMs - initialAgeMs : decision.reason
  }
  test.each<[Fields, { minMs?: number; maxMs?: number }, number, number | string]>([
    [{ 'cache-control': 'max-age=10' }, { minMs: 60_000 }, 200, 60_000],
    [{ 'cache-control': 'max-age=0' }, { minMs: 60_000 }, 200, 60_000],
    [{ 'cache-control': 'max-age=100' }, { minMs: 60_000 }, 200, 100_000],
    [{}, { minMs: 60_000 }, 200, 60_000],
    [{}, { minMs: 60_000 }, 404, 'no-freshness'],
    [{ 'cache-control': 'max-age=10' }, { minMs: 60_000 }, 404, 10_000],
    [{ 'cache-control': 'no-cache', etag: '"a"' }, { minMs: 60_000 }, 200, 0],
    [{ 'cache-control': 'no-store' }, { minMs: 60_000 }, 200, 'no-store'],
    [{ 'cache-control': 'private' }, { minMs: 60_000 }, 200, 'private'],
    [{ 'cache-control': 'max-age=31536000' }, { maxMs: 60_000 }, 200, 60_000],
    [{ 'cache-control': 'max-age=31536000' }, { maxMs: 60_000 }, 404, 60_000],
    [{ 'last-modified': 'Mon, 01 Jan 2001 00:00:00 GMT' }, { maxMs: 60_000 }, 200, 60_000]
  ])('%j within %j, status %i: %s', (fields, bounds, status, expected) => expect(lifetime(fields, bounds, status)).toBe(expected))

  test('count from the arrival, whatever Age the response came with', () => {
    expect(lifetime({ 'cache-control': 'max-age=600' }, { maxMs: 60_000 }, 200, 300_000)).toBe(60_000)
    expect(lifetime({ 'cache-control': 'max-age=300' }, { minMs: 60_000 }, 200, 300_000)).toBe(60_000)
  })

  test('in order', () => expect(() => cache({ store: new MemoryStore(), minTtlMs: 2, maxTtlMs: 1 })).toThrow('minTtlMs'))
})

describe('what is stored', () => {
  test('content of other types is not, failures are', async () => {
    const { get } = await start((path) => ({ ...hour, ...(path === '/none' ? {} : { 'content-type': path.slice(1) }) }), { contentTypes: ['image/*', '*/*+json'] })
    for (const [path, stored] of [
      ['/image/png', true],
      ['/image/png;q=1', true],
      ['/application/a+json', true],
      ['/text/html', false],
      ['/none', false]
    ] as const) {
      await get(path)
      expect((await get(path)).cacheStatus, path).toContain(stored ? 'hit' : 'detail=content-type')
    }
  })

  test('a failure of another type is remembered as such', async () => {
    const { get } = await start({ ...hour, 'content-type': 'text/html' }, { contentTypes: ['image/*'] }, 404)
    await get('/a')
    expect((await get('/a')).cacheStatus).toContain('detail=negative')
  })

  test('a Set-Cookie, where the configuration says so: everybody gets it, and a 304 renews it', async () => {
    const { clock, get } = await start((_, count) => ({ 'cache-control': 'max-age=10', etag: '"a"', 'set-cookie': [`a=${count}`, 'b=1'] }), { setCookie: 'store' })
    await get('/a')
    const hit = await get('/a')
    expect([hit.cacheStatus, hit.headers['set-cookie']]).toEqual([expect.stringContaining('hit'), ['a=1', 'b=1']])
    clock.advance(11_000)
    expect((await get('/a')).headers['set-cookie']).toEqual(['a=2', 'b=1'])
  })

  test.each<Partial<CacheOptions>>([
    { setCookie: 'yes' as never },
    { rangeMiss: 'wait' as never },
    { originDirectives: '' as never },
    { maxVariants: -1 },
    { maxTtlMs: Number.NaN },
    { contentTypes: ['image'] },
    { ttl: [{ ttlMs: Number.POSITIVE_INFINITY }] },
    { ttl: [{ ttlMs: 1, status: '2x' as never }] },
    { ttl: [{ ttlMs: 1, contentType: 'x' }] },
    { key: { types: ['webp'] } },
    { key: { encodings: ['gzip, br'] } }
  ])('%j is refused', (options) => {
    expect(() => cache({ store: new MemoryStore(), ...options })).toThrow(TypeError)
  })
})

describe('429 and 503 with Retry-After', () => {
  test.each([
    [429, '5', 5],
    [429, '600', 30],
    [503, '7', 7],
    // Other failures do not mean it.
    [404, '5', 30],
    [429, 'soon', 30]
  ])('%i, Retry-After %s: remembered for %i s', async (status, retryAfter, seconds) => {
    const { clock, get, origin } = await start({ 'retry-after': retryAfter }, { negative: { statuses: { '4xx': 30_000, '5xx': 30_000 } } }, status)
    await get('/a')
    clock.advance(seconds * 1000 - 1)
    const answer = await get('/a')
    expect([answer.status, answer.cacheStatus]).toEqual([status, expect.stringContaining('detail=negative')])
    clock.advance(1)
    await get('/a')
    expect(origin.requests.length).toBe(2)
  })

  test('a date counts as well', async () => {
    bench = await startBench(
      (_, outgoing) => {
        outgoing.writeHead(429, { 'retry-after': new Date((bench as Bench).clock.wallMs() + 5000).toUTCString() })
        outgoing.end()
      },
      { negative: { statuses: { 429: 30_000 } } }
    )
    const { clock, get, origin } = bench
    await get('/a')
    clock.advance(3000)
    await get('/a')
    expect(origin.requests.length).toBe(1)
    clock.advance(2000)
    await get('/a')
    expect(origin.requests.length).toBe(2)
  })
})

describe('variants', () => {
  test('of one URL are kept up to a number; then no further ones for a minute, and those that are stored stay', async () => {
    const { clock, get, middleware, origin } = await start({ ...hour, vary: 'x-kind' }, { maxVariants: 3 })
    for (const kind of ['1', '2', '3']) await get('/a', { 'x-kind': kind })
    expect((await get('/a', { 'x-kind': '4' })).cacheStatus).toContain('detail=too-many-variants')
    expect((await get('/a', { 'x-kind': '4' })).cacheStatus).toContain('detail=too-many-variants')
    for (const kind of ['1', '2', '3']) expect((await get('/a', { 'x-kind': kind })).cacheStatus).toContain('hit')
    expect(middleware.stats().variantsRefused).toBe(2)
    expect(origin.requests.length).toBe(5)
    // In their time those that are stored are renewed, however full it is.
    clock.advance(3_601_000)
    await get('/a', { 'x-kind': '1' })
    expect((await get('/a', { 'x-kind': '1' })).cacheStatus).toContain('hit')
    expect((await get('/a', { 'x-kind': '4' })).cacheStatus).toContain('detail=too-many-variants')
    // Another URL has room.
    await get('/b', { 'x-kind': '4' })
    expect((await get('/b', { 'x-kind': '4' })).cacheStatus).toContain('hit')
    // Once they are kept no longer there is room.
    clock.advance(86_400_000 + 3_601_000)
    await get('/a', { 'x-kind': '4' })
    expect((await get('/a', { 'x-kind': '4' })).cacheStatus).toContain('hit')
  })

  // After everything had been purged, URLs were still full.
  test('are counted anew after a purge', async () => {
    const { clock, get, middleware } = await start({ ...hour, vary: 'x-kind' }, { maxVariants: 1 })
    await get('/a', { 'x-kind': '1' })
    await get('/a', { 'x-kind': '2' })
    await middleware.purge({ all: true })
    clock.advance(1)
    await get('/a', { 'x-kind': '2' })
    expect((await get('/a', { 'x-kind': '2' })).cacheStatus).toContain('hit')
  })

  // 64 made-up values kept the popular ones of a URL from being fetched once for all.
  test('a known one is fetched once for all who wait, however full its URL is', async () => {
    const { clock, get, origin } = await start({ 'cache-control': 's-maxage=5', vary: 'x-kind' }, { maxVariants: 2 })
    for (const kind of ['en', 'a', 'b', 'c']) await get('/a', { 'x-kind': kind })
    clock.advance(6000)
    const before = origin.requests.length
    await Promise.all(Array.from({ length: 20 }, () => get('/a', { 'x-kind': 'en' })))
    expect(origin.requests.length).toBe(before + 1)
  })

  test('64 by default', async () => {
    const { get, store } = await start({ ...hour, vary: 'x-kind' })
    for (let i = 0; i < 80; i++) await get('/a', { 'x-kind': String(i) })
    expect((store.inner as MemoryStore).stats().entries).toBe(65)
  })

  test('one that is fetched anew, after it went stale, is no further one', async () => {
    const { clock, get } = await start({ 'cache-control': 'max-age=10', vary: 'x-kind' }, { maxVariants: 1 })
    await get('/a', { 'x-kind': '1' })
    clock.advance(11_000)
    await get('/a', { 'x-kind': '1' })
    expect((await get('/a', { 'x-kind': '1' })).cacheStatus).toContain('hit')
  })
})

describe('targeted fields', () => {
  test('of this cache, by its name, come before those of all, and are not what another cache is told', async () => {
    const { get } = await start({ 'cache-control': 'no-store', 'cdn-cache-control': 'max-age=20', 'edge-cache-control': 'max-age=30', 'proxy-cache-control': 'max-age=40' }, { name: 'edge' })
    await get('/a')
    expect((await get('/a')).cacheStatus).toBe('edge; hit; ttl=30')
  })

  test('can be others, or none', async () => {
    const fields = { 'cache-control': 'max-age=10', 'cdn-cache-control': 'max-age=20', 'proxy-cache-control': 'max-age=40' }
    const none = await start(fields, { targetedFields: [] })
    await none.get('/a')
    expect((await none.get('/a')).cacheStatus).toContain('ttl=10')
    await none.close()
    const own = await start(fields)
    await own.get('/a')
    expect((await own.get('/a')).cacheStatus).toContain('ttl=40')
  })
})
