import { type Clock, systemClock } from '@proxy/pipeline'
import type { Logger } from 'pino'
import { describeError } from './logger.ts'
import type { Metrics } from './metrics.ts'

/** A store that is away fails for every request: of each store, one line is written in so many milliseconds. */
const LINE_INTERVAL_MS = 60_000

/** Told of each failure of a store that requests were served without. `store` is one of a few names. */
export type OnStoreFault = (store: string, error: unknown) => void

export interface StoreFaultOptions {
  readonly logger: Logger
  readonly metrics: Metrics | undefined
  readonly mask: (text: string) => string
  /** Default the system's. */
  readonly clock?: Clock
}

/** Counts failures of stores, each of them, and logs some. */
export class StoreFaults {
  private readonly options: StoreFaultOptions
  private readonly clock: Clock
  /** Of each store: when its last line was written, and how many failures had none since. */
  private readonly seen = new Map<string, { lastMs: number; unsaid: number }>()

  constructor(options: StoreFaultOptions) {
    this.options = options
    this.clock = options.clock ?? systemClock
  }

  /** `store` is one of a few names. */
  report(store: string, error: unknown): void {
    const { logger, metrics, mask } = this.options
    metrics?.storeFailed(store)
    const nowMs = this.clock.monotonicMs()
    const seen = this.seen.get(store)
    if (seen !== undefined && nowMs - seen.lastMs < LINE_INTERVAL_MS) {
      seen.unsaid++
      return
    }
    logger.warn({ store, error: describeError(error, mask), ...(seen !== undefined && seen.unsaid > 0 && { unsaid: seen.unsaid }) }, 'store failed')
    this.seen.set(store, { lastMs: nowMs, unsaid: 0 })
  }
}

/** A store tells of a fault by itself, the tier that asked it of the error that came of it, and the cache that asked the tiers of that again: it is passed on once. */
export class OncePerFault {
  readonly ofStore: OnStoreFault
  readonly ofTier: OnStoreFault
  /** What the cache tells and no tier has told is nobody's but its own. */
  readonly ofCache: (error: unknown) => void

  constructor(onFault: OnStoreFault) {
    const byStores = new WeakSet<object>()
    // A refusal is one and the same error each time: the tiers tell each of them, the cache none.
    const byTiers = new WeakSet<object>()
    this.ofStore = (store, error) => {
      if (isObject(error)) byStores.add(error)
      onFault(store, error)
    }
    this.ofTier = (store, error) => {
      if (isObject(error)) {
        if (byStores.has(error)) return
        byTiers.add(error)
      }
      onFault(store, error)
    }
    this.ofCache = (error) => {
      if (!isObject(error) || !(byStores.has(error) || byTiers.has(error))) onFault('cache', error)
    }
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
