import assert from 'node:assert/strict'
import type { Clock } from '@proxy/pipeline'
import { ManualClock, randomOf } from './conformance-tools.ts'
import type { Limiter } from './limiter.ts'
import type { SlidingWindowSettings, TokenBucketSettings } from './policy.ts'

export type LimiterSettings = ({ readonly algorithm: 'token-bucket' } & TokenBucketSettings) | ({ readonly algorithm: 'sliding-window' } & SlidingWindowSettings)

/** Makes a limiter with no state, which reads all time, monotonic or wall, from `clock`. Called once or more per test. */
export type MakeLimiter = (settings: LimiterSettings, clock: Clock) => Limiter | Promise<Limiter>

/** `describe` and `test` of vitest, of node:test, or of what has their shape. */
export interface Runner {
  readonly describe: (name: string, body: () => void) => unknown
  readonly test: (name: string, body: () => Promise<void>) => unknown
}

type Make = (settings: LimiterSettings) => Promise<{ limiter: Limiter; clock: ManualClock }>

/** What every limiter has to do, for both algorithms. Failures are `AssertionError`s of node:assert. */
export function limiterConformance(name: string, makeLimiter: MakeLimiter, { describe, test }: Runner): void {
  const make: Make = async (settings) => {
    const clock = new ManualClock()
    return { limiter: await makeLimiter(settings, clock), clock }
  }
  const cases = (title: string, all: Record<string, () => Promise<void>>): void => {
    describe(`${name}: ${title}`, () => {
      for (const [what, body] of Object.entries(all)) test(what, body)
    })
  }
  // The same limit in both algorithms: 10, all of it back after a second.
  cases('token bucket', { ...common(make, { algorithm: 'token-bucket', rate: 10, perMs: 1000, burst: 10, name: 'ten' }), ...tokenBucketCases(make) })
  cases('sliding window', { ...common(make, { algorithm: 'sliding-window', limit: 10, windowMs: 1000, name: 'ten' }), ...slidingWindowCases(make) })
}

/** How many of `times` takes, one after the other, are allowed. */
async function allowedOf(limiter: Limiter, key: string, times: number): Promise<number> {
  let allowed = 0
  for (let i = 0; i < times; i++) if ((await limiter.take(key)).allowed) allowed++
  return allowed
}

function common(make: Make, ten: LimiterSettings): Record<string, () => Promise<void>> {
  return {
    'allows the whole limit at once, then denies': async () => {
      const { limiter } = await make(ten)
      for (let left = 9; left >= 0; left--) {
        const decision = await limiter.take('a')
        assert.deepEqual([decision.allowed, decision.limit, decision.remaining], [true, 10, left])
        assert.deepEqual(decision.policy, { name: 'ten', limit: 10, windowMs: 1000 })
        assert.equal(decision.retryAfterMs > 0, left === 0)
      }
      const denied = await limiter.take('a')
      assert.deepEqual([denied.allowed, denied.remaining, denied.resetAfterMs], [false, 0, 1000])
    },
    'a decision stays what it was': async () => {
      const { limiter } = await make(ten)
      const first = await limiter.take('a')
      const second = await limiter.take('a')
      assert.deepEqual([first.remaining, second.remaining], [9, 8])
    },
    'retryAfterMs is the exact time': async () => {
      const { limiter, clock } = await make(ten)
      await allowedOf(limiter, 'a', 10)
      const { retryAfterMs } = await limiter.take('a')
      assert.ok(retryAfterMs > 0 && retryAfterMs <= 1000)
      clock.advance(retryAfterMs - 1)
      assert.equal((await limiter.take('a')).allowed, false)
      clock.advance(1)
      assert.equal((await limiter.take('a')).allowed, true)
    },
    'after resetAfterMs all of the limit is back': async () => {
      const { limiter, clock } = await make(ten)
      const random = randomOf(7)
      for (let i = 0; i < 25; i++) {
        await limiter.take('a')
        clock.advance(Math.floor(random() * 100))
      }
      const { resetAfterMs } = await limiter.take('a', 0)
      clock.advance(resetAfterMs)
      const whole = await limiter.take('a', 0)
      assert.deepEqual([whole.remaining, whole.resetAfterMs], [10, 0])
      assert.equal(await allowedOf(limiter, 'a', 12), 10)
    },
    'denied takes cost nothing': async () => {
      const { limiter, clock } = await make(ten)
      await allowedOf(limiter, 'a', 10)
      for (let i = 0; i < 99; i++) {
        await limiter.take('a', 10)
        clock.advance(10)
      }
      clock.advance(10)
      assert.equal(await allowedOf(limiter, 'a', 12), 10)
    },
    'a cost is taken whole or not at all': async () => {
      const { limiter } = await make(ten)
      assert.equal((await limiter.take('a', 7)).remaining, 3)
      const denied = await limiter.take('a', 4)
      assert.deepEqual([denied.allowed, denied.remaining], [false, 3])
      assert.deepEqual([(await limiter.take('a', 2.5)).allowed, (await limiter.take('a', 0.5)).allowed], [true, true])
      assert.equal((await limiter.take('a', 0.25)).allowed, false)
    },
    'a cost of 0 looks and takes nothing': async () => {
      const { limiter } = await make(ten)
      await limiter.take('a', 4)
      for (let i = 0; i < 3; i++) {
        const decision = await limiter.take('a', 0)
        assert.deepEqual([decision.allowed, decision.remaining, decision.retryAfterMs], [true, 6, 0])
      }
    },
    'a cost above the limit is never allowed': async () => {
      const { limiter } = await make(ten)
      const decision = await limiter.take('a', 11)
      assert.deepEqual([decision.allowed, decision.remaining, decision.retryAfterMs], [false, 10, Number.POSITIVE_INFINITY])
    },
    'a cost that is none is refused': async () => {
      const { limiter } = await make(ten)
      for (const cost of [-1, Number.NaN, Number.POSITIVE_INFINITY]) await assert.rejects(limiter.take('a', cost), RangeError)
      assert.equal((await limiter.take('a')).remaining, 9)
    },
    'any text is a key': async () => {
      const { limiter } = await make(ten)
      for (const key of ['', ' ', 'a\nb\r\n*1\r\n', '{x}:*', '\u0000', 'ключ', '__proto__', 'k'.repeat(10_000), `${'k'.repeat(9_999)}l`])
        assert.equal((await limiter.take(key)).remaining, 9, JSON.stringify(key))
    },
    'keys do not touch each other, however uneven the traffic': async () => {
      const { limiter, clock } = await make(ten)
      const random = randomOf(11)
      let flooding = 0
      const modest = [0, 0, 0, 0, 0]
      for (let step = 0; step < 100; step++) {
        flooding += await allowedOf(limiter, 'flood', 5)
        // Each of five others asks once per 500 ms: far below its limit, so never denied.
        if (step % 10 === 0) for (let i = 0; i < modest.length; i++) modest[i] = (modest[i] as number) + (await allowedOf(limiter, `modest-${i}`, 1))
        clock.advance(Math.floor(random() * 100))
      }
      assert.deepEqual(modest, [10, 10, 10, 10, 10])
      assert.ok(flooding <= 10 + (clock.elapsedMs / 1000) * 10)
    },
    '200 takes at the same time are allowed exactly as often as the limit says': async () => {
      const { limiter } = await make(ten)
      const decisions = await Promise.all(Array.from({ length: 200 }, () => limiter.take('a')))
      const allowed = decisions.filter((decision) => decision.allowed)
      assert.equal(allowed.length, 10)
      assert.deepEqual(
        allowed.map((decision) => decision.remaining).sort((a, b) => a - b),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
      )
    }
  }
}

function tokenBucketCases(make: Make): Record<string, () => Promise<void>> {
  return {
    'refills continuously': async () => {
      const { limiter, clock } = await make({ algorithm: 'token-bucket', rate: 100, perMs: 60_000, burst: 10 })
      assert.equal(await allowedOf(limiter, 'a', 15), 10)
      for (let i = 1; i <= 5; i++) {
        clock.advance(599)
        assert.equal((await limiter.take('a')).allowed, false)
        clock.advance(1)
        assert.equal(await allowedOf(limiter, 'a', 2), 1)
      }
    },
    'loses no token to rounding, however often it is asked': async () => {
      const { limiter, clock } = await make({ algorithm: 'token-bucket', rate: 7, perMs: 3000, burst: 3 })
      let allowed = await allowedOf(limiter, 'a', 5)
      for (let ms = 0; ms < 30_000; ms += 10) {
        clock.advance(10)
        allowed += await allowedOf(limiter, 'a', 1)
      }
      assert.equal(allowed, 3 + 70)
    },
    'decides as exact arithmetic does, at random arrivals and costs': async () => {
      for (const seed of [1, 2, 3]) {
        const random = randomOf(seed)
        const rate = 1 + Math.floor(random() * 50)
        const perMs = 100 + Math.floor(random() * 2000)
        const burst = 1 + Math.floor(random() * 20)
        const { limiter, clock } = await make({ algorithm: 'token-bucket', rate, perMs, burst })
        // Tokens times perMs: whole numbers, no rounding.
        let tokens = burst * perMs
        for (let i = 0; i < 300; i++) {
          const cost = 1 + Math.floor(random() * Math.min(3, burst))
          const decision = await limiter.take('a', cost)
          const expected = tokens >= cost * perMs
          if (expected) tokens -= cost * perMs
          assert.deepEqual([decision.allowed, decision.remaining], [expected, Math.floor(tokens / perMs)], `seed ${seed}, take ${i}`)
          const ms = Math.floor(random() * ((2.5 * perMs) / rate))
          clock.advance(ms)
          tokens = Math.min(burst * perMs, tokens + ms * rate)
        }
      }
    }
  }
}

function slidingWindowCases(make: Make): Record<string, () => Promise<void>> {
  return {
    'what came at one moment leaves at one moment, a window later': async () => {
      const { limiter, clock } = await make({ algorithm: 'sliding-window', limit: 100, windowMs: 60_000 })
      assert.equal(await allowedOf(limiter, 'a', 105), 100)
      clock.advance(59_999)
      assert.equal(await allowedOf(limiter, 'a', 5), 0)
      clock.advance(1)
      assert.equal(await allowedOf(limiter, 'a', 105), 100)
    },
    'no window holds more than the limit, and nothing is withheld for more than a 16th of the window': async () => {
      for (const seed of [1, 2, 3]) {
        const random = randomOf(seed)
        const limit = 1 + Math.floor(random() * 20)
        const windowMs = 200 + Math.floor(random() * 2000)
        const { limiter, clock } = await make({ algorithm: 'sliding-window', limit, windowMs })
        const taken: { atMs: number; cost: number }[] = []
        const within = (ms: number): number => taken.reduce((sum, { atMs, cost }) => (atMs > clock.elapsedMs - ms ? sum + cost : sum), 0)
        for (let i = 0; i < 400; i++) {
          const cost = 1 + Math.floor(random() * Math.min(3, limit))
          const { allowed } = await limiter.take('a', cost)
          if (allowed) taken.push({ atMs: clock.elapsedMs, cost })
          else assert.ok(within(windowMs * (1 + 1 / 16)) + cost > limit, `seed ${seed}, take ${i} was denied`)
          // A window is fullest when it ends with an arrival, so looking back from each is looking at all.
          assert.ok(within(windowMs) <= limit, `seed ${seed}, take ${i} was allowed`)
          // Now and then a pause: the next burst then meets the end of the one before.
          clock.advance(random() < 0.05 ? Math.floor(random() * windowMs) : Math.floor(random() * ((2 * windowMs) / limit / 2)))
        }
      }
    },
    'a burst at the end of a window does not double at the start of the next': async () => {
      const { limiter, clock } = await make({ algorithm: 'sliding-window', limit: 100, windowMs: 60_000 })
      clock.advance(59_900)
      assert.equal(await allowedOf(limiter, 'a', 100), 100)
      clock.advance(30_000)
      assert.equal(await allowedOf(limiter, 'a', 100), 0)
    }
  }
}
