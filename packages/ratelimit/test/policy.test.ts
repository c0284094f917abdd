import { describe, expect, test } from 'vitest'
import { slidingWindow, tokenBucket } from '../src/index.ts'

describe('settings out of range', () => {
  test.each([{ rate: 0 }, { rate: -1 }, { rate: Number.NaN }, { rate: Number.POSITIVE_INFINITY }, { perMs: 0 }, { burst: 0.5 }, { burst: 1e13 }, { rate: 1e-9, burst: 1e9 }])(
    'token bucket %o',
    (settings) => {
      expect(() => tokenBucket({ rate: 1, burst: 1, ...settings })).toThrow(RangeError)
    }
  )

  test.each([{ limit: 0 }, { limit: Number.NaN }, { windowMs: 0 }, { windowMs: Number.POSITIVE_INFINITY }, { resolution: 0 }, { resolution: 2.5 }, { resolution: 1001 }])(
    'sliding window %o',
    (settings) => {
      expect(() => slidingWindow({ limit: 1, windowMs: 1, ...settings })).toThrow(RangeError)
    }
  )

  test.each(['', 'a b', 'a:b', 'a"b', 'ä', 'x'.repeat(65), 'a\r\nb'])('name %j', (name) => {
    expect(() => tokenBucket({ rate: 1, burst: 1, name })).toThrow(RangeError)
    expect(() => slidingWindow({ limit: 1, windowMs: 1, name })).toThrow(RangeError)
  })
})
