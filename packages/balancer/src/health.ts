import type { Clock } from '@proxy/pipeline'
import type { Outcome } from './lease.ts'
import type { TargetStatus, TrackedTarget } from './target.ts'

/** Passive health: judged by the requests that are made anyway. */
export interface PassiveHealthOptions {
  /** Failures in a row, with no success between them, that eject a target. At least 1. Default 3. */
  readonly maxFails?: number
  /** Milliseconds from the ejection to the trial, and between two trials. More than 0. Default 10 000. */
  readonly failTimeoutMs?: number
}

/** Why the status of a target changed; a fixed set, usable as a metric label. */
export type StateChangeReason = 'consecutive-failures' | 'trial-started' | 'trial-failed' | 'trial-aborted' | 'answered'

/** What a listener is told. `from` and `to` are the same where a trial nobody heard of again is followed by the next. */
export interface HealthChange {
  readonly target: TrackedTarget
  readonly from: TargetStatus
  readonly to: TargetStatus
  readonly reason: StateChangeReason
}

/** One granted lease as health sees it. */
export interface Use {
  readonly tracked: TrackedTarget
  /** `TrackedTarget.ejections` when it was granted: what ends now may have begun before the target was ejected. */
  readonly ejections: number
}

/**
 * The state machine of every target of a balancer: available -> ejected -> trial -> available or ejected. Moves only when called; no timers.
 *
 * - `maxFails` failures in a row eject a target for `failTimeoutMs`.
 * - Then one request is let through, the trial. While it runs no other is, for `failTimeoutMs` at most: a trial that becomes a long download, or a lease
 *   that is lost, cannot keep a target out.
 * - Any success of a lease granted since the ejection makes the target available again. A failed trial ejects it for another `failTimeoutMs`; an aborted one has
 *   shown nothing, so the next request may be the trial.
 * - What was granted before the ejection neither readmits a target nor ejects it again after its return: of a hundred requests that were under way when
 *   it died, three eject it and the others are history.
 */
export class PassiveHealth {
  private readonly maxFails: number
  private readonly failTimeoutMs: number
  private readonly clock: Clock
  private readonly onChange: (change: HealthChange) => void
  /** The lease on trial, by `TrackedTarget.index`; the last one that was, while the target is ejected. */
  private readonly trials: (Use | undefined)[] = []

  /** Throws RangeError for `maxFails` that is no integer of at least 1 and for `failTimeoutMs` that is not finite and above 0. */
  constructor(options: PassiveHealthOptions, clock: Clock, onChange: (change: HealthChange) => void) {
    this.maxFails = options.maxFails ?? 3
    this.failTimeoutMs = options.failTimeoutMs ?? 10_000
    if (!Number.isInteger(this.maxFails) || this.maxFails < 1) throw new RangeError('maxFails must be an integer of at least 1')
    if (!Number.isFinite(this.failTimeoutMs) || this.failTimeoutMs <= 0) throw new RangeError('failTimeoutMs must be finite and above 0')
    this.clock = clock
    this.onChange = onChange
  }

  /** `use` is the request that finds out whether an ejected target is back. */
  startTrial(use: Use): void {
    const target = use.tracked
    this.trials[target.index] = use
    target.heldUntilMs = this.clock.monotonicMs() + this.failTimeoutMs
    this.move(target, 'trial', 'trial-started')
  }

  ended(use: Use, outcome: Outcome): void {
    const target = use.tracked
    if (use.ejections !== target.ejections) return
    const isTrial = this.trials[target.index] === use
    if (outcome === 'success') {
      target.consecutiveFailures = 0
      if (target.status === 'available') return
      this.trials[target.index] = undefined
      this.move(target, 'available', 'answered')
    } else if (outcome === 'failure') {
      target.consecutiveFailures++
      if (isTrial) this.hold(target, 'trial-failed')
      else if (target.status === 'available' && target.consecutiveFailures >= this.maxFails) {
        target.ejections++
        this.hold(target, 'consecutive-failures')
      }
    } else if (isTrial) {
      target.heldUntilMs = this.clock.monotonicMs()
      this.move(target, 'ejected', 'trial-aborted')
    }
  }

  private hold(target: TrackedTarget, reason: StateChangeReason): void {
    target.heldUntilMs = this.clock.monotonicMs() + this.failTimeoutMs
    this.move(target, 'ejected', reason)
  }

  private move(target: TrackedTarget, to: TargetStatus, reason: StateChangeReason): void {
    const from = target.status
    target.status = to
    this.onChange({ target, from, to, reason })
  }
}
