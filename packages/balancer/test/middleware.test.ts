import { Readable } from 'node:stream'
import {
  type Body,
  clientAborted,
  createExchangeKey,
  createRequest,
  Exchange,
  type Handler,
  ProxyError,
  type ProxyRequest,
  type ProxyResponse,
  target,
  upstreamAttempts,
  upstreamName,
  WholeBody
} from '@proxy/pipeline'
import { describe, expect, it } from 'vitest'
import { type BalanceOptions, type Balancer, balance, createBalancer } from '../src/index.ts'
import { balancerOf, connectRefused, HandMadeBody, names } from './helpers.ts'

const timeout = () => new ProxyError('no answer', { code: 'TEST_TIMEOUT', status: 504, source: 'upstream' })
const ok = (): ProxyResponse => ({ status: 200, headers: {}, body: null })

/** A `next` where the targets named in `down` fail as stated; it keeps the names of those asked. */
function farm(down: Record<string, () => unknown> = {}): { handler: Handler; asked: string[]; requests: ProxyRequest[] } {
  const asked: string[] = []
  const requests: ProxyRequest[] = []
  return {
    asked,
    requests,
    handler: async (request) => {
      const name = request.context.get(target)?.name as string
      asked.push(name)
      requests.push(request)
      const failure = down[name]
      if (failure !== undefined) throw failure()
      return ok()
    }
  }
}

async function codeOf(answer: Promise<ProxyResponse>): Promise<string> {
  return answer.then(
    () => 'answered',
    (error: ProxyError) => error.code
  )
}

const held = (balancer: Balancer) => balancer.targets.map((state) => state.active)
const counts = (balancer: Balancer) => balancer.targets.map(({ successes, failures, aborts }) => `${successes}/${failures}/${aborts}`).join(' ')

describe('balance', () => {
  it('gives each request a target in its context, and changes nothing else', async () => {
    const { handler, requests } = farm()
    const balanced = balance({ balancer: balancerOf({ a: 1, b: 1 }) })(handler)
    const request = createRequest({ method: 'POST', target: '/path?q', headers: { 'x-a': '1' }, body: Buffer.from('body') })
    for (let i = 0; i < 2; i++) await balanced(request)
    expect(requests.map((each) => each.context.get(target)?.origin)).toEqual(['http://127.0.0.1:9000', 'http://127.0.0.1:9001'])
    expect(requests[0]).toMatchObject({ method: 'POST', target: '/path?q' })
    expect(requests[0]?.body).toBe(request.body)
    expect(request.context.get(target)).toBeUndefined()
  })

  it('returns the answer itself', async () => {
    const answer = { status: 418, headers: { 'x-a': '1' }, body: null }
    const balanced = balance({ balancer: balancerOf({ a: 1 }) })(() => Promise.resolve(answer))
    expect(await balanced(createRequest())).toBe(answer)
  })

  it('writes the name of the target and the attempts to the exchange, and leaves its other slots', async () => {
    const other = createExchangeKey<string>('other')
    const exchange = new Exchange()
    exchange.set(other, 'kept')
    const balanced = balance({ balancer: balancerOf({ a: 1, b: 1 }) })(farm({ a: connectRefused }).handler)
    await balanced(createRequest({ exchange }))
    expect([exchange.get(upstreamName), exchange.get(upstreamAttempts), exchange.get(other)]).toEqual(['b', 2, 'kept'])
  })

  it('adds up the attempts of several requests in one exchange', async () => {
    const exchange = new Exchange()
    const balanced = balance({ balancer: balancerOf({ a: 1 }) })(farm().handler)
    for (let i = 0; i < 3; i++) await balanced(createRequest({ exchange }))
    expect(exchange.get(upstreamAttempts)).toBe(3)
  })

  it('throws 503 when there is no target', async () => {
    const { handler, asked } = farm()
    await expect(balance({ balancer: createBalancer({ targets: [] }) })(handler)(createRequest())).rejects.toMatchObject({
      code: 'BALANCER_NO_TARGET',
      status: 503,
      source: 'proxy',
      retryable: false,
      proxyStatus: 'destination_unavailable'
    })
    expect(asked).toEqual([])
  })

  it('rejects, and does not throw, when next throws before it returns a promise', async () => {
    const balancer = balancerOf({ a: 1 })
    const balanced = balance({ balancer })(() => {
      throw new TypeError('a bug')
    })
    await expect(balanced(createRequest())).rejects.toThrow('a bug')
    expect([held(balancer), counts(balancer)]).toEqual([[0], '0/0/1'])
  })

  it.each<Partial<BalanceOptions>>([{ retries: -1 }, { retries: 0.5 }, { retries: Number.NaN }, { unavailableStatus: 200 }, { unavailableStatus: 600 }, { unavailableStatus: 500.5 }])(
    'refuses %j',
    (options) => {
      expect(() => balance({ balancer: balancerOf({ a: 1 }), ...options })).toThrow(RangeError)
    }
  )
})

describe('retry', () => {
  it('takes the next target when one cannot be reached: one failure, no error for the client', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const { handler, asked } = farm({ a: connectRefused })
    expect((await balance({ balancer })(handler)(createRequest())).status).toBe(200)
    expect(asked).toEqual(['a', 'b'])
    expect([held(balancer), counts(balancer)]).toEqual([[0, 0], '0/1/0 1/0/0'])
  })

  it.each([
    [0, ['a']],
    [1, ['a', 'b']],
    [2, ['a', 'b', 'c']],
    [99, ['a', 'b', 'c', 'd']]
  ])('tries at most %i more targets, never one twice', async (retries, expected) => {
    const balancer = balancerOf({ a: 1, b: 1, c: 1, d: 1 })
    const { handler, asked } = farm({ a: connectRefused, b: connectRefused, c: connectRefused, d: connectRefused })
    expect(await codeOf(balance({ balancer, retries })(handler)(createRequest()))).toBe('TEST_CONNECT_REFUSED')
    expect(asked).toEqual(expected)
    expect(held(balancer)).toEqual([0, 0, 0, 0])
  })

  it('is one by default', async () => {
    const { handler, asked } = farm({ a: connectRefused, b: connectRefused })
    expect(await codeOf(balance({ balancer: balancerOf({ a: 1, b: 1, c: 1 }) })(handler)(createRequest()))).toBe('TEST_CONNECT_REFUSED')
    expect(asked).toEqual(['a', 'b'])
  })

  it('is not made when something may have been processed', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const { handler, asked } = farm({ a: timeout })
    expect(await codeOf(balance({ balancer })(handler)(createRequest()))).toBe('TEST_TIMEOUT')
    expect(asked).toEqual(['a'])
    expect(counts(balancer)).toBe('0/1/0 0/0/0')
  })

  it('is not made for an answer, whatever its status', async () => {
    const asked: string[] = []
    const balanced = balance({ balancer: balancerOf({ a: 1, b: 1 }), failureStatuses: [503] })(async (request) => {
      asked.push(request.context.get(target)?.name as string)
      return { status: 503, headers: {}, body: null }
    })
    expect((await balanced(createRequest())).status).toBe(503)
    expect(asked).toEqual(['a'])
  })

  it.each<[string, () => Body, number]>([
    ['no body', () => null, 2],
    ['bytes', () => Buffer.from('body'), 2],
    ['a whole body', () => new WholeBody('body'), 2],
    ['a Readable', () => Readable.from(['body']), 1],
    ['a body source', () => new HandMadeBody(), 1]
  ])('of a POST with %s after a failed connection: %#', async (_, body, attempts) => {
    const { handler, asked, requests } = farm({ a: connectRefused })
    const request = createRequest({ method: 'POST', body: body() })
    expect(await codeOf(balance({ balancer: balancerOf({ a: 1, b: 1 }) })(handler)(request))).toBe(attempts === 2 ? 'answered' : 'TEST_CONNECT_REFUSED')
    expect(asked).toHaveLength(attempts)
    expect(requests.every((each) => each.body === request.body && each.method === 'POST')).toBe(true)
  })

  it('of a POST with bytes is not made after anything but a failed connection', async () => {
    const { handler, asked } = farm({ a: timeout })
    expect(await codeOf(balance({ balancer: balancerOf({ a: 1, b: 1 }) })(handler)(createRequest({ method: 'POST', body: Buffer.from('body') })))).toBe('TEST_TIMEOUT')
    expect(asked).toEqual(['a'])
  })

  it('is made, without blaming the target, when this side had no room for it', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const { handler, asked } = farm({ a: () => new ProxyError('queue full', { code: 'TEST_QUEUE_FULL', status: 503, source: 'proxy', retryable: true }) })
    expect(await codeOf(balance({ balancer })(handler)(createRequest()))).toBe('answered')
    expect(asked).toEqual(['a', 'b'])
    expect(counts(balancer)).toBe('0/0/1 1/0/0')
  })
})

describe('a client that leaves', () => {
  it('is no failure of the target and causes no retry', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const { handler, asked } = farm({ a: () => clientAborted(), b: () => new ProxyError('gone', { code: 'TEST_GONE', status: 499, source: 'client', retryable: true }) })
    const balanced = balance({ balancer, unavailableStatus: 503 })(handler)
    expect(await codeOf(balanced(createRequest()))).toBe('CLIENT_ABORTED')
    expect(await codeOf(balanced(createRequest()))).toBe('TEST_GONE')
    expect(asked).toEqual(['a', 'b'])
    expect(counts(balancer)).toBe('0/0/1 0/0/1')
  })

  it('is recognised by the signal, whatever the attempt failed with', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const { handler, asked } = farm({ a: connectRefused })
    const client = new AbortController()
    client.abort()
    expect(await codeOf(balance({ balancer, unavailableStatus: 503 })(handler)(createRequest({ signal: client.signal })))).toBe('TEST_CONNECT_REFUSED')
    expect(asked).toEqual(['a'])
    expect(counts(balancer)).toBe('0/0/1 0/0/0')
  })
})

describe('a fault of this side', () => {
  it('is no failure of the target', async () => {
    const balancer = balancerOf({ a: 1 })
    const { handler } = farm({ a: () => new TypeError('a bug') })
    for (let i = 0; i < 5; i++) await expect(balance({ balancer })(handler)(createRequest())).rejects.toThrow(TypeError)
    expect(counts(balancer)).toBe('0/0/5')
    expect(balancer.targets[0]?.status).toBe('available')
  })
})

describe('unavailableStatus', () => {
  const answer = (down: Record<string, () => unknown>, body: Body = null, retries = 1) =>
    balance({ balancer: balancerOf({ a: 1, b: 1 }), retries, unavailableStatus: 503 })(farm(down).handler)(createRequest({ body }))

  it('replaces the status when no target could be reached, and keeps the rest', async () => {
    const last = new ProxyError('refused', { code: 'TEST_CONNECT_REFUSED', status: 502, source: 'upstream', retryable: true, proxyStatus: 'connection_refused', retryAfter: 3 })
    await expect(answer({ a: connectRefused, b: () => last })).rejects.toMatchObject({
      code: 'BALANCER_UNAVAILABLE',
      message: '2 targets could not be reached: refused',
      status: 503,
      source: 'upstream',
      retryable: true,
      proxyStatus: 'connection_refused',
      retryAfter: 3,
      cause: last
    })
    await expect(answer({ a: connectRefused }, null, 0)).rejects.toMatchObject({ status: 503, message: 'the target could not be reached: connection refused' })
    await expect(answer({ a: connectRefused }, new HandMadeBody())).rejects.toMatchObject({ status: 503 })
  })

  it('leaves the status of a target that was reached and failed', async () => {
    await expect(answer({ a: timeout })).rejects.toMatchObject({ code: 'TEST_TIMEOUT', status: 504 })
    await expect(answer({ a: connectRefused, b: timeout })).rejects.toMatchObject({ code: 'TEST_TIMEOUT', status: 504 })
  })

  it('is the status of the last error by default', async () => {
    const balanced = balance({ balancer: balancerOf({ a: 1 }) })(farm({ a: connectRefused }).handler)
    await expect(balanced(createRequest())).rejects.toMatchObject({ code: 'TEST_CONNECT_REFUSED', status: 502 })
  })
})

describe('storms', () => {
  it('are bounded: with everything down, 1000 requests make 2000 attempts; once one is ejected, hardly more than one each', async () => {
    const down = balancerOf({ a: 1, b: 1, c: 1 })
    const all = farm({ a: connectRefused, b: connectRefused, c: connectRefused })
    const balanced = balance({ balancer: down })(all.handler)
    for (let i = 0; i < 1000; i++) await codeOf(balanced(createRequest()))
    expect(all.asked).toHaveLength(2000)
    expect(down.degraded).toBe(true)

    const half = balancerOf({ a: 1, b: 1 })
    const one = farm({ a: connectRefused })
    const other = balance({ balancer: half })(one.handler)
    for (let i = 0; i < 1000; i++) expect(await codeOf(other(createRequest()))).toBe('answered')
    expect(one.asked).toHaveLength(1003)
  })

  it('failureStatuses eject a target that answers with nothing else', async () => {
    const balancer = balancerOf({ a: 1, b: 1 })
    const balanced = balance({ balancer, failureStatuses: [502] })(async (request) => ({ status: request.context.get(target)?.name === 'a' ? 502 : 200, headers: {}, body: null }))
    const statuses: number[] = []
    for (let i = 0; i < 100; i++) statuses.push((await balanced(createRequest())).status)
    expect(statuses.filter((status) => status === 502)).toHaveLength(3)
    expect(new Set(names(balancer, 10))).toEqual(new Set(['b']))
  })
})
