import { type Clock, systemClock } from './clock.ts'

/** `closed`: calls go through. `open`: none does. `half-open`: one at a time tries whether the service is back. */
export type BreakerState = 'closed' | 'open' | 'half-open'

export interface BreakerOptions {
  /** Failures in a row, with no success between them, that open the breaker. At least 1. */
  readonly failureThreshold: number
  /** So many failures among the last `calls` (1 to 31) open the breaker too: of a service that fails every other time there are never many in a row. Default: none do. */
  readonly failureShare?: { readonly failures: number; readonly calls: number }
  /** Milliseconds from opening to the first probe, and the least time between two probes. More than 0. */
  readonly openMs: number
  /** Default the system's. */
  readonly clock?: Clock
  /** Told of each change, synchronously. Must not throw. */
  readonly onStateChange?: (state: BreakerState, previous: BreakerState) => void
}

/** Stops asking a service that does not answer. Reports are the caller's: it asks `allow()`, makes the call and reports `success()` or `failure()`. */
export interface Breaker {
  /** As of the last call below: an `open` breaker whose time is over turns `half-open` when it is next asked. */
  readonly state: BreakerState
  /**
   * Whether a call may be made now. While not `closed`, a true answer is the permission for one probe, and the next one comes `openMs` later at the
   * earliest: also when the probe never reports, so a lost report cannot keep the breaker open.
   */
  allow(): boolean
  /** A call came back. Closes a half-open breaker. While `open` it changes nothing: the call was made before. */
  success(): void
  /** A call failed or took too long. Opens a half-open breaker for another `openMs`. While `open` it changes nothing. */
  failure(): void
}

/**
 * A circuit breaker that counts failures in a row and, where asked to, among the latest calls. No timers and no promises: it moves only when it is called.
 * Throws RangeError for a threshold below 1, a share that cannot be, or a time that is not above 0.
 */
export function createBreaker(options: BreakerOptions): Breaker {
  return new CountingBreaker(options)
}

class CountingBreaker implements Breaker {
  state: BreakerState = 'closed'
  private failures = 0
  /** The latest calls, one bit each, 1 for a failure. */
  private history = 0
  /** When it opened, or let the last probe through. */
  private sinceMs = 0
  private readonly failureThreshold: number
  private readonly shareFailures: number
  private readonly historyMask: number
  private readonly openMs: number
  private readonly clock: Clock
  private readonly onStateChange: BreakerOptions['onStateChange']

  constructor(options: BreakerOptions) {
    if (!(options.failureThreshold >= 1)) throw new RangeError('failureThreshold must be at least 1')
    if (!(options.openMs > 0)) throw new RangeError('openMs must be above 0')
    const { failures, calls } = options.failureShare ?? { failures: 1, calls: 0 }
    if (options.failureShare !== undefined && !(failures >= 1 && failures <= calls && calls <= 31)) throw new RangeError('failureShare must have failures of at least 1, and calls from that up to 31')
    this.failureThreshold = options.failureThreshold
    this.shareFailures = failures
    this.historyMask = calls === 31 ? 0x7fff_ffff : (1 << calls) - 1
    this.openMs = options.openMs
    this.clock = options.clock ?? systemClock
    this.onStateChange = options.onStateChange
  }

  allow(): boolean {
    if (this.state === 'closed') return true
    const nowMs = this.clock.monotonicMs()
    if (nowMs - this.sinceMs < this.openMs) return false
    this.sinceMs = nowMs
    this.enter('half-open')
    return true
  }

  success(): void {
    if (this.state === 'open') return
    this.failures = 0
    this.history = (this.history << 1) & this.historyMask
    this.enter('closed')
  }

  failure(): void {
    if (this.state === 'open') return
    this.history = ((this.history << 1) | 1) & this.historyMask
    if (this.state === 'closed' && ++this.failures < this.failureThreshold && bits(this.history) < this.shareFailures) return
    this.failures = 0
    this.history = 0
    this.sinceMs = this.clock.monotonicMs()
    this.enter('open')
  }

  private enter(state: BreakerState): void {
    const previous = this.state
    if (previous === state) return
    this.state = state
    this.onStateChange?.(state, previous)
  }
}

function bits(word: number): number {
  let count = 0
  for (let rest = word; rest !== 0; rest &= rest - 1) count++
  return count
}
