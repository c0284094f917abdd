import type { Clock } from '@proxy/pipeline'
import { type Breaker, type BreakerState, createBreaker } from '@proxy/pipeline/breaker'
import type { S3Error, S3FailureKind } from './errors.ts'

export interface S3Fault {
  readonly kind: S3FailureKind
  /** Which side is affected: they fail and recover apart. */
  readonly side: 'read' | 'write'
  /** Safe to log: see `S3Error`. */
  readonly error: S3Error
}

interface HealthOptions {
  readonly side: 'read' | 'write'
  readonly failureThreshold: number
  readonly openMs: number
  readonly clock: Clock
  readonly onFault: (fault: S3Fault) => void
  /** What is given up first when the storage asks for fewer requests. */
  readonly shedFirst?: Health
}

/** What the storage answered although it did not do what was asked: it is alive. */
const answers: ReadonlySet<S3FailureKind> = new Set(['not-found', 'changed', 'range', 'refused', 'unsupported', 'broken'])
/** Neither good nor bad. */
const neutral: ReadonlySet<S3FailureKind> = new Set(['aborted', 'unavailable', 'closed', 'clock-skew'])
/** Trying again soon cannot help, so the first one opens the breaker. */
const final: ReadonlySet<S3FailureKind> = new Set(['auth', 'no-bucket'])

/** Whether one side of the storage, reads or writes, may be asked: a breaker, its counters, and one report per outage. */
export class Health {
  errors = 0
  timeouts = 0
  private readonly options: HealthOptions
  private readonly breaker: Breaker
  private readonly reported = new Set<S3FailureKind>()

  constructor(options: HealthOptions) {
    const { failureThreshold, openMs, clock } = options
    this.options = options
    this.breaker = createBreaker({ failureThreshold, openMs: openMs * (1 + Math.random() / 5), clock })
  }

  get state(): BreakerState {
    return this.breaker.state
  }

  allow(): boolean {
    return this.breaker.allow()
  }

  success(): void {
    this.breaker.success()
    if (this.breaker.state === 'closed') this.reported.clear()
  }

  /** Takes note of a failed request. */
  failed(error: S3Error): void {
    if (neutral.has(error.kind)) return
    if (answers.has(error.kind)) {
      this.success()
      return
    }
    this.errors++
    if (error.kind === 'timeout') this.timeouts++
    if (error.kind === 'throttled') (this.options.shedFirst ?? this).trip(error)
    if (final.has(error.kind)) this.trip(error)
    else {
      this.breaker.failure()
      if (this.breaker.state === 'open') this.report(error)
    }
  }

  /** Opens the breaker at once. */
  trip(error: S3Error): void {
    for (let i = 0; i < this.options.failureThreshold && this.breaker.state !== 'open'; i++) this.breaker.failure()
    this.report(error)
  }

  private report(error: S3Error): void {
    if (this.reported.has(error.kind)) return
    this.reported.add(error.kind)
    this.options.onFault({ kind: error.kind, side: this.options.side, error })
  }
}
