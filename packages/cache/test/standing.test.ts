import { createRequest } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { type CacheOptions, MemoryStore } from '../src/index.ts'
import { type Bench, headers, startBench } from './support.ts'

let bench: Bench | undefined
afterEach(async () => {
  await bench?.close()
  bench = undefined
})

interface Said {
  status: number
  fields: Record<string, string | string[]>
  fails: boolean
}

/** An origin that says what the test wants. */
async function start(fields: Said['fields'], options: Partial<CacheOptions> = {}): Promise<Bench & { said: Said }> {
  const said: Said = { status: 200, fields, fails: false }
  bench = await startBench((request, response) => {
    if (said.fails) request.socket.destroy()
    else response.writeHead(said.status, said.fields).end(said.status === 304 ? undefined : 'body')
  }, options)
  return { ...bench, said }
}

describe('an entry that is fresh', () => {
  // A client sent no-cache and a field that the origin disliked: the entry was removed, or replaced by the failure, for everybody.
  test.each([400, 403, 413, 429, 431, 500, 503])('is not for others what a client has asked past it: %i', async (status) => {
    const { get, said } = await start({ 'cache-control': 'max-age=600' }, { negative: { statuses: { '4xx': 60_000, '5xx': 60_000 } } })
    await get('/a')
    said.status = status
    const provoked = await get('/a', { 'cache-control': 'no-cache' })
    expect([provoked.status, provoked.cacheStatus]).toEqual([status, expect.stringContaining('detail=still-fresh')])
    expect(await get('/a')).toMatchObject({ status: 200, cacheStatus: expect.stringContaining('hit') })
  })

  test.each([404, 410])('is when its origin says that it is gone: %i', async (status) => {
    const { get, said } = await start({ 'cache-control': 'max-age=600' })
    await get('/a')
    said.status = status
    await get('/a', { 'cache-control': 'no-cache' })
    expect((await get('/a')).status).toBe(status)
  })
})

describe('an entry that is stale', () => {
  const stale = { 'cache-control': 'max-age=1, stale-if-error=600', etag: '"a"' }

  // The 429 removed it, and the failure after that found nothing to stand in.
  test.each([400, 401, 403, 429])('stays when its origin answers %i', async (status) => {
    const { clock, get, said } = await start(stale)
    await get('/a')
    clock.advance(2000)
    said.status = status
    said.fields = {}
    expect((await get('/a')).status).toBe(status)
    said.fails = true
    expect((await get('/a')).cacheStatus).toContain('stale-if-error')
  })

  test.each([503, undefined])('stands in for HEAD too: %s', async (status) => {
    const { ask, clock, get, said } = await start(stale)
    await get('/a')
    clock.advance(2000)
    said.fails = status === undefined
    said.status = status ?? 200
    expect(await ask('/a', { method: 'HEAD' })).toMatchObject({ status: 200, cacheStatus: expect.stringContaining('stale-if-error') })
    clock.advance(600_000)
    expect((await ask('/a', { method: 'HEAD' })).status).toBe(status ?? 502)
  })

  // The cookie of a 304 reached nobody.
  test('is confirmed with a cookie: it is for the client who asked, and nobody else', async () => {
    const { clock, get, said } = await start(stale)
    await get('/a')
    clock.advance(2000)
    said.status = 304
    said.fields = { ...stale, 'set-cookie': ['a=1', 'b=2'] }
    expect((await get('/a')).headers['set-cookie']).toEqual(['a=1', 'b=2'])
    expect((await get('/a')).headers['set-cookie']).toBeUndefined()
  })
})

// What no origin has sent was judged by the rules for what origins send.
test.each<Partial<CacheOptions>>([{}, { originDirectives: 'ignore' }, { maxTtlMs: 1000 }, { ttl: [{ status: '5xx', ttlMs: 2000 }] }])(
  'a failure to connect is remembered as long as it is said, with %j',
  async (options) => {
    const { clock, get, origin, said } = await start({}, { ...options, negative: { connectErrorMs: 60_000 } })
    said.fails = true
    expect((await get('/a')).status).toBe(502)
    clock.advance(59_000)
    expect((await get('/a')).cacheStatus).toContain('detail=negative')
    clock.advance(1000)
    await get('/a')
    expect(origin.requests.length).toBe(2)
  }
)

describe('explain', () => {
  const explain = async (fields: Record<string, string> = {}): Promise<string[]> => {
    const { decision, because } = await (bench as Bench).middleware.explain(createRequest({ target: '/a', authority: 'example.org', headers: headers(fields) }))
    return [decision, because]
  }

  test('just after a failure, what is stale stands in', async () => {
    const { clock, get, said } = await start({ 'cache-control': 'max-age=1, stale-if-error=600' })
    await get('/a')
    clock.advance(2000)
    said.fails = true
    await get('/a')
    expect(await explain()).toEqual(['stale', 'stale-if-error'])
    clock.advance(1000)
    expect(await explain()).toEqual(['revalidate', 'stale'])
  })

  test('a part that is stored, or has something else', async () => {
    const { get, middleware, said } = await start({ 'cache-control': 'max-age=60', etag: '"a"', 'content-range': 'bytes 0-3/10' })
    said.status = 206
    await get('/a', { range: 'bytes=0-3' })
    await middleware.drain()
    expect(await explain({ range: 'bytes=1-2' })).toEqual(['hit', 'part'])
    expect(await explain({ range: 'bytes=1-2', 'cache-control': 'only-if-cached' })).toEqual(['hit', 'part'])
    expect((await get('/a', { range: 'bytes=1-2', 'cache-control': 'only-if-cached' })).status).toBe(206)
    expect(await explain({ range: 'bytes=1-5' })).toEqual(['fetch', 'partial'])
  })

  test.each<[number, Record<string, string>, object]>([
    [304, {}, { confirms: true }],
    [206, { 'content-range': 'bytes 0-3/10', etag: '"a"' }, { part: true, stored: true, lifetimeMs: 60_000, lifetimeFrom: 'max-age' }],
    [206, { 'content-range': 'bytes 0-3/10' }, { stored: false, reason: 'status' }],
    [206, { 'content-range': 'bytes 0-9/10' }, { stored: true, lifetimeMs: 60_000, lifetimeFrom: 'max-age' }]
  ])('an answer %i with %j', async (status, fields, expected) => {
    const { middleware } = await start({})
    expect((await middleware.explain(createRequest({ authority: 'example.org' }), { status, headers: headers({ 'cache-control': 'max-age=60', ...fields }) })).answer).toEqual(expected)
  })

  test('in a field is bounded, however many tags there are', async () => {
    const { get } = await start({ 'cache-control': 'max-age=60', 'surrogate-key': Array.from({ length: 200 }, (_, i) => `${'tag'.repeat(20)}${i}`).join(' ') }, { debugHeader: 'x-why' })
    await get('/a')
    expect(String((await get('/a')).headers['x-why']).length).toBeLessThan(3000)
  })
})

test('URLs of any length are remembered in a bounded memory', async () => {
  const { get } = await start({ 'cache-control': 'max-age=60', etag: '"a"', 'content-range': 'bytes 0-3/10' }, { store: new MemoryStore({ maxBytes: 1024 * 1024 }) })
  const long = `/${'x'.repeat(6000)}`
  await get(`${long}1`)
  expect((await get(`${long}1`)).cacheStatus).toContain('hit')
  expect((await get(`${long}2`)).cacheStatus).toContain('uri-miss')
})
