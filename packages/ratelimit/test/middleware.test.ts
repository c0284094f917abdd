import { once } from 'node:events'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { compose, createHeaders, createRequest, type Handler, type ProxyResponse, readAll } from '@proxy/pipeline'
import { toNode } from '@proxy/pipeline/node'
import { createFakeClock, rawExchange } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { type Decision, type Limiter, type RateLimitOptions, rateLimit, slidingWindow, tokenBucket } from '../src/index.ts'

const answer = (): ProxyResponse => ({ status: 200, headers: createHeaders(), body: null })
const ok: Handler = async () => answer()
const clock = createFakeClock()
const bucket = (burst = 2) => tokenBucket({ rate: 100, perMs: 60_000, burst, clock })
/** The same limit as one behind a network. */
const remote = (limiter: Limiter): Limiter => ({ take: (key, cost) => limiter.take(key, cost) })
const fieldsOf = ({ headers }: ProxyResponse) => Object.fromEntries(Object.entries(headers).filter(([name]) => /ratelimit|retry/.test(name)))

async function answers(options: RateLimitOptions, times: number, next: Handler = ok): Promise<ProxyResponse[]> {
  const handler = rateLimit(options)(next)
  const responses: ProxyResponse[] = []
  for (let i = 0; i < times; i++) responses.push(await handler(createRequest()))
  return responses
}

describe('an allowed request', () => {
  test("gets the next layer's own promise", () => {
    const promise = Promise.resolve(answer())
    const handler = rateLimit({ limiter: bucket() })(() => promise)
    expect(handler(createRequest())).toBe(promise)
  })

  test('so does one that is not limited, and nothing is taken for it', () => {
    const promise = Promise.resolve(answer())
    const limiter = bucket()
    const handler = rateLimit({ limiter, key: () => undefined, onAllowed: true })(() => promise)
    for (let i = 0; i < 5; i++) expect(handler(createRequest())).toBe(promise)
    expect(limiter.size).toBe(0)
  })

  test('reaches the next layer unchanged', async () => {
    const request = createRequest()
    const seen: unknown[] = []
    const next: Handler = async (received) => {
      seen.push(received)
      return answer()
    }
    await rateLimit({ limiter: bucket() })(next)(request)
    await rateLimit({ limiter: remote(bucket()) })(next)(request)
    expect(seen).toEqual([request, request])
    expect(seen[0]).toBe(request)
  })

  test('has no fields about its limit', async () => {
    for (const headers of ['draft', 'x', 'none'] as const) expect(fieldsOf((await answers({ limiter: bucket(), headers }, 1))[0] as ProxyResponse)).toEqual({})
  })

  test('fails as the next layer fails', async () => {
    const error = new Error('origin')
    for (const onAllowed of [true, false]) await expect(rateLimit({ limiter: bucket(), onAllowed })(() => Promise.reject(error))(createRequest())).rejects.toBe(error)
  })
})

describe.each([
  ['in memory', (limiter: Limiter) => limiter],
  ['behind a promise', remote]
])('a denied request, limiter %s', (_, wrap) => {
  test('is answered 429 with Retry-After and the fields of the draft', async () => {
    const [, , denied] = (await answers({ limiter: wrap(bucket()) }, 3)) as [unknown, unknown, ProxyResponse]
    expect(denied.status).toBe(429)
    expect({ ...denied.headers }).toEqual({
      'content-type': 'text/plain; charset=utf-8',
      'content-length': '18',
      'cache-control': 'no-store',
      'retry-after': '1',
      'ratelimit-policy': '"default";q=2;w=2',
      ratelimit: '"default";r=0;t=1'
    })
    expect((await readAll(denied.body, 100)).toString()).toBe('Too Many Requests\n')
  })

  test('does not reach the next layer', async () => {
    let reached = 0
    await answers({ limiter: wrap(bucket()) }, 10, async () => {
      reached++
      return answer()
    })
    expect(reached).toBe(2)
  })

  test('Retry-After is rounded up and true', async () => {
    const limiter = wrap(slidingWindow({ limit: 1, windowMs: 9001, clock }))
    const handler = rateLimit({ limiter })(ok)
    await handler(createRequest())
    const denied = await handler(createRequest())
    expect(denied.headers['retry-after']).toBe('10')
    clock.advance(Number(denied.headers['retry-after']) * 1000)
    expect((await handler(createRequest())).status).toBe(200)
  })

  test('headers: x', async () => {
    const [, , denied] = (await answers({ limiter: wrap(bucket()), headers: 'x' }, 3)) as [unknown, unknown, ProxyResponse]
    expect(fieldsOf(denied)).toEqual({ 'retry-after': '1', 'x-ratelimit-limit': '2', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '2' })
  })

  test('headers: none leaves Retry-After', async () => {
    const [, , denied] = (await answers({ limiter: wrap(bucket()), headers: 'none' }, 3)) as [unknown, unknown, ProxyResponse]
    expect(fieldsOf(denied)).toEqual({ 'retry-after': '1' })
  })

  test('that can never be allowed is not told to retry', async () => {
    const [denied] = (await answers({ limiter: wrap(bucket()), cost: () => 3 }, 1)) as [ProxyResponse]
    expect([denied.status, fieldsOf(denied)]).toEqual([429, { 'ratelimit-policy': '"default";q=2;w=2', ratelimit: '"default";r=2' }])
  })

  test('is told to onLimited', async () => {
    const seen: [string, Pick<Decision, 'allowed' | 'remaining'>][] = []
    const handler = rateLimit({ limiter: wrap(bucket()), onLimited: ({ target }, { allowed, remaining }) => seen.push([target, { allowed, remaining }]) })(ok)
    for (const target of ['/1', '/2', '/3', '/4']) await handler(createRequest({ target }))
    expect(seen).toEqual([
      ['/3', { allowed: false, remaining: 0 }],
      ['/4', { allowed: false, remaining: 0 }]
    ])
  })

  test('the answer is nobody else’s: changing it changes no other', async () => {
    const handler = rateLimit({ limiter: wrap(bucket(1)) })(ok)
    await handler(createRequest())
    const first = await handler(createRequest())
    first.headers['x-mine'] = '1'
    first.status = 503
    const second = await handler(createRequest())
    expect([second.status, second.headers['x-mine']]).toEqual([429, undefined])
  })

  test('onAllowed: allowed answers carry the fields, each its own though they are under way together', async () => {
    const gates: (() => void)[] = []
    const handler = rateLimit({ limiter: wrap(bucket(10)), onAllowed: true })(() => new Promise((resolve) => gates.push(() => resolve(answer()))))
    const pending = [handler(createRequest()), handler(createRequest()), handler(createRequest())]
    await expect.poll(() => gates.length).toBe(3)
    for (const open of gates) open()
    const responses = await Promise.all(pending)
    expect(responses.map((response) => response.headers.ratelimit)).toEqual(['"default";r=9;t=6', '"default";r=8;t=5', '"default";r=7;t=5'])
    expect(responses.map((response) => response.headers['ratelimit-policy'])).toEqual(['"default";q=10;w=6', '"default";q=10;w=6', '"default";q=10;w=6'])
    expect(responses[0]?.headers['retry-after']).toBeUndefined()
  })

  test('onAllowed with headers: x, and with none', async () => {
    const [first] = (await answers({ limiter: wrap(bucket(10)), onAllowed: true, headers: 'x' }, 1)) as [ProxyResponse]
    expect(fieldsOf(first)).toEqual({ 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '9', 'x-ratelimit-reset': '1' })
    const [second] = (await answers({ limiter: wrap(bucket(10)), onAllowed: true, headers: 'none' }, 1)) as [ProxyResponse]
    expect(fieldsOf(second)).toEqual({})
  })

  test('the cost is what the function says', async () => {
    const handler = rateLimit({ limiter: wrap(bucket(10)), cost: ({ method }) => (method === 'GET' ? 1 : 5), onAllowed: true, headers: 'x' })(ok)
    const left = async (method: string) => (await handler(createRequest({ method }))).headers['x-ratelimit-remaining']
    expect([await left('POST'), await left('GET'), await left('GET')]).toEqual(['5', '4', '3'])
  })

  test('functions of the user that throw make the promise reject', async () => {
    const error = new Error('mine')
    const fail = () => {
      throw error
    }
    for (const options of [{ key: fail }, { cost: fail }]) await expect(rateLimit({ limiter: wrap(bucket()), ...options })(ok)(createRequest())).rejects.toBe(error)
    await expect(rateLimit({ limiter: wrap(bucket()), cost: () => Number.NaN })(ok)(createRequest())).rejects.toThrow(RangeError)
    const handler = rateLimit({ limiter: wrap(bucket(1)), onLimited: fail })(ok)
    await handler(createRequest())
    await expect(handler(createRequest())).rejects.toBe(error)
  })
})

describe('several limits', () => {
  const perSecond = () => tokenBucket({ rate: 1, burst: 2, name: 'second', clock })
  const perHour = () => slidingWindow({ limit: 3, windowMs: 3_600_000, name: 'hour', clock })

  test('each denies for itself, and allowed answers tell of both', async () => {
    const handler = compose(rateLimit({ limiter: perHour(), onAllowed: true }), rateLimit({ limiter: perSecond(), onAllowed: true }))(ok)
    const first = await handler(createRequest())
    expect(first.headers['ratelimit-policy']).toEqual(['"second";q=2;w=2', '"hour";q=3;w=3600'])
    expect(first.headers.ratelimit).toEqual(['"second";r=1;t=1', '"hour";r=2;t=2400'])
    await handler(createRequest())
    const bySecond = await handler(createRequest())
    expect([bySecond.status, bySecond.headers['retry-after']]).toEqual([429, '1'])
    clock.advance(2000)
    const byHour = await handler(createRequest())
    expect([byHour.status, byHour.headers.ratelimit]).toEqual([429, '"hour";r=0;t=3598'])
  })

  test('with X-RateLimit fields the one with least left is told', async () => {
    for (const limiters of [
      [perHour(), perSecond()],
      [perSecond(), perHour()]
    ]) {
      const handler = compose(...limiters.map((limiter) => rateLimit({ limiter, headers: 'x', onAllowed: true })))(ok)
      expect((await handler(createRequest())).headers).toMatchObject({ 'x-ratelimit-limit': '2', 'x-ratelimit-remaining': '1' })
    }
  })

  test('what an origin says about its own limits stays', async () => {
    const origin: Handler = async () => ({ ...answer(), headers: { 'ratelimit-policy': '"origin";q=5;w=1', ratelimit: '"origin";r=4;t=1' } })
    const [response] = (await answers({ limiter: bucket(), onAllowed: true }, 1, origin)) as [ProxyResponse]
    expect(response.headers['ratelimit-policy']).toEqual(['"origin";q=5;w=1', '"default";q=2;w=2'])
    expect(response.headers.ratelimit).toEqual(['"origin";r=4;t=1', '"default";r=1;t=1'])
  })
})

describe('over sockets', () => {
  async function serve(options: RateLimitOptions) {
    const server = createServer(toNode(rateLimit(options)(ok))).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return { port: (server.address() as AddressInfo).port, [Symbol.dispose]: () => void server.close() }
  }

  test('new connections from one address share its limit', async () => {
    using server = await serve({ limiter: slidingWindow({ limit: 3, windowMs: 60_000 }) })
    const statuses: (number | undefined)[] = []
    for (let i = 0; i < 5; i++) {
      const outgoing = httpRequest({ port: server.port, host: '127.0.0.1', agent: false }).end()
      const [incoming] = (await once(outgoing, 'response')) as [import('node:http').IncomingMessage]
      incoming.resume()
      statuses.push(incoming.statusCode)
    }
    expect(statuses).toEqual([200, 200, 200, 429, 429])
  })

  test('a denied upload leaves the connection usable', async () => {
    using server = await serve({ limiter: slidingWindow({ limit: 1, windowMs: 60_000, clock: createFakeClock() }) })
    const get = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n'
    const post = `POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\n\r\n${'x'.repeat(50_000)}`
    const last = 'GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'
    const text = (await rawExchange(server.port, get + post + last)).toString('latin1')
    expect(text.match(/^HTTP\/1\.1 \d+/gm)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 429', 'HTTP/1.1 429'])
    expect(text.toLowerCase()).toContain('retry-after: 60\r\n')
    expect(text.endsWith('Too Many Requests\n')).toBe(true)
  })
})
