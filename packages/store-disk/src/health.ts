import type { Clock } from '@proxy/pipeline'
import { type Breaker, type BreakerState, createBreaker } from '@proxy/pipeline/breaker'
import type { DiskError, DiskFailureKind } from './errors.ts'

export interface DiskFault {
  readonly kind: DiskFailureKind
  /** What is affected: each fails and recovers apart, as a full disk can still be read and emptied. `index`: only eviction and its bookkeeping. `purges`: the log of purges. */
  readonly side: 'read' | 'write' | 'removal' | 'index' | 'purges'
  readonly error: DiskError
}

interface HealthOptions {
  readonly side: DiskFault['side']
  readonly failureThreshold: number
  readonly openMs: number
  readonly clock: Clock
  readonly onFault: (fault: DiskFault) => void
}

/** Says nothing of the disk. */
const neutral: ReadonlySet<DiskFailureKind> = new Set(['aborted', 'unavailable', 'closed', 'gone', 'busy', 'broken'])
/** Trying again at once cannot help, so the first one opens the breaker. */
const final: ReadonlySet<DiskFailureKind> = new Set(['read-only', 'denied'])
/** A disk that is full for hours is one line a minute. */
const REPORT_EVERY_MS = 60_000

/** Whether one side of the disk may be asked: a breaker, its counters, and at most one report of each kind of fault per minute. */
export class Health {
  errors = 0
  timeouts = 0
  private readonly options: HealthOptions
  private readonly breaker: Breaker
  private readonly reportedAt = new Map<DiskFailureKind, number>()

  constructor(options: HealthOptions) {
    const { failureThreshold, openMs, clock } = options
    this.options = options
    this.breaker = createBreaker({ failureThreshold, openMs, clock })
  }

  get state(): BreakerState {
    return this.breaker.state
  }

  allow(): boolean {
    return this.breaker.allow()
  }

  success(): void {
    this.breaker.success()
  }

  /** Takes note of a failed operation. */
  failed(error: DiskError): void {
    if (error.kind === 'broken') this.report(error)
    if (neutral.has(error.kind)) return
    this.errors++
    if (error.kind === 'timeout') this.timeouts++
    const tries = final.has(error.kind) ? this.options.failureThreshold : 1
    for (let i = 0; i < tries && this.breaker.state !== 'open'; i++) this.breaker.failure()
    this.report(error)
  }

  private report(error: DiskError): void {
    const { clock, side, onFault } = this.options
    const nowMs = clock.monotonicMs()
    const last = this.reportedAt.get(error.kind)
    if (last !== undefined && nowMs - last < REPORT_EVERY_MS) return
    this.reportedAt.set(error.kind, nowMs)
    onFault({ kind: error.kind, side, error })
  }
}
