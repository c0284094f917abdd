import { createRequest } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { type CacheOptions, cache, type Explanation, MemoryStore } from '../src/index.ts'
import { type Bench, headers, startBench, until } from './support.ts'

let bench: Bench | undefined
afterEach(async () => {
  await bench?.close()
  bench = undefined
})

type Fields = Record<string, string>

async function start(fields: Fields = { 'cache-control': 'max-age=60', etag: '"a"' }, options: Partial<CacheOptions> = {}): Promise<Bench> {
  bench = await startBench((request, outgoing) => {
    if (request.url === '/waits') return
    outgoing.writeHead(200, fields).end('hello')
  }, options)
  return bench
}

const explain = (fields: Fields = {}, path = '/a', method = 'GET'): Promise<Explanation> =>
  (bench as Bench).middleware.explain(createRequest({ method, target: path, authority: 'example.org', headers: headers(fields) }))

const decided = async (fields: Fields = {}, path = '/a', method = 'GET'): Promise<string[]> => {
  const { decision, because } = await explain(fields, path, method)
  return [decision, because]
}

describe('explain', () => {
  test('what is stored, how old it is and where its lifetime comes from; nothing is done', async () => {
    const { clock, get, origin, store } = await start({ 'cache-control': 'max-age=60', etag: '"a"', 'surrogate-key': 'one two' })
    expect(await explain()).toEqual({ decision: 'fetch', because: 'uri-miss', url: 'http://example.org/a', namespace: 'default', authorized: false })
    expect(origin.requests.length).toBe(0)
    await get('/a')
    clock.advance(10_000)
    const calls = store.calls.length
    expect(await explain()).toEqual({
      decision: 'hit',
      because: 'fresh',
      url: 'http://example.org/a',
      namespace: 'default',
      authorized: false,
      stored: { judgement: 'fresh', status: 200, ageMs: 10_000, lifetimeMs: 60_000, lifetimeFrom: 'max-age', keptMs: 86_450_000, bytes: 5, tags: ['one', 'two'], validator: 'etag' }
    })
    expect(store.calls.slice(calls)).toEqual(['get'])
    expect((store.inner as MemoryStore).stats().entries).toBe(1)
  })

  test.each<[string, Fields, string, string[]]>([
    ['a hit', {}, 'GET', ['hit', 'fresh']],
    ['a HEAD', {}, 'HEAD', ['hit', 'fresh']],
    ['a reload', { 'cache-control': 'no-cache' }, 'GET', ['revalidate', 'request']],
    ['a reload of old', { pragma: 'no-cache' }, 'GET', ['revalidate', 'request']],
    ['no-store', { 'cache-control': 'no-store, no-cache' }, 'GET', ['pass', 'no-store']],
    ['another method', {}, 'POST', ['pass', 'method']],
    ['a bypass rule', { 'x-skip': '1' }, 'GET', ['pass', 'rule']]
  ])('%s', async (_, fields, method, expected) => {
    const { get } = await start(undefined, { bypass: [{ header: 'x-skip' }] })
    await get('/a')
    expect(await decided(fields, '/a', method)).toEqual(expected)
  })

  test('what has gone stale, and what may be done with it', async () => {
    const { clock, get } = await start({ 'cache-control': 'max-age=60, stale-while-revalidate=10', etag: '"a"' })
    await get('/a')
    clock.advance(65_000)
    expect(await decided()).toEqual(['stale', 'stale-while-revalidate'])
    clock.advance(10_000)
    expect(await decided()).toEqual(['revalidate', 'stale'])
    expect(await decided({ 'cache-control': 'max-stale' })).toEqual(['stale', 'max-stale'])
    clock.advance(86_400_000)
    expect(await decided()).toEqual(['fetch', 'gone'])
    expect(await decided({ 'cache-control': 'only-if-cached' })).toEqual(['refuse', 'only-if-cached'])
  })

  test('a purge, a fetch under way, a part', async () => {
    const { get, middleware, origin } = await start({ 'cache-control': 'max-age=60' })
    await get('/a')
    await middleware.purge({ tag: 'other' })
    expect(await decided()).toEqual(['hit', 'fresh'])
    // Where a store cannot be walked through, what was purged is still found.
    ;(bench as Bench).store.sweep = () => Promise.resolve(0)
    await middleware.purge({ all: true })
    expect(await decided()).toEqual(['fetch', 'purged'])
    const waiting = get('/waits').catch(() => undefined)
    await until(() => origin.requests.length === 2)
    expect(await decided({}, '/waits')).toEqual(['join', 'uri-miss'])
    expect(await decided({ authorization: 'x' }, '/waits')).toEqual(['fetch', 'uri-miss'])
    expect(await decided({ range: 'bytes=0-1' }, '/b')).toEqual(['fetch', 'range'])
    await origin.close()
    await waiting
  })

  test('variants', async () => {
    const { get } = await start({ 'cache-control': 'max-age=60', vary: 'accept, x-kind' }, { maxVariants: 1 })
    await get('/a', { 'x-kind': '1' })
    expect(await explain({ 'x-kind': '1' })).toMatchObject({ decision: 'hit', variesBy: ['accept', 'x-kind'] })
    expect(await decided({ 'x-kind': '2' })).toEqual(['fetch', 'vary-miss'])
    await get('/a', { 'x-kind': '2' })
    expect(await decided({ 'x-kind': '2' })).toEqual(['pass', 'too-many-variants'])
  })

  test('what was lately not to be stored', async () => {
    const { clock, get } = await start({ 'cache-control': 'private' })
    await get('/a')
    clock.advance(4000)
    expect(await explain()).toMatchObject({ decision: 'pass', because: 'uncacheable', uncacheable: { reason: 'private', bypass: true, forMs: 6000 } })
  })

  test('a store that fails', async () => {
    const { store } = await start()
    store.breakGet = () => new Error('the store is away')
    expect(await explain()).toMatchObject({ decision: 'fetch', because: 'store-failed', storeError: 'the store is away' })
  })

  test.each<[Fields, Partial<CacheOptions>, object]>([
    [{ 'cache-control': 's-maxage=5, max-age=9' }, {}, { stored: true, lifetimeMs: 5000, lifetimeFrom: 's-maxage' }],
    [{ 'cache-control': 'max-age=9' }, { ttl: [{ ttlMs: 7000 }] }, { stored: true, lifetimeMs: 7000, lifetimeFrom: 'rule' }],
    [{ expires: 'Wed, 15 Nov 2023 22:13:20 GMT' }, {}, { stored: true, lifetimeMs: 86_400_000, lifetimeFrom: 'expires' }],
    [{ 'last-modified': 'Wed, 01 Jan 2020 00:00:00 GMT' }, {}, { stored: true, lifetimeMs: 86_400_000, lifetimeFrom: 'heuristic' }],
    [{ 'cache-control': 'no-cache', etag: '"a"' }, {}, { stored: true, lifetimeMs: 0, lifetimeFrom: 'no-cache' }],
    [{ etag: '"a"' }, {}, { stored: true, lifetimeMs: 0, lifetimeFrom: 'none' }],
    [{}, {}, { stored: false, reason: 'no-freshness' }],
    [{ 'cache-control': 'private' }, {}, { stored: false, reason: 'private' }],
    [{ 'cache-control': 'max-age=9', 'set-cookie': 'a' }, {}, { stored: false, reason: 'set-cookie' }]
  ])('an answer with %j', async (fields, options, expected) => {
    const { middleware } = await start({}, options)
    expect((await middleware.explain(createRequest({ authority: 'example.org' }), { status: 200, headers: headers(fields) })).answer).toEqual(expected)
  })

  // What it says and what is done are two ways through the same functions: they must not part.
  test.each<[string, Fields, Fields]>([
    ['fresh', { 'cache-control': 'max-age=60' }, {}],
    ['private', { 'cache-control': 'private' }, {}],
    ['varying', { 'cache-control': 'max-age=60', vary: 'x-kind' }, { 'x-kind': '1' }],
    ['stale', { 'cache-control': 'max-age=0', etag: '"a"' }, {}],
    ['uncacheable by a cookie', { 'cache-control': 'max-age=60', 'set-cookie': 'a=1' }, {}],
    ['no-cache', { 'cache-control': 'max-age=60' }, { 'cache-control': 'no-cache' }]
  ])('agrees with what is done: %s', async (_, fields, asked) => {
    const { get } = await start(fields)
    for (let i = 0; i < 3; i++) {
      const { because, decision } = await explain(asked)
      const { cacheStatus } = await get('/a', asked)
      expect(cacheStatus.includes('; hit'), `${decision} ${because}`).toBe(decision === 'hit')
      if (decision === 'fetch') expect(cacheStatus).toContain(`fwd=${because}`)
      if (decision === 'revalidate') expect(cacheStatus).toMatch(/fwd=(stale|request)/)
    }
  })
})

describe('debugHeader', () => {
  test('tells in the answer what was known, and what the origin said of storing', async () => {
    const { get } = await start({ 'cache-control': 'max-age=60', 'set-cookie': 'a=1' }, { debugHeader: 'X-Cache-Debug' })
    const first = await get('/ä?x=1'.replace('ä', '%C3%A4'))
    expect(JSON.parse(String(first.headers['x-cache-debug']))).toEqual({
      decision: 'fetch',
      because: 'uri-miss',
      url: 'http://example.org/%C3%A4?x=1',
      namespace: 'default',
      authorized: false,
      answer: { stored: false, reason: 'set-cookie' }
    })
  })

  test('of a hit has no answer of the origin', async () => {
    const { get } = await start(undefined, { debugHeader: 'x-cache-debug' })
    await get('/a')
    const hit = JSON.parse(String((await get('/a')).headers['x-cache-debug'])) as Explanation
    expect([hit.decision, hit.answer, hit.stored?.bytes]).toEqual(['hit', undefined, 5])
  })

  test('is bounded, whatever the URL', async () => {
    const { get } = await start(undefined, { debugHeader: 'x-cache-debug' })
    const text = String((await get(`/${'x'.repeat(5000)}`)).headers['x-cache-debug'])
    expect(text.length).toBeLessThan(1500)
    expect((JSON.parse(text) as Explanation).url.endsWith('…')).toBe(true)
  })

  test('is off by default, and must be a name', async () => {
    const { get } = await start()
    expect(Object.keys((await get('/a')).headers).some((name) => name.includes('debug'))).toBe(false)
    expect(() => cache({ store: new MemoryStore(), debugHeader: 'a b' })).toThrow('debugHeader')
  })
})
