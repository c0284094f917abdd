import type { Clock } from '@proxy/pipeline'
import type { Background } from './background.ts'
import type { MissedRemovals } from './missed-removals.ts'

export interface OwedRemovalsOptions {
  readonly missed: MissedRemovals
  readonly clock: Clock
  readonly background: Background
  /** Least time between two attempts. */
  readonly retryMs: number
  /** Whether the store answers, as far as is known. */
  readonly isThere: () => boolean
  /** Permission for one removal. */
  readonly mayRemove: () => boolean
  /** Removes a key, and takes it out of `missed`. Rejects when it could not. */
  readonly remove: (key: string) => Promise<unknown>
}

/** Removals under way at a time. */
const LANES = 8

/** Makes up in the background for removals that a store missed, once it can be asked again. */
export class OwedRemovals {
  private readonly options: OwedRemovalsOptions
  private isRunning = false
  private notBeforeMs = 0

  constructor(options: OwedRemovalsOptions) {
    this.options = options
  }

  /** Begins, where there is something to do and the last attempt is not too recent. */
  attempt(): void {
    const { background, clock, isThere, missed } = this.options
    if (this.isRunning || !missed.isOwing || !isThere() || clock.monotonicMs() < this.notBeforeMs) return
    this.isRunning = true
    background.add(this.run())
  }

  /** No attempt begins any more, and the one under way goes no further. */
  stop(): void {
    this.notBeforeMs = Number.POSITIVE_INFINITY
  }

  private async run(): Promise<void> {
    const { clock, mayRemove, missed, remove, retryMs } = this.options
    const keys = missed.owed()
    let going = true
    const removeNext = async (): Promise<boolean> => {
      if (!going || this.notBeforeMs === Number.POSITIVE_INFINITY || !mayRemove()) return false
      const { done, value: key } = keys.next()
      if (done === true) return false
      try {
        await remove(key)
      } catch {
        // Told by `remove`, and owed still.
        going = false
      }
      return going
    }
    const removeAll = async (): Promise<void> => {
      while (await removeNext());
    }
    // One alone at first: it shows whether the others have a chance.
    if (await removeNext()) await Promise.all(Array.from({ length: LANES }, removeAll))
    this.isRunning = false
    if (missed.isOwing) this.notBeforeMs = Math.max(this.notBeforeMs, clock.monotonicMs() + retryMs)
  }
}
