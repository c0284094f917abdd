import { createHeaders, createRequest, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { cache, MemoryStore } from '../src/index.ts'
import { Uncacheable } from '../src/uncacheable.ts'

/** An origin whose answers are let go one by one. */
function gated(cacheControl: () => string): { handler: Handler; waiting: (() => void)[] } {
  const waiting: (() => void)[] = []
  const handler: Handler = () =>
    new Promise((resolve) =>
      waiting.push(() => {
        const headers = createHeaders()
        headers['cache-control'] = cacheControl()
        resolve({ status: 200, headers, body: Buffer.from('x') })
      })
    )
  return { handler, waiting }
}
const anonymous = { authorized: false, personal: false }
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

// Once an answer was seen not to be for sharing, requests for its URL used to queue behind one another's header: a pass-through URL served one client at a time.
test('requests for a URL known to be uncacheable reach the origin side by side, and the URL is looked at anew after a while', async () => {
  const clock = createFakeClock()
  let control = 'no-store'
  const { handler, waiting } = gated(() => control)
  const proxy = cache({ store: new MemoryStore(), clock })(handler)
  const ask = (): Promise<string | string[] | undefined> => proxy(createRequest({ target: '/a' })).then((response) => response.headers['cache-status'])

  const first = ask()
  await turn()
  waiting.shift()?.()
  expect(await first).toBe('proxy; fwd=uri-miss; detail=no-store')

  const side = [ask(), ask(), ask()]
  await turn()
  expect(waiting).toHaveLength(3)
  for (const go of waiting.splice(0)) go()
  expect(await Promise.all(side)).toEqual(Array(3).fill('proxy; fwd=uri-miss; detail=no-store'))

  clock.advance(10_000)
  control = 'max-age=60'
  const joined = [ask(), ask()]
  await turn()
  expect(waiting).toHaveLength(1)
  waiting.shift()?.()
  expect(await Promise.all(joined)).toEqual(['proxy; fwd=uri-miss; stored; ttl=60', 'proxy; fwd=uri-miss; collapsed; ttl=60'])
})

test('remembers a bounded number of keys, and only reasons that lie in the answer', () => {
  const marks = new Uncacheable()
  for (let i = 0; i < 10_002; i++) marks.add(`k${i}`, 'private', 200, 0, anonymous)
  expect(marks.find('k0', 1, false)?.reason).toBeUndefined()
  expect(marks.find('k10001', 1, false)?.reason).toBe('private')
  marks.add('one client', 'authorization', 200, 0, anonymous)
  expect(marks.find('one client', 1, false)?.reason).toBeUndefined()
  expect(marks.find('k10001', 10_000, false)?.reason).toBeUndefined()
  const long = 'x'.repeat(2049)
  marks.add(long, 'private', 200, 0, anonymous)
  expect(marks.find(long, 1, false)?.reason).toBeUndefined()
})

// Each authorized request to an API behind the cache led a fill of its own that nobody could share: it cost as much again as forwarding the request.
test('requests with credentials go by the cache after an answer that others with credentials would get too, and nobody else does', () => {
  const authorized = { authorized: true, personal: true }
  const marks = new Uncacheable()
  marks.add('api', 'authorization', 200, 0, authorized)
  expect(marks.find('api', 1, true)).toEqual({ reason: 'authorization', untilMs: 10_000, bypass: true })
  expect(marks.find('api', 1, false)).toBeUndefined()
  expect(marks.find('api', 10_000, true)).toBeUndefined()

  marks.add('said', 'no-store', 200, 0, authorized)
  expect(marks.find('said', 1, true)?.bypass).toBe(true)
  expect(marks.find('said', 1, false)?.bypass).toBe(false)
  // Wrong credentials are easily sent.
  marks.add('refused', 'no-store', 401, 0, authorized)
  expect(marks.find('refused', 1, true)?.bypass).toBe(false)
  marks.add('cookie', 'no-store', 200, 0, { authorized: false, personal: true })
  expect(marks.find('cookie', 1, true)?.bypass).toBe(false)
  marks.add('open', 'no-freshness', 200, 0, anonymous)
  expect([marks.find('open', 1, true)?.bypass, marks.find('open', 1, false)?.bypass]).toEqual([true, true])
})

test('a client that leaves ends its request at the origin once its URL is known to be uncacheable for it', async () => {
  const signals: AbortSignal[] = []
  const handler: Handler = (request) => {
    signals.push(request.signal)
    return Promise.resolve({ status: 200, headers: createHeaders(), body: Buffer.from('x') })
  }
  const proxy = cache({ store: new MemoryStore() })(handler)
  const { signal } = new AbortController()
  const headers = createHeaders()
  headers.authorization = 'Bearer a'
  const first = await proxy(createRequest({ target: '/a', headers, signal }))
  const second = await proxy(createRequest({ target: '/a', headers, signal }))
  expect([first, second].map((response) => response.headers['cache-status'])).toEqual(Array(2).fill('proxy; fwd=uri-miss; detail=authorization'))
  expect(signals.map((one) => one === signal)).toEqual([false, true])
})
