import type { TargetState } from './target.ts'

/**
 * How the use of a target ended. `aborted` says nothing about the target: the client left, or a fault was found on this side.
 */
export type Outcome = 'success' | 'failure' | 'aborted'

/** The right to use a target, counted in `TargetState.active` until it is released. */
export interface Lease {
  readonly target: TargetState
  /** The target was ejected when it was chosen, because there was no other: a guess, not a choice. */
  readonly degraded: boolean
  /** Ends the use. Only the first call counts. Never throws. */
  release(outcome: Outcome): void
}
