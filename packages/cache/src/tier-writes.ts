import type { ResolvedTier } from './tier.ts'
import type { TierGuard } from './tier-guard.ts'
import type { TierWriteHost } from './tier-writer.ts'

/** What writes change beside the store. */
export interface TierWritesListener {
  /** What was begun when `mark` was noted is visible. */
  stored(key: string, mark: number): void
  /** A commit has been given up, and may yet be done. `landed`: whether it was, once that is known; never rejects. */
  givenUp(key: string, landed: Promise<boolean>): void
}

/** What all writes of a tier share: a bound of the bytes they hold, a deadline for their commits, and the counts. */
export class TierWrites implements TierWriteHost {
  bufferedBytes = 0
  writtenBytes = 0
  givenUp = 0
  private readonly settings: ResolvedTier
  private readonly guard: TierGuard
  private readonly listener: TierWritesListener

  constructor(settings: ResolvedTier, guard: TierGuard, listener: TierWritesListener) {
    this.settings = settings
    this.guard = guard
    this.listener = listener
  }

  reserve(bytes: number): boolean {
    const { maxBufferedBytes } = this.settings
    // Without a bound, the store knows better what its writes hold.
    if (maxBufferedBytes === Number.POSITIVE_INFINITY) return true
    if (this.bufferedBytes + bytes > maxBufferedBytes) return false
    this.bufferedBytes += bytes
    return true
  }

  release(bytes: number): void {
    if (this.settings.maxBufferedBytes !== Number.POSITIVE_INFINITY) this.bufferedBytes -= bytes
  }

  async committed(key: string, commit: Promise<boolean>): Promise<boolean> {
    let isPending = true
    const landed = commit.then(
      (stored) => {
        isPending = false
        return stored
      },
      () => {
        // Told below where somebody waits still, and by contract not stored.
        isPending = false
        return false
      }
    )
    try {
      return await this.guard.within(this.settings.commitTimeoutMs, commit, () => {})
    } catch (error) {
      if (isPending) this.listener.givenUp(key, landed)
      this.guard.writeFailed(error)
      return false
    }
  }

  stored(key: string, mark: number, bytes: number): void {
    this.guard.writeSucceeded()
    this.writtenBytes += bytes
    this.listener.stored(key, mark)
  }

  gaveUp(): void {
    this.givenUp++
  }

  stalled(): void {
    this.guard.writeStalled()
  }

  writeFailed(error: unknown): void {
    this.guard.writeFailed(error)
  }
}
