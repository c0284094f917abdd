import { createRequest, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { byClientAddress, type MemoryLimiter, rateLimit, slidingWindow, tokenBucket } from '../src/index.ts'

// The limits of the proxies that this one replaces, as their documentation promises them; where their code fell short of it, the comment says how.

const allowedOf = (limiter: MemoryLimiter, times: number): number => {
  let allowed = 0
  for (let i = 0; i < times; i++) if (limiter.takeNow('a').allowed) allowed++
  return allowed
}

describe('100 requests per minute, burst 10', () => {
  test('10 at once, then 1.67 a second', () => {
    const clock = createFakeClock()
    const limiter = tokenBucket({ rate: 100, perMs: 60_000, burst: 10, clock })
    expect(allowedOf(limiter, 15)).toBe(10)
    clock.advance(3000)
    expect(allowedOf(limiter, 15)).toBe(5)
  })

  test('a minute gives 100, not the 10 of a refill once a minute that is capped at the burst', () => {
    const clock = createFakeClock()
    const limiter = tokenBucket({ rate: 100, perMs: 60_000, burst: 10, clock })
    let allowed = allowedOf(limiter, 15)
    for (let ms = 0; ms < 60_000; ms += 50) {
      clock.advance(50)
      allowed += allowedOf(limiter, 1)
    }
    expect(allowed).toBe(110)
  })

  test('a client who asks all the time still gets its tokens: fractions are kept', () => {
    const clock = createFakeClock()
    const limiter = tokenBucket({ rate: 100, perMs: 60_000, burst: 10, clock })
    allowedOf(limiter, 10)
    let allowed = 0
    for (let ms = 0; ms < 6000; ms++) {
      clock.advance(1)
      allowed += allowedOf(limiter, 1)
    }
    expect(allowed).toBe(10)
  })
})

describe('10 requests per second, burst 30', () => {
  test('30 at once, then 10 a second, and never more than 30 saved up', () => {
    const clock = createFakeClock()
    const limiter = tokenBucket({ rate: 10, burst: 30, clock })
    expect(allowedOf(limiter, 50)).toBe(30)
    clock.advance(1000)
    expect(allowedOf(limiter, 50)).toBe(10)
    clock.advance(3_600_000)
    expect(allowedOf(limiter, 50)).toBe(30)
  })

  test('clients are not kept for ever', () => {
    const limiter = tokenBucket({ rate: 10, burst: 30, maxKeys: 50 })
    for (let i = 0; i < 1000; i++) limiter.takeNow(`10.0.${i >> 8}.${i & 255}`)
    expect(limiter.size).toBe(50)
  })

  test('beyond it the answer is 429 and not an empty 200', async () => {
    const handler = rateLimit({ limiter: tokenBucket({ rate: 10, burst: 30, clock: createFakeClock() }) })(ok)
    const statuses = await Promise.all(Array.from({ length: 31 }, () => handler(createRequest()).then((response) => response.status)))
    expect(statuses).toEqual([...Array.from({ length: 30 }, () => 200), 429])
  })
})

describe('100 requests per sliding window of 60 s', () => {
  test('the 101st is denied until the first leaves the window', () => {
    const clock = createFakeClock()
    const limiter = slidingWindow({ limit: 100, windowMs: 60_000, clock })
    expect(allowedOf(limiter, 1)).toBe(1)
    clock.advance(20_000)
    expect(allowedOf(limiter, 105)).toBe(99)
    clock.advance(39_999)
    expect(allowedOf(limiter, 1)).toBe(0)
    clock.advance(1)
    expect(allowedOf(limiter, 5)).toBe(1)
    clock.advance(20_000)
    expect(allowedOf(limiter, 105)).toBe(99)
  })

  test('denied requests are not counted', () => {
    const clock = createFakeClock()
    const limiter = slidingWindow({ limit: 100, windowMs: 60_000, clock })
    allowedOf(limiter, 100)
    for (let i = 0; i < 600; i++) {
      clock.advance(100)
      if (i < 599) expect(allowedOf(limiter, 3)).toBe(0)
    }
    expect(allowedOf(limiter, 105)).toBe(100)
  })

  test('the window is the configured one, whatever its length', () => {
    const clock = createFakeClock()
    const limiter = slidingWindow({ limit: 10, windowMs: 5000, clock })
    expect(allowedOf(limiter, 12)).toBe(10)
    clock.advance(5000)
    expect(allowedOf(limiter, 12)).toBe(10)
  })
})

describe('the key', () => {
  test('is the address without its port, so a new connection is no new limit', () => {
    // remoteAddress has no port by contract; that a new connection counts for the same client is tested with sockets in middleware.test.ts.
    expect(byClientAddress()(createRequest({ remoteAddress: '192.0.2.1' }))).toBe('192.0.2.1')
  })

  test('does not listen to X-Forwarded-For or X-Real-IP by itself', async () => {
    const handler = rateLimit({ limiter: slidingWindow({ limit: 1, windowMs: 60_000 }) })(ok)
    const statuses: number[] = []
    for (let i = 0; i < 3; i++) statuses.push((await handler(createRequest({ headers: { 'x-forwarded-for': `10.0.0.${i}`, 'x-real-ip': `10.0.0.${i}` } }))).status)
    expect(statuses).toEqual([200, 429, 429])
  })
})

const ok: Handler = async () => ({ status: 200, headers: {}, body: null })
