import type { Clock } from '@proxy/pipeline'
import { type Breaker, createBreaker } from '@proxy/pipeline/breaker'
import type { KeyTableOptions } from './key-table.ts'
import type { Limiter, MemoryLimiter, Policy } from './limiter.ts'
import { grainMs, type SlidingWindowSettings, slidingWindowPolicy, type TokenBucketSettings, tokenBucketPolicy } from './policy.ts'
import { type FaultReason, RedisLimiter, type ScriptClient } from './redis-limiter.ts'
import { type Script, slidingWindowScript, tokenBucketScript } from './redis-scripts.ts'
import { slidingWindow } from './sliding-window.ts'
import { tokenBucket } from './token-bucket.ts'

export type { FaultReason, ScriptClient } from './redis-limiter.ts'

/** `maxKeys` bounds the local limiter of `onError: 'memory'`. */
export interface RedisOptions extends KeyTableOptions {
  readonly client: ScriptClient
  /** Start of every key; the whole is `rl:bucket:NAME:KEY` or `rl:window:NAME:KEY`, so limits on one server need a name or a prefix each. Default `rl:`. */
  readonly prefix?: string
  /** Longest wait for a decision, in milliseconds. Default 100. */
  readonly timeoutMs?: number
  /** What decides when Redis does not: a limiter of the same settings in this process (`memory`, default), or always the same. */
  readonly onError?: 'memory' | 'allow' | 'deny'
  /** Called for each decision that Redis did not make, and for each failed probe, with why and the error, if there was one. */
  readonly onFault?: (reason: FaultReason, error: unknown) => void
  /** When to stop asking. Default: opens after 5 failures in a row, probes once a second. Give one to all limiters of a server, and they learn from each other. */
  readonly breaker?: Breaker
  /**
   * The time that decides. Default: the server's own (TIME), so that all processes agree; of two whose clocks differ by a second, each would
   * refill by a second what the other has just used. With a clock given, its wall time is sent: for tests, or where one process alone uses the keys.
   */
  readonly clock?: Clock
}

const DEFAULT_TIMEOUT_MS = 100
const FAILURE_THRESHOLD = 5
const OPEN_MS = 1000

/** A token bucket per key, on Redis, for all processes that share it. Throws RangeError for settings out of range. */
export function redisTokenBucket(options: TokenBucketSettings & RedisOptions): Limiter {
  const policy = tokenBucketPolicy(options)
  const perMicrosecond = options.rate / ((options.perMs ?? 1000) * 1000)
  return create(options, policy, 'bucket', tokenBucketScript, [policy.limit, perMicrosecond], () => tokenBucket(options))
}

/** A sliding window per key, on Redis, for all processes that share it. Throws RangeError for settings out of range. */
export function redisSlidingWindow(options: SlidingWindowSettings & RedisOptions): Limiter {
  const policy = slidingWindowPolicy(options)
  const times = [Math.ceil(policy.windowMs * 1000), Math.ceil(grainMs(options) * 1000)]
  return create(options, policy, 'window', slidingWindowScript, [policy.limit, ...times], () => slidingWindow(options))
}

function create(options: RedisOptions, policy: Policy, kind: string, script: Script, settings: readonly number[], memory: () => MemoryLimiter): Limiter {
  const { client, prefix = 'rl:', timeoutMs = DEFAULT_TIMEOUT_MS, onError = 'memory', onFault, clock } = options
  if (!(timeoutMs > 0 && timeoutMs < 2 ** 31)) throw new RangeError(`timeoutMs must be above 0 and below 2^31, not ${timeoutMs}`)
  return new RedisLimiter({
    client,
    script,
    policy,
    keyPrefix: `${prefix}${kind}:${policy.name}:`,
    settings: settings.map(String),
    timeoutMs,
    breaker: options.breaker ?? createBreaker({ failureThreshold: FAILURE_THRESHOLD, openMs: OPEN_MS }),
    clock,
    fallback: onError === 'memory' ? memory() : onError,
    onFault
  })
}
