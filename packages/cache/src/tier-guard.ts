import type { Clock } from '@proxy/pipeline'
import { type Breaker, type BreakerState, createBreaker } from '@proxy/pipeline/breaker'
import { withDeadline } from './deadline.ts'
import { tierTimedOut } from './errors.ts'
import type { ResolvedTier } from './tier.ts'
import { worse } from './tier-stats.ts'

export interface TierGuardOptions {
  readonly clock: Clock
  /** How long a write may hold up others. */
  readonly stallMs: number
  readonly onError: (tier: string, error: unknown) => void
}

/** Of a tier that fails every other time there are never many failures in a row. */
const failureShare = { failures: 10, calls: 20 }

/**
 * Whether a tier is asked, for how long, and what failed. Lookups, writes, and what is changed in a moment (touches and removals) have a breaker each, as a full
 * store can be read and emptied; while lookups find nobody at home, the others rest.
 */
export class TierGuard {
  errors = 0
  timeouts = 0
  private readonly settings: ResolvedTier
  private readonly onError: (tier: string, error: unknown) => void
  /** Undefined where the store judges itself. */
  private readonly reads: Breaker | undefined
  private readonly changes: Breaker | undefined
  private readonly writes: Breaker

  constructor(settings: ResolvedTier, { clock, onError, stallMs }: TierGuardOptions) {
    const { failureThreshold, judged, openMs, timeoutMs } = settings
    this.settings = settings
    this.onError = onError
    // Two probes at a time would be one too many: none begins while the one before may still be waiting.
    const longestMs = Math.max(openMs, Number.isFinite(timeoutMs) ? timeoutMs : 0)
    const breaker = (openMs: number): Breaker => createBreaker({ failureThreshold, failureShare, openMs, clock })
    this.reads = judged ? breaker(longestMs) : undefined
    this.changes = judged ? breaker(longestMs) : undefined
    this.writes = breaker(Math.max(longestMs, stallMs))
  }

  get readBreaker(): BreakerState {
    return this.reads?.state ?? 'closed'
  }

  get writeBreaker(): BreakerState {
    return worse(this.writes.state, this.changes?.state)
  }

  /** Whether a lookup may be made; while the tier is left out, a true answer is the permission for the one that tries it. */
  mayRead(): boolean {
    return this.reads === undefined || this.reads.allow()
  }

  mayWrite(): boolean {
    return this.readBreaker === 'closed' && this.writes.allow()
  }

  mayChange(): boolean {
    return this.changes === undefined || (this.readBreaker === 'closed' && this.changes.allow())
  }

  readSucceeded(): void {
    this.reads?.success()
  }

  readFailed(error: unknown): void {
    this.failed(error)
    this.reads?.failure()
  }

  writeSucceeded(): void {
    this.writes.success()
  }

  writeFailed(error: unknown): void {
    this.failed(error)
    if (this.settings.judged) this.writes.failure()
  }

  changeSucceeded(): void {
    this.changes?.success()
  }

  changeFailed(error: unknown): void {
    this.failed(error)
    this.changes?.failure()
  }

  /** A write held up others for too long. */
  writeStalled(): void {
    this.writes.failure()
  }

  /** Takes note of a failure that says nothing of the next operation. */
  failed(error: unknown): void {
    this.errors++
    this.onError(this.settings.name, error)
  }

  /** Waits for `work` within the tier's time, if it has one. Rejects with TIER_TIMEOUT; `late` gets what comes after that. */
  within<T>(timeoutMs: number, work: Promise<T>, late: (value: T) => void): Promise<T> {
    return timeoutMs === Number.POSITIVE_INFINITY ? work : withDeadline(work, timeoutMs, () => this.timedOut(timeoutMs), late)
  }

  private timedOut(timeoutMs: number): Error {
    this.timeouts++
    return tierTimedOut(this.settings.name, timeoutMs)
  }
}
