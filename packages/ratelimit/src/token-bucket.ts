import { storedKey, type TableEntry } from './key-table.ts'
import { KeyedLimiter, type KeyedLimiterOptions } from './keyed-limiter.ts'
import { checkCost, type Decision, EPSILON, type MemoryLimiter } from './limiter.ts'
import { type TokenBucketSettings, tokenBucketPolicy } from './policy.ts'

export interface TokenBucketOptions extends TokenBucketSettings, KeyedLimiterOptions {}

/** A token bucket per key, in memory. Throws RangeError for settings out of range. */
export function tokenBucket(options: TokenBucketOptions): MemoryLimiter {
  return new TokenBucket(options)
}

interface Bucket extends TableEntry {
  /** As of `atMs`; a rounding error below 0 is kept, so that errors do not add up to a token. */
  tokens: number
  atMs: number
}

class TokenBucket extends KeyedLimiter<Bucket> {
  private readonly burst: number
  private readonly tokensPerMs: number

  constructor(options: TokenBucketOptions) {
    const policy = tokenBucketPolicy(options)
    const burst = policy.limit
    const tokensPerMs = options.rate / (options.perMs ?? 1000)
    super(options, policy, (bucket) => bucket.atMs + (burst - bucket.tokens) / tokensPerMs)
    this.burst = burst
    this.tokensPerMs = tokensPerMs
  }

  takeNow(key: string, cost = 1): Decision {
    checkCost(cost)
    const { burst, tokensPerMs, decision } = this
    const nowMs = this.clock.monotonicMs()
    const stored = storedKey(key)
    const bucket = this.table.get(stored)
    let tokens = bucket === undefined ? burst : Math.min(burst, bucket.tokens + (nowMs - bucket.atMs) * tokensPerMs)
    const allowed = tokens >= cost - EPSILON
    if (allowed && cost > 0) {
      tokens -= cost
      if (bucket === undefined) this.table.add({ key: stored, slot: 0, tokens, atMs: nowMs }, nowMs)
      else {
        bucket.tokens = tokens
        bucket.atMs = nowMs
      }
    }
    decision.allowed = allowed
    decision.remaining = Math.max(0, Math.floor(tokens + EPSILON))
    decision.resetAfterMs = wait(burst - tokens, tokensPerMs)
    decision.retryAfterMs = cost > burst ? Number.POSITIVE_INFINITY : wait(cost - tokens, tokensPerMs)
    return decision
  }
}

/** Milliseconds until `missing` tokens have come in, rounded up. */
function wait(missing: number, tokensPerMs: number): number {
  return missing <= EPSILON ? 0 : Math.ceil((missing - EPSILON) / tokensPerMs)
}
