import { createHook } from 'node:async_hooks'
import { cacheResult, createRequest, type Handler, ProxyError } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { cache, MemoryStore } from '../src/index.ts'
import { headers, PushSource, TestReader } from './support.ts'

const fresh: Handler = async () => ({ status: 200, headers: headers({ 'cache-control': 'max-age=60' }), body: Buffer.from('x') })

describe('options', () => {
  test.each([
    [{ name: 'two words' }],
    [{ name: '' }],
    [{ name: '9' }],
    [{ maxObjectBytes: -1 }],
    [{ windowBytes: Number.NaN }],
    [{ finishBytes: -1 }],
    [{ keepStaleMs: -1 }],
    [{ storeStallMs: -1 }],
    [{ negative: { connectErrorMs: -1 } }],
    [{ negative: { statuses: { 404: -1 } } }],
    [{ ttl: [{ ttlMs: Number.NaN }] }]
  ])('%j is refused', (options) => {
    expect(() => cache({ store: new MemoryStore(), ...options })).toThrow(TypeError)
  })

  test('namespaces keep apart what lies in one store; the name is this cache’s own', async () => {
    const store = new MemoryStore()
    const clock = createFakeClock()
    const [one, other] = [cache({ store, clock, namespace: 'one', name: 'edge-1' })(fresh), cache({ store, clock, namespace: 'other' })(fresh)]
    await one(createRequest())
    expect((await one(createRequest())).headers['cache-status']).toBe('edge-1; hit; ttl=60')
    expect((await other(createRequest())).headers['cache-status']).toBe('proxy; fwd=uri-miss; stored; ttl=60')
  })
})

test('drain waits for fills and their commits; stats count them', async () => {
  const source = new PushSource()
  const store = new MemoryStore()
  const middleware = cache({ store })
  const handler = middleware(async () => ({ status: 200, headers: headers({ 'cache-control': 'max-age=60' }), body: source }))
  const answer = await handler(createRequest())
  const reader = new TestReader(answer.body)
  expect(middleware.stats().fills).toBe(1)
  let drained = false
  const drain = middleware.drain().then(() => (drained = true))
  source.push('text')
  await new Promise((resolve) => setImmediate(resolve))
  expect(drained).toBe(false)
  source.end()
  await drain
  expect(reader.text).toBe('text')
  expect(middleware.stats().fills).toBe(0)
  expect(store.stats().entries).toBe(1)
})

test('the exchange record says what the cache did', async () => {
  const clock = createFakeClock()
  let answer: Handler = fresh
  const handler = cache({ store: new MemoryStore(), clock, negative: { statuses: { 404: 1000 } } })((request) => answer(request))
  const result = async (init: Parameters<typeof createRequest>[0]): Promise<string | undefined> => {
    const request = createRequest(init)
    await handler(request)
    return request.exchange.get(cacheResult)
  }
  expect(await result({ target: '/a' })).toBe('miss')
  expect(await result({ target: '/a' })).toBe('hit')
  expect(await result({ target: '/a', method: 'POST' })).toBe('bypass')
  expect(await result({ target: '/a', body: Buffer.from('x') })).toBe('bypass')
  answer = async () => ({ status: 404, headers: headers(), body: null })
  await result({ target: '/none' })
  expect(await result({ target: '/none' })).toBe('negative-hit')
  answer = async (request) => ({ status: request.headers['if-none-match'] === undefined ? 200 : 304, headers: headers({ etag: '"a"', 'cache-control': 'max-age=1' }), body: null })
  await result({ target: '/b' })
  clock.advance(2000)
  expect(await result({ target: '/b' })).toBe('revalidated')
})

// It was listed as running before it had begun, and the failure that had come by then left it listed for ever: every later request joined a fill that had failed.
test('a next handler that throws instead of rejecting spoils nothing', async () => {
  const broken = new ProxyError('no', { code: 'X', status: 500, source: 'proxy' })
  let throws = true
  const middleware = cache({ store: new MemoryStore() })
  const handler = middleware((request) => {
    if (throws) throw broken
    return fresh(request)
  })
  await expect(handler(createRequest())).rejects.toBe(broken)
  expect(middleware.stats().fills).toBe(0)
  throws = false
  expect((await handler(createRequest())).status).toBe(200)
})

// Each promise costs a microtask and an object: a hit in memory is two async functions deep, and its store adds nothing.
test('a hit in memory makes no more promises than two async functions do', async () => {
  const handler = cache({ store: new MemoryStore() })(fresh)
  const request = createRequest()
  await handler(request)
  await handler(request)
  const counted = async (run: () => Promise<unknown>): Promise<number> => {
    let promises = 0
    const hook = createHook({
      init(_, type) {
        if (type === 'PROMISE') promises++
      }
    }).enable()
    const running = run()
    await running
    hook.disable()
    return promises
  }
  const settled = Promise.resolve()
  const inner = async (): Promise<void> => {
    await settled
  }
  const outer = async (): Promise<void> => {
    await settled
    await inner()
  }
  const hit = await counted(() => handler(request))
  expect(hit).toBeGreaterThan(0)
  expect(hit).toBeLessThanOrEqual(await counted(outer))
})
