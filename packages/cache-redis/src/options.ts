import type { Clock, ProxyError } from '@proxy/pipeline'
import type { BreakerState } from '@proxy/pipeline/breaker'
import type { Redis } from 'ioredis'

export interface RedisStoreOptions {
  /** The client of `connectRedis`, or an ioredis client of your own. Not closed by the store. */
  readonly redis: Redis
  /** Put before every key. Default `cache:`. */
  readonly prefix?: string
  /** Larger bodies are not stored. Default 1 MiB. */
  readonly maxEntryBytes?: number
  /** Bound of what writes under way hold; a write beyond it is dropped. Default 16 MiB. */
  readonly maxPendingBytes?: number
  /** Bound of the commands that wait for a reply; more are refused at once. Default 4096. */
  readonly maxPendingCommands?: number
  /** Longest wait for any one reply. A client with a shorter `commandTimeout` of its own ends it earlier. Default 100. */
  readonly commandTimeoutMs?: number
  readonly breaker?: {
    /** Failures in a row (no reply in time, connection lost, Redis unusable) after which Redis is not asked for `openMs`. Default 5. */
    readonly failureThreshold?: number
    /** Time between two attempts to find Redis well again. Default 1000. */
    readonly openMs?: number
    /** Told of each change. Must not throw. */
    readonly onStateChange?: (state: BreakerState, previous: BreakerState) => void
  }
  /** For the breaker's times and for the expiry of what is put. Default: the system's. */
  readonly clock?: Clock
  /** Told of every failed command and every damaged entry, not of what was refused because Redis was known to be away. Must not throw. */
  readonly onFault?: (error: ProxyError) => void
}

export interface RedisStoreStats {
  readonly hits: number
  readonly misses: number
  /** Entries stored. */
  readonly writes: number
  /** Puts and touches that were given up: Redis away or full, body too large, no room in `maxPendingBytes`, already expired. */
  readonly droppedWrites: number
  /** Commands without a reply in time. */
  readonly timeouts: number
  /** Commands that failed otherwise: error replies, lost connections. */
  readonly errors: number
  /** Commands not sent, or not waited for any longer, because Redis was known to be away. */
  readonly refused: number
  /** Entries removed because they were not what was written. */
  readonly broken: number
  readonly connected: boolean
  /** While it is not closed, nothing is asked or written. */
  readonly readBreaker: BreakerState
  /** The breaker of writes alone: opens when Redis is full or read-only, while reads go on. */
  readonly writeBreaker: BreakerState
  readonly pendingCommands: number
  readonly pendingBytes: number
}
