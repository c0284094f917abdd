import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { type MemoryLimiter, slidingWindow, tokenBucket } from '../src/index.ts'
import { storedKey } from '../src/key-table.ts'

const clock = createFakeClock()
const limiters: [string, (maxKeys: number) => MemoryLimiter][] = [
  ['token bucket', (maxKeys) => tokenBucket({ rate: 5, perMs: 60_000, burst: 5, maxKeys, clock })],
  ['sliding window', (maxKeys) => slidingWindow({ limit: 5, windowMs: 60_000, maxKeys, clock })]
]

describe.each(limiters)('memory of a %s', (_, make) => {
  const exhaust = (limiter: MemoryLimiter, key: string) => {
    while (limiter.takeNow(key).allowed) {
      // until nothing is left
    }
  }

  test('holds maxKeys keys and no more', () => {
    const limiter = make(100)
    for (let i = 0; i < 5000; i++) limiter.takeNow(`key-${i}`)
    expect(limiter.size).toBe(100)
  })

  test('holds nothing of keys that were only looked at or denied', () => {
    const limiter = make(100)
    limiter.takeNow('a', 0)
    limiter.takeNow('b', 6)
    expect(limiter.size).toBe(0)
  })

  test('a flood of other keys does not give a key its limit back', () => {
    const limiter = make(1000)
    exhaust(limiter, 'guess-password-of-anna')
    // Fifty times as many keys as there is room for; each is named twice, as an attacker would who has read the code.
    for (let i = 0; i < 50_000; i++) {
      limiter.takeNow(`junk-${i}`)
      limiter.takeNow(`junk-${i}`)
    }
    expect(limiter.takeNow('guess-password-of-anna').allowed).toBe(false)
  })

  test('what owes least goes first: nobody at the limit is forgotten while the table has others', () => {
    const limiter = make(1000)
    for (let i = 0; i < 500; i++) exhaust(limiter, `busy-${i}`)
    for (let i = 0; i < 20_000; i++) limiter.takeNow(`once-${i}`)
    let forgotten = 0
    for (let i = 0; i < 500; i++) if (limiter.takeNow(`busy-${i}`, 0).remaining > 0) forgotten++
    // Eight draws that all fall on the busy half: one in 256, and then one of these goes.
    expect(forgotten).toBeLessThan(250)
  })

  test('what is paid back makes room before anything else', () => {
    const limiter = make(1000)
    for (let i = 0; i < 700; i++) exhaust(limiter, `old-${i}`)
    clock.advance(60_000)
    for (let i = 0; i < 300; i++) exhaust(limiter, `new-${i}`)
    for (let i = 0; i < 200; i++) exhaust(limiter, `newer-${i}`)
    let kept = 0
    for (let i = 0; i < 300; i++) if (!limiter.takeNow(`new-${i}`).allowed) kept++
    expect(kept).toBeGreaterThan(290)
  })

  test('one key is enough room for one key', () => {
    const limiter = make(1)
    exhaust(limiter, 'a')
    expect(limiter.takeNow('b').remaining).toBe(4)
    expect(limiter.size).toBe(1)
  })

  test('refuses a bound that is none', () => {
    for (const maxKeys of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) expect(() => make(maxKeys)).toThrow(RangeError)
  })
})

test('long keys are kept as digests', () => {
  expect(storedKey('k'.repeat(128))).toBe('k'.repeat(128))
  expect(storedKey('k'.repeat(129))).toMatch(/^sha256:[\w-]{43}$/)
  expect(storedKey('k'.repeat(129))).not.toBe(storedKey('k'.repeat(130)))
})
