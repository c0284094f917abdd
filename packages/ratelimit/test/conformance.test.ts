import { describe, expect, test } from 'vitest'
import { type LimiterSettings, limiterConformance, type MakeLimiter } from '../src/conformance.ts'
import { type Decision, type Limiter, slidingWindow, tokenBucket } from '../src/index.ts'

/** Runs the suite and returns the names of the cases that failed. */
async function failures(makeLimiter: MakeLimiter): Promise<string[]> {
  const bodies: [string, () => Promise<void>][] = []
  limiterConformance('under test', makeLimiter, { describe: (_, body) => body(), test: (name, body) => bodies.push([name, body]) })
  const failed: string[] = []
  for (const [name, body] of bodies) await body().catch(() => failed.push(name))
  return failed
}

const sound: MakeLimiter = (settings, clock) => (settings.algorithm === 'token-bucket' ? tokenBucket({ ...settings, clock }) : slidingWindow({ ...settings, clock }))
const altered =
  (change: (limiter: Limiter, settings: LimiterSettings) => Limiter): MakeLimiter =>
  async (settings, clock) =>
    change(await sound(settings, clock), settings)

describe('the suite', () => {
  test('passes what is sound', async () => {
    expect(await failures(sound)).toEqual([])
  })

  test('finds a window that counts in two slots and weighs the older', async () => {
    const found = await failures((settings, clock) => {
      if (settings.algorithm === 'token-bucket') return sound(settings, clock)
      const { limit, windowMs, name = 'default' } = settings
      let slot = 0
      let [before, current] = [0, 0]
      const take = async (_: string, cost = 1): Promise<Decision> => {
        const now = Math.floor(clock.monotonicMs() / windowMs)
        if (now !== slot) [before, current, slot] = [now === slot + 1 ? current : 0, 0, now]
        const weighed = before * (1 - (clock.monotonicMs() % windowMs) / windowMs) + current
        const allowed = weighed + cost <= limit
        if (allowed) current += cost
        return { allowed, limit, remaining: Math.floor(limit - weighed), resetAfterMs: windowMs, retryAfterMs: allowed ? 0 : 1, policy: { name, limit, windowMs } }
      }
      return { take }
    })
    expect(found).toContain('a burst at the end of a window does not double at the start of the next')
    expect(found).toContain('no window holds more than the limit, and nothing is withheld for more than a 16th of the window')
  })

  test('finds a bucket that forgets fractions whenever it is asked', async () => {
    const found = await failures((settings, clock) => {
      if (settings.algorithm === 'sliding-window') return sound(settings, clock)
      const { rate, perMs = 1000, burst, name = 'default' } = settings
      let [tokens, at] = [burst, clock.monotonicMs()]
      const take = async (_: string, cost = 1): Promise<Decision> => {
        tokens = Math.min(burst, Math.floor(tokens + ((clock.monotonicMs() - at) * rate) / perMs))
        at = clock.monotonicMs()
        const allowed = tokens >= cost
        if (allowed) tokens -= cost
        return {
          allowed,
          limit: burst,
          remaining: tokens,
          resetAfterMs: ((burst - tokens) * perMs) / rate,
          retryAfterMs: perMs / rate,
          policy: { name, limit: burst, windowMs: (burst * perMs) / rate }
        }
      }
      return { take }
    })
    expect(found).toContain('loses no token to rounding, however often it is asked')
    expect(found).toContain('decides as exact arithmetic does, at random arrivals and costs')
  })

  test('finds keys that share a limit', async () => {
    expect(await failures(altered((limiter) => ({ take: (_, cost) => limiter.take('all', cost) })))).toContain('keys do not touch each other, however uneven the traffic')
  })

  test('finds a decision made before the state is written', async () => {
    const found = await failures(
      altered((limiter) => ({
        async take(key, cost = 1) {
          const looked = await limiter.take(key, 0)
          await Promise.resolve()
          const allowed = looked.remaining >= cost
          const taken = allowed ? await limiter.take(key, cost) : looked
          return { ...taken, allowed }
        }
      }))
    )
    expect(found).toContain('200 takes at the same time are allowed exactly as often as the limit says')
  })

  test('finds denied takes that are counted', async () => {
    const found = await failures(
      altered((limiter) => ({
        async take(key, cost = 1) {
          const decision = await limiter.take(key, cost)
          if (!decision.allowed && Number.isFinite(decision.retryAfterMs)) await limiter.take(key, decision.remaining)
          return decision
        }
      }))
    )
    expect(found).toContain('denied takes cost nothing')
  })

  test('finds a decision that is overwritten by the next', async () => {
    const found = await failures((settings, clock) => {
      const limiter = settings.algorithm === 'token-bucket' ? tokenBucket({ ...settings, clock }) : slidingWindow({ ...settings, clock })
      return { take: async (key, cost) => limiter.takeNow(key, cost) }
    })
    expect(found).toContain('a decision stays what it was')
  })
})
