/** A limit as it is told to clients. One frozen object per limiter. */
export interface Policy {
  /** Identifies the limit in header fields and in Redis keys. Default `default`. */
  readonly name: string
  /** How much can be taken at once: `burst` of a token bucket, `limit` of a sliding window. */
  readonly limit: number
  /** The time in which `limit` comes back in full, in milliseconds, not rounded: `burst * perMs / rate`, or `windowMs`. */
  readonly windowMs: number
}

/** What a limiter says about one `take`. Times are whole milliseconds, rounded up: after them, and not before, what they announce is true. */
export interface Decision {
  readonly allowed: boolean
  /** `policy.limit`. */
  readonly limit: number
  /** What can still be taken now, rounded down. */
  readonly remaining: number
  /** Time until all of `limit` is there again, if nothing is taken meanwhile. */
  readonly resetAfterMs: number
  /** Time until the same take would be allowed: 0 when it would be allowed at once again, Infinity when its cost exceeds `limit`. */
  readonly retryAfterMs: number
  readonly policy: Policy
}

/** Decides how much may be done in the name of a key. Knows no HTTP. */
export interface Limiter {
  /**
   * Takes `cost` (default 1, may be a fraction, 0 only looks) from what `key` has left, all of it or nothing: a denied take costs nothing.
   * Rejects only with RangeError, for a cost that is negative or not finite: a service behind the limiter that fails is dealt with inside.
   */
  take(key: string, cost?: number): Promise<Decision>
}

/** A limiter that keeps its state in this process, and so can answer without a promise. */
export interface MemoryLimiter extends Limiter {
  /** `take`, at once. The decision is one object, overwritten by the next call: read it before, keep nothing of it. Throws where `take` rejects. */
  takeNow(key: string, cost?: number): Decision
  /** Number of keys held. */
  readonly size: number
}

/** Sums of fractions miss whole numbers by a rounding error. What is short of its cost by no more than this is enough. */
export const EPSILON = 1e-9

/** The decision a memory limiter overwrites. */
export class MutableDecision implements Decision {
  allowed = false
  limit: number
  remaining = 0
  resetAfterMs = 0
  retryAfterMs = 0
  policy: Policy

  constructor(policy: Policy) {
    this.policy = policy
    this.limit = policy.limit
  }

  copy(): Decision {
    const { allowed, limit, remaining, resetAfterMs, retryAfterMs, policy } = this
    return { allowed, limit, remaining, resetAfterMs, retryAfterMs, policy }
  }
}

/** Throws RangeError unless `cost` is finite and not negative. */
export function checkCost(cost: number): void {
  if (!(cost >= 0 && cost < Number.POSITIVE_INFINITY)) throw new RangeError(`cost must be finite and not negative, not ${cost}`)
}
