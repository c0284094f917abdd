import { type Clock, systemClock } from '@proxy/pipeline'
import type { Logger } from 'pino'
import { describeError } from './logger.ts'
import type { Metrics } from './metrics.ts'

/** A store that is away fails for every request: of each store, one line is written in so many milliseconds. */
const LINE_INTERVAL_MS = 60_000

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
