import { storedKey, type TableEntry } from './key-table.ts'
import { KeyedLimiter, type KeyedLimiterOptions } from './keyed-limiter.ts'
import { checkCost, type Decision, EPSILON, type MemoryLimiter } from './limiter.ts'
import { grainMs, type SlidingWindowSettings, slidingWindowPolicy } from './policy.ts'

export interface SlidingWindowOptions extends SlidingWindowSettings, KeyedLimiterOptions {}

/**
 * A sliding window per key, in memory. Throws RangeError for settings out of range.
 *
 * It is a log of what was allowed, in which arrivals within `windowMs / resolution` of each other share one entry, dated by the last of them. No window of
 * `windowMs`, wherever it begins, holds more than `limit`: what a weighted counter of two slots does not give, which lets through almost twice
 * the limit when requests come at the end of one slot and the middle of the next. The price is that what shares an entry comes back with its last arrival, at most
 * `windowMs / resolution` late; arrivals at one moment, or further apart than that, come back exactly.
 */
export function slidingWindow(options: SlidingWindowOptions): MemoryLimiter {
  return new SlidingWindow(options)
}

interface Log extends TableEntry {
  /** Entries from `head`, oldest first: time of the last arrival, cost; time, cost … */
  entries: number[]
  head: number
  /** Sum of the costs from `head`. */
  used: number
  /** First arrival of the newest entry. */
  firstMs: number
}

class SlidingWindow extends KeyedLimiter<Log> {
  private readonly limit: number
  private readonly windowMs: number
  private readonly grainMs: number

  constructor(options: SlidingWindowOptions) {
    const policy = slidingWindowPolicy(options)
    const { limit, windowMs } = policy
    super(options, policy, (log) => newestMs(log) + (log.used / limit) * windowMs)
    this.limit = limit
    this.windowMs = windowMs
    this.grainMs = grainMs(options)
  }

  takeNow(key: string, cost = 1): Decision {
    checkCost(cost)
    const { limit, decision } = this
    const nowMs = this.clock.monotonicMs()
    const stored = storedKey(key)
    let log = this.table.get(stored)
    if (log !== undefined) this.forget(log, nowMs)
    let used = log?.used ?? 0
    const allowed = used + cost <= limit + EPSILON
    if (allowed && cost > 0) {
      used += cost
      if (log === undefined) this.table.add((log = { key: stored, slot: 0, entries: [nowMs, cost], head: 0, used, firstMs: nowMs }), nowMs)
      else this.append(log, nowMs, cost)
    }
    decision.allowed = allowed
    decision.remaining = Math.max(0, Math.floor(limit - used + EPSILON))
    decision.resetAfterMs = log === undefined || used === 0 ? 0 : Math.ceil(newestMs(log) + this.windowMs - nowMs)
    decision.retryAfterMs = this.retryAfterMs(log, used + cost - limit, cost, nowMs)
    return decision
  }

  /** Drops what has left the window. Each entry is dropped once, so this is constant time per take, at most `resolution + 2` steps. */
  private forget(log: Log, nowMs: number): void {
    const { entries } = log
    let { head } = log
    while (head < entries.length && (entries[head] as number) + this.windowMs <= nowMs) {
      log.used -= entries[head + 1] as number
      head += 2
    }
    if (head === entries.length) {
      entries.length = head = 0
      log.used = 0
    } else if (head >= 16 && head * 2 >= entries.length) {
      entries.splice(0, head)
      head = 0
    }
    log.head = head
  }

  private append(log: Log, nowMs: number, cost: number): void {
    const { entries } = log
    log.used += cost
    if (entries.length > 0 && nowMs - log.firstMs < this.grainMs) {
      entries[entries.length - 2] = nowMs
      entries[entries.length - 1] = (entries[entries.length - 1] as number) + cost
    } else {
      entries.push(nowMs, cost)
      log.firstMs = nowMs
    }
  }

  /** Until the oldest entries that together hold `excess` have left the window. */
  private retryAfterMs(log: Log | undefined, excess: number, cost: number, nowMs: number): number {
    if (cost > this.limit) return Number.POSITIVE_INFINITY
    if (log === undefined || excess <= EPSILON) return 0
    const { entries } = log
    let i = log.head
    for (let freed = entries[i + 1] as number; freed + EPSILON < excess && i + 2 < entries.length; freed += entries[i + 1] as number) i += 2
    return Math.ceil((entries[i] as number) + this.windowMs - nowMs)
  }
}

function newestMs(log: Log): number {
  return log.entries.length === 0 ? 0 : (log.entries[log.entries.length - 2] as number)
}
