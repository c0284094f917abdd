import { describe, expect, test } from 'vitest'
import { limitField, policyField, seconds } from '../src/fields.ts'
import type { Decision } from '../src/index.ts'

const policy = { name: 'default', limit: 100, windowMs: 60_000 }
const decision = (changes: Partial<Decision>): Decision => ({ allowed: true, limit: 100, remaining: 50, resetAfterMs: 30_000, retryAfterMs: 0, policy, ...changes })

describe('fields of draft-ietf-httpapi-ratelimit-headers-11', () => {
  test('RateLimit-Policy: quota and window, whole numbers', () => {
    expect(policyField(policy)).toBe('"default";q=100;w=60')
    expect(policyField({ name: 'burst', limit: 10, windowMs: 6000 })).toBe('"burst";q=10;w=6')
    expect(policyField({ name: 'a', limit: 2.5, windowMs: 100 })).toBe('"a";q=2;w=1')
    expect(policyField({ name: 'a', limit: 1e12, windowMs: 1e12 })).toBe('"a";q=1000000000000;w=1000000000')
  })

  test("RateLimit: the draft's own example", () => {
    expect(limitField(decision({}))).toBe('"default";r=50;t=30')
  })

  test('r/t never exceeds the rate of the policy, and nothing left means the time until there is something', () => {
    for (let remaining = 1; remaining < 100; remaining++) {
      const [, t] = /;t=(\d+)$/.exec(limitField(decision({ remaining }))) as RegExpExecArray
      expect(remaining / Number(t)).toBeLessThanOrEqual(100 / 60)
    }
    expect(limitField(decision({ remaining: 0, retryAfterMs: 600 }))).toBe('"default";r=0;t=1')
  })

  test('of a denied take, t is Retry-After', () => {
    expect(limitField(decision({ allowed: false, remaining: 0, retryAfterMs: 2001 }))).toBe('"default";r=0;t=3')
    expect(limitField(decision({ allowed: false, remaining: 5, retryAfterMs: 100 }))).toBe('"default";r=5;t=1')
    expect(limitField(decision({ allowed: false, remaining: 5, retryAfterMs: Number.POSITIVE_INFINITY }))).toBe('"default";r=5')
  })

  test('seconds are rounded up and never 0', () => {
    expect([0, 1, 999, 1000, 1001].map(seconds)).toEqual([1, 1, 1, 1, 2])
  })
})
