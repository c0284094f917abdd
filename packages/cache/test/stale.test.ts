import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import type { CacheOptions } from '../src/index.ts'
import { type Bench, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

/** What the origin does next. */
let origin: 'answers' | 'fails' | 'hangs' | number
let fields: Record<string, string>
let version: number
let held: (() => void)[]

async function start(cacheControl: string, options: Partial<CacheOptions> = {}): Promise<void> {
  origin = 'answers'
  fields = { 'cache-control': cacheControl, etag: '"v1"' }
  version = 1
  held = []
  bench = await startBench((request, response) => {
    if (origin === 'hangs') held.push(() => answer(request, response))
    else answer(request, response)
  }, options)
  await bench.get('/a')
  await bench.middleware.drain()
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  if (origin === 'fails') request.socket.destroy()
  else if (typeof origin === 'number') response.writeHead(origin).end('the origin is unwell')
  else if (request.headers['if-none-match'] === `"v${version}"`) response.writeHead(304, fields).end()
  else response.writeHead(200, { ...fields, etag: `"v${version}"` }).end(`version ${version}`)
}

const get = async (headers: Record<string, string> = {}): Promise<string> => {
  const { status, body, cacheStatus } = await bench.get('/a', headers)
  return `${status} ${body.toString()} | ${cacheStatus.replace('proxy; ', '')}`
}

describe('stale-while-revalidate', () => {
  test('serves at once what is stale, and has the next client find what is new', async () => {
    await start('max-age=60, stale-while-revalidate=30')
    bench.clock.advance(70_000)
    version = 2
    origin = 'hangs'
    expect(await get()).toBe('200 version 1 | hit; ttl=-10; detail=stale-while-revalidate')
    // One refresh is under way, however many ask.
    expect(await Promise.all([get(), get({ range: 'bytes=0-6' }), get()])).toEqual([
      '200 version 1 | hit; ttl=-10; detail=stale-while-revalidate',
      '206 version | hit; ttl=-10; detail=stale-while-revalidate',
      '200 version 1 | hit; ttl=-10; detail=stale-while-revalidate'
    ])
    await until(() => held.length === 1)
    origin = 'answers'
    for (const go of held) go()
    await bench.middleware.drain()
    expect(await get()).toBe('200 version 2 | hit; ttl=60')
    expect(bench.origin.requests.map(({ method, rawHeaders }) => [method, rawHeaders.includes('range')])).toEqual([
      ['GET', false],
      ['GET', false]
    ])
  })

  test('a 304 makes it fresh again', async () => {
    await start('max-age=60, stale-while-revalidate=30')
    bench.clock.advance(61_000)
    expect(await get()).toContain('stale-while-revalidate')
    await bench.middleware.drain()
    expect(await get()).toBe('200 version 1 | hit; ttl=60')
  })

  test('HEAD is answered too, and refreshed by a GET', async () => {
    await start('max-age=60, stale-while-revalidate=30')
    bench.clock.advance(61_000)
    version = 2
    expect((await bench.ask('/a', { method: 'HEAD' })).cacheStatus).toContain('stale-while-revalidate')
    await bench.middleware.drain()
    expect(await get()).toBe('200 version 2 | hit; ttl=60')
  })

  test('ends with its time', async () => {
    await start('max-age=60, stale-while-revalidate=30')
    bench.clock.advance(90_000)
    version = 2
    expect(await get()).toBe('200 version 2 | fwd=stale; stored; ttl=60')
  })

  test('is not for clients that ask for something fresher', async () => {
    await start('max-age=60, stale-while-revalidate=30')
    bench.clock.advance(61_000)
    for (const control of ['no-cache', 'max-age=100', 'min-fresh=0']) {
      expect(await get({ 'cache-control': control })).toContain('fwd=stale; fwd-status=304')
      await bench.middleware.drain()
      bench.clock.advance(61_000)
    }
  })

  test.each(['must-revalidate', 'proxy-revalidate', 'no-cache'])('never with %s', async (directive) => {
    await start(`max-age=60, stale-while-revalidate=30, ${directive}`)
    bench.clock.advance(61_000)
    expect(await get()).toContain('fwd=stale; fwd-status=304')
  })

  // What content delivery networks do, and what frameworks send: s-maxage alone implies proxy-revalidate.
  test('s-maxage with an explicit time allows it, alone it does not, whatever the configuration says', async () => {
    await start('s-maxage=60, stale-while-revalidate=30')
    bench.clock.advance(61_000)
    expect(await get()).toContain('stale-while-revalidate')
    await bench.close()
    await start('s-maxage=60', { stale: { whileRevalidateMs: 30_000 } })
    bench.clock.advance(61_000)
    expect(await get()).toContain('fwd=stale; fwd-status=304')
  })

  test('from the configuration, where the origin says nothing', async () => {
    await start('max-age=60', { stale: { whileRevalidateMs: 30_000 } })
    bench.clock.advance(61_000)
    expect(await get()).toContain('stale-while-revalidate')
  })

  test('a refresh that fails is tried again after a second, not by every client', async () => {
    await start('max-age=60, stale-while-revalidate=600')
    bench.clock.advance(61_000)
    origin = 'fails'
    for (let i = 0; i < 5; i++) {
      expect(await get()).toContain('200 version 1 | hit; ttl=-1; detail=stale-while-revalidate')
      await bench.middleware.drain()
    }
    expect(bench.origin.requests).toHaveLength(2)
    bench.clock.advance(1000)
    await get()
    await bench.middleware.drain()
    expect(bench.origin.requests).toHaveLength(3)
  })

  test('a refresh that brings what is not to be stored removes what was', async () => {
    await start('max-age=60, stale-while-revalidate=600')
    bench.clock.advance(61_000)
    fields = { 'cache-control': 'no-store' }
    version = 2
    expect(await get()).toContain('version 1')
    await bench.middleware.drain()
    expect(await get()).toBe('200 version 2 | fwd=uri-miss; detail=no-store')
  })
})

describe('an origin that cannot be reached', () => {
  test('does not matter while there is something to serve: for a day, by default', async () => {
    await start('max-age=60')
    origin = 'fails'
    bench.clock.advance(24 * 3_600_000)
    expect(await get()).toBe('200 version 1 | fwd=stale; ttl=-86340; detail=stale-if-error')
    bench.clock.advance(60_000)
    expect((await bench.get('/a')).status).toBe(502)
  })

  test('is not waited for by every client: for a second after it failed, the stale response is served at once', async () => {
    await start('max-age=60')
    bench.clock.advance(61_000)
    origin = 'fails'
    expect(await get()).toContain('fwd=stale; ttl=-1; detail=stale-if-error')
    origin = 'hangs'
    expect(await get()).toBe('200 version 1 | hit; ttl=-1; detail=stale-if-error')
    expect(held).toHaveLength(0)
    bench.clock.advance(1000)
    const late = get()
    await until(() => held.length === 1)
    origin = 'answers'
    held[0]?.()
    expect(await late).toBe('200 version 1 | fwd=stale; fwd-status=304; ttl=60')
  })

  test('serves all who waited for it', async () => {
    await start('max-age=60')
    bench.clock.advance(61_000)
    origin = 'hangs'
    const waiting = [get(), get(), get()]
    await until(() => held.length === 1)
    origin = 'fails'
    held[0]?.()
    expect((await Promise.all(waiting)).sort()).toEqual([
      '200 version 1 | fwd=stale; collapsed; ttl=-1; detail=stale-if-error',
      '200 version 1 | fwd=stale; collapsed; ttl=-1; detail=stale-if-error',
      '200 version 1 | fwd=stale; ttl=-1; detail=stale-if-error'
    ])
    expect(bench.origin.requests).toHaveLength(2)
  })

  test.each(['must-revalidate', 'proxy-revalidate', 's-maxage=60', 'no-cache'])('%s forbids it', async (directive) => {
    await start(`max-age=60, ${directive}`)
    bench.clock.advance(61_000)
    origin = 'fails'
    expect((await bench.get('/a')).status).toBe(502)
  })

  test('a response without a validator serves as well', async () => {
    await start('max-age=60')
    fields = { 'cache-control': 'max-age=60' }
    bench.clock.advance(61_000)
    version = 2
    await get()
    await bench.middleware.drain()
    bench.clock.advance(61_000)
    origin = 'fails'
    expect(await get()).toContain('200 version 2 | fwd=stale; ttl=-1; detail=stale-if-error')
  })

  test('an old failure is not kept for it', async () => {
    origin = 'answers'
    bench = await startBench((request, response) => (origin === 'fails' ? request.socket.destroy() : response.writeHead(503).end('busy')), { negative: { statuses: { 503: 1000 } } })
    await bench.get('/a')
    await bench.middleware.drain()
    bench.clock.advance(1500)
    origin = 'fails'
    expect((await bench.get('/a')).status).toBe(502)
  })

  test('a stale entry whose bytes are gone is a miss', async () => {
    await start('max-age=60')
    bench.clock.advance(61_000)
    bench.store.breakOpen = () => new Error('gone')
    origin = 'fails'
    expect((await bench.get('/a')).status).toBe(502)
    expect(bench.storeErrors).toHaveLength(1)
  })
})

describe('an origin that answers with an error', () => {
  test.each([500, 502, 503, 504])('%d: stale-if-error has the stale response served instead', async (status) => {
    await start('max-age=60, stale-if-error=30')
    bench.clock.advance(61_000)
    origin = status
    expect(await get()).toBe(`200 version 1 | fwd=stale; fwd-status=${status}; ttl=-1; detail=stale-if-error`)
    bench.clock.advance(30_000)
    expect((await bench.get('/a')).status).toBe(status)
  })

  test('404 and 501 are answers', async () => {
    await start('max-age=60, stale-if-error=30')
    bench.clock.advance(61_000)
    for (const status of [501, 404]) {
      origin = status
      expect((await bench.get('/a')).status).toBe(status)
    }
  })

  test('is believed where the origin says nothing, unless the configuration says otherwise', async () => {
    await start('max-age=60')
    bench.clock.advance(61_000)
    origin = 503
    expect((await bench.get('/a')).status).toBe(503)
    await bench.close()
    await start('max-age=60', { stale: { ifErrorMs: 10_000 } })
    bench.clock.advance(61_000)
    origin = 503
    expect(await get()).toContain('stale-if-error')
  })
})

test('a client that takes stale responses gets them, within what it says', async () => {
  await start('max-age=60')
  bench.clock.advance(61_000)
  expect(await get({ 'cache-control': 'max-stale=10' })).toBe('200 version 1 | hit; ttl=-1; detail=max-stale')
  expect(await get({ 'cache-control': 'max-stale' })).toContain('max-stale')
  expect(await get({ 'cache-control': 'max-stale=0' })).toContain('fwd-status=304')
})

// max-stale used to be looked at alone: a response too old for the client was refused while it was fresh, and given once it was stale.
test('max-age beside max-stale limits the age all the same, and min-fresh wants nothing stale', async () => {
  await start('max-age=60')
  bench.clock.advance(70_000)
  expect(await get({ 'cache-control': 'max-stale=20, max-age=70' })).toContain('max-stale')
  expect(await get({ 'cache-control': 'max-stale=20, min-fresh=0' })).toContain('fwd-status=304')
  bench.clock.advance(70_000)
  expect(await get({ 'cache-control': 'max-stale=20, max-age=69' })).toContain('fwd-status=304')
})

test('a client that takes stale responses does not get what must be revalidated', async () => {
  await start('max-age=60, must-revalidate')
  bench.clock.advance(61_000)
  expect(await get({ 'cache-control': 'max-stale' })).toContain('fwd-status=304')
})

// In the second after a 503 every failure counted as "no answer at all", for which much longer is allowed.
test('just after a failure with a status, what stands in is what may stand in for that', async () => {
  await start('max-age=60', { stale: { ifErrorMs: 10_000 } })
  bench.clock.advance(69_500)
  origin = 503
  expect(await get()).toContain('200 version 1 | fwd=stale; fwd-status=503; ttl=-9; detail=stale-if-error')
  bench.clock.advance(400)
  expect(await get()).toContain('200 version 1 | hit; ttl=-9; detail=stale-if-error')
  bench.clock.advance(400)
  expect(await get()).toContain('503 the origin is unwell')
})

// A joiner that had found the entry before it was last confirmed was answered with that, older than what may stand in.
test('who waits with an older record of the entry does not get it because the leader may have a newer one', async () => {
  await start('max-age=5, stale-if-error=100')
  const { inner } = bench.store
  const before = await inner.get('default|http://example.org/a')
  bench.clock.advance(60_000)
  expect(await get()).toContain('fwd-status=304')
  await bench.middleware.drain()
  bench.clock.advance(60_000)
  origin = 'hangs'
  const leader = get()
  await until(() => held.length === 1)
  const find = inner.get.bind(inner)
  let shown = false
  inner.get = async () => {
    shown = true
    inner.get = find
    return before
  }
  const joiner = get()
  await until(() => shown)
  origin = 'fails'
  for (const go of held) go()
  expect(await leader).toContain('ttl=-55; detail=stale-if-error')
  expect(await joiner).toContain('ttl=-55; detail=stale-if-error')
})
