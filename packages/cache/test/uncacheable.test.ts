import { createHeaders, createRequest, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { cache, MemoryStore } from '../src/index.ts'
import { Uncacheable } from '../src/uncacheable.ts'
import { startBench } from './support.ts'

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
interface ServerResponseHead {
  readonly status: number
  readonly fields: Record<string, string>
}

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
  for (let i = 0; i < 10_002; i++) marks.add(`k${i}`, 'anonymous', 'private', 200, 0)
  expect(marks.find('k0', 'anonymous', 1)).toBeUndefined()
  expect(marks.find('k10001', 'anonymous', 1)).toEqual({ reason: 'private', untilMs: 10_000, bypass: true })
  expect(marks.find('k10001', 'anonymous', 10_000)).toBeUndefined()
  marks.add('one client', 'anonymous', 'authorization', 200, 0)
  marks.add('one request', 'anonymous', 'request-no-store', 200, 0)
  const long = 'x'.repeat(2049)
  marks.add(long, 'anonymous', 'private', 200, 0)
  for (const key of ['one client', 'one request', long]) expect(marks.find(key, 'anonymous', 1)).toBeUndefined()
})

test('failures say nothing, other errors not enough to go by the cache', () => {
  const marks = new Uncacheable()
  marks.add('503', 'anonymous', 'no-store', 503, 0)
  marks.add('404', 'anonymous', 'no-freshness', 404, 0)
  marks.add('200', 'anonymous', 'no-freshness', 200, 0)
  marks.add('cookie', 'anonymous', 'set-cookie', 200, 0)
  expect(['503', '404', '200', 'cookie'].map((key) => marks.find(key, 'anonymous', 1)?.bypass)).toEqual([undefined, false, true, false])
  marks.forget('200')
  expect(marks.find('200', 'anonymous', 1)).toBeUndefined()
})

// Each authorized request to an API behind the cache led a fill of its own that nobody could share: it cost as much again as forwarding the request.
test('counts for clients of the same kind alone', () => {
  const marks = new Uncacheable()
  marks.add('api', 'authorized', 'authorization', 200, 0)
  marks.add('page', 'cookie', 'private', 200, 0)
  const kinds = ['anonymous', 'cookie', 'authorized'] as const
  expect(kinds.map((kind) => marks.find('api', kind, 1)?.bypass)).toEqual([undefined, undefined, true])
  expect(kinds.map((kind) => marks.find('page', kind, 1)?.bypass)).toEqual([undefined, true, undefined])
})

// One request with a field that the origin did not like, a 404 or a 400 for its sender, had the URL go by the cache for everybody for ten seconds.
describe('a client that has the origin refuse', () => {
  /** Clients who ask at the same time, and how often the origin was asked for them. */
  const crowd = async (poison: Record<string, string>, refusal: ServerResponseHead, good: Record<string, string> = {}): Promise<number[]> => {
    let asked = 0
    const handler: Handler = async ({ headers: fields }) => {
      asked++
      const [name, value] = Object.entries(poison)[0] as [string, string]
      const refused = fields[name] === value
      await turn()
      const headers = createHeaders()
      Object.assign(headers, refused ? refusal.fields : { 'cache-control': 'public, max-age=60', ...good })
      return { status: refused ? refusal.status : 200, headers, body: Buffer.from('x') }
    }
    const middleware = cache({ store: new MemoryStore() })
    const proxy = middleware(handler)
    const ask = (fields: Record<string, string> = {}): Promise<unknown> => proxy(createRequest({ target: '/a', headers: Object.assign(createHeaders(), fields) }))
    await ask(poison)
    const counts: number[] = []
    for (const size of [1, 20]) {
      asked = 0
      await Promise.all(Array.from({ length: size }, () => ask()))
      await middleware.drain()
      counts.push(asked)
    }
    return counts
  }

  test.each<[string, Record<string, string>, ServerResponseHead]>([
    ['400 no-store', { 'x-version': 'bad' }, { status: 400, fields: { 'cache-control': 'no-store' } }],
    ['404 of another tenant', { 'x-tenant': 'zz' }, { status: 404, fields: {} }],
    ['200 no-store', { 'x-preview': '1' }, { status: 200, fields: { 'cache-control': 'no-store' } }],
    ['200 private with a cookie', { cookie: 'a=1' }, { status: 200, fields: { 'cache-control': 'private' } }],
    ['401 for wrong credentials', { authorization: 'Bearer x' }, { status: 401, fields: { 'cache-control': 'no-store' } }],
    ['503', { 'x-bad': '1' }, { status: 503, fields: {} }]
  ])('%s: the next good answer ends it', async (_, poison, refusal) => {
    const [next, rest] = await crowd(poison, refusal)
    expect(next).toBe(1)
    expect(rest).toBeLessThanOrEqual(1)
  })
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

// Each of those who waited asked by itself, at the same moment, an origin that had just said that it was overloaded.
test.each([
  ['once', 1, 2, [200, 503]],
  ['for good', Number.POSITIVE_INFINITY, 2, [503]]
])('those who waited for a failure have one more request made for them: it fails %s', async (_, failures, expected, statuses) => {
  let asked = 0
  const waiting: (() => void)[] = []
  const handler: Handler = async () => {
    const status = ++asked <= failures ? 503 : 200
    await new Promise<void>((resolve) => waiting.push(resolve))
    const headers = createHeaders()
    if (status === 200) headers['cache-control'] = 'max-age=60'
    return { status, headers, body: Buffer.from('x') }
  }
  const proxy = cache({ store: new MemoryStore() })(handler)
  const answers = Promise.allSettled(Array.from({ length: 100 }, () => proxy(createRequest({ target: '/a' }))))
  for (let i = 0; i < 10; i++) {
    await turn()
    expect(waiting.length).toBeLessThanOrEqual(1)
    for (const go of waiting.splice(0)) go()
  }
  const seen = (await answers).map((answer) => (answer.status === 'fulfilled' ? answer.value.status : (answer.reason as { status: number }).status))
  expect([asked, [...new Set(seen)].sort((a, b) => a - b)]).toEqual([expected, statuses])
  expect(seen.filter((status) => status === 503)).toHaveLength(failures === 1 ? 1 : 100)
})

test('what is known to go by the cache is not looked up, other than by a client that wants nothing else', async () => {
  const started = await startBench((_, response) => response.writeHead(200, { 'cache-control': 'no-store' }).end('x'))
  try {
    await started.get('/a')
    const calls = started.store.calls.length
    expect((await started.get('/a')).cacheStatus).toContain('detail=no-store')
    expect(started.store.calls.length).toBe(calls)
    // A client with a cookie may be told something else.
    await started.get('/a', { cookie: 'a=1' })
    expect(started.store.calls.length).toBe(calls + 1)
    expect((await started.get('/a', { 'cache-control': 'only-if-cached' })).status).toBe(504)
    expect(started.origin.requests.length).toBe(3)
  } finally {
    await started.close()
  }
})

test('one answer that may be stored ends it: the next are fetched for all who wait', async () => {
  let cookie = true
  const started = await startBench((_, response) => response.writeHead(200, { 'cache-control': 'max-age=1', ...(cookie && { 'set-cookie': 'a=1' }) }).end('x'))
  try {
    await started.get('/a')
    cookie = false
    await started.get('/a')
    await started.middleware.drain()
    started.clock.advance(2000)
    const before = started.origin.requests.length
    await Promise.all(Array.from({ length: 10 }, () => started.get('/a')))
    expect(started.origin.requests.length).toBe(before + 1)
  } finally {
    await started.close()
  }
})
