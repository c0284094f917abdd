import type { Clock } from '@proxy/pipeline'
import type { Background } from './background.ts'
import { storedBodyBroken, tierOut } from './errors.ts'
import { MissedRemovals } from './missed-removals.ts'
import { OwedRemovals } from './owed-removals.ts'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from './store.ts'
import type { ResolvedTier } from './tier.ts'
import { TierEntry } from './tier-entry.ts'
import { TierGuard, type TierGuardOptions } from './tier-guard.ts'
import { type TierStats, worse } from './tier-stats.ts'
import { refusedWriter, TierWriter } from './tier-writer.ts'
import { TierWrites } from './tier-writes.ts'
import type { ClearedTier } from './tiered-writer.ts'

export interface GuardedTierOptions extends TierGuardOptions {
  readonly clock: Clock
  readonly maxMissedBytes: number
  readonly background: Background
}

/** What came of a touch: it is not there to be renewed, or could not be reached. */
export type TouchOutcome = 'renewed' | 'absent' | 'failed'

/**
 * A tier's store behind what the store may not do itself: deadlines, breakers, a bound of what its writes hold. What could not be removed from the store is not
 * found in it either, and is removed once it can be.
 */
export class GuardedTier implements ClearedTier {
  readonly settings: ResolvedTier
  readonly guard: TierGuard
  readonly counts = { hits: 0, misses: 0, promotions: 0, bytesServed: 0 }
  /** Keys that something is being copied to from further away: one copy at a time. */
  readonly copying = new Set<string>()
  private readonly store: CacheStore
  private readonly background: Background
  private readonly missed: MissedRemovals
  private readonly owed: OwedRemovals
  private readonly writes: TierWrites
  /** Keys of commits that were given up and are not settled, with how many they are. As many as the store lets hang, and their bytes count as held. */
  private readonly late = new Map<string, number>()
  private readonly unavailable: Error

  constructor(settings: ResolvedTier, options: GuardedTierOptions) {
    const { background, clock, maxMissedBytes } = options
    this.settings = settings
    this.store = settings.store
    this.background = background
    this.guard = new TierGuard(settings, options)
    this.missed = new MissedRemovals(maxMissedBytes, clock)
    this.owed = new OwedRemovals({
      missed: this.missed,
      clock,
      background,
      retryMs: settings.openMs,
      isThere: () => this.guard.readBreaker === 'closed',
      mayRemove: () => this.guard.mayChange(),
      remove: (key) => this.removeNow(key, undefined, false)
    })
    this.writes = new TierWrites(settings, this.guard, {
      stored: (key, mark) => this.missed.resolve(key, mark),
      givenUp: (key, landed) => void this.awaitLate(key, landed)
    })
    this.unavailable = tierOut(settings.name)
  }

  // A lookup is `isMissing`, then `ask`, then `found` with what that resolves to, or `failedLookup` with what it rejects with: no promise more than the store's own.

  /** Whether nothing is found under the key, whatever the store would say. */
  isMissing(key: string): boolean {
    if (this.missed.size === 0) return this.late.has(key)
    this.owed.attempt()
    if (!this.isHidden(key)) return false
    if (this.guard.readBreaker !== 'closed') this.probe(key)
    return true
  }

  private isHidden(key: string): boolean {
    return this.missed.has(key) || this.late.has(key)
  }

  /**
   * The other tiers have gone on without it, and what they have may have been removed since: nothing is found here until what lands late has been removed. Never
   * rejects. Nobody waits for it: it may not land at all.
   */
  private async awaitLate(key: string, landed: Promise<boolean>): Promise<void> {
    this.late.set(key, (this.late.get(key) ?? 0) + 1)
    try {
      if (await landed) {
        const removal = this.remove(key)
        this.background.add(removal)
        await removal
      }
    } catch {
      // Told by `remove`, and not found until it is gone.
    } finally {
      const others = (this.late.get(key) ?? 0) - 1
      if (others > 0) this.late.set(key, others)
      else this.late.delete(key)
    }
  }

  /** Asks the store; undefined while it is left out. */
  ask(key: string, want: GetOptions | undefined): Promise<CacheEntry | undefined> | undefined {
    return this.guard.mayRead() ? this.guard.within(this.settings.timeoutMs, this.store.get(key, want), discardEntry) : undefined
  }

  /** What counts of what the store has brought. */
  found(key: string, entry: CacheEntry | undefined): CacheEntry | undefined {
    this.guard.readSucceeded()
    if (entry === undefined) return undefined
    const isOutdated = entry.meta.requestTime <= this.missed.outdatedUntil
    if (!isOutdated && !this.isHidden(key)) return new TierEntry(this, key, entry)
    entry.discard()
    if (isOutdated) this.background.add(this.remove(key, entry.version))
    return undefined
  }

  failedLookup(error: unknown, want: GetOptions | undefined): void {
    if (want?.signal?.aborted !== true) this.guard.readFailed(error)
  }

  /** What a lookup would find, without its body; not counted as one. Rejects when the store does, or is left out. */
  async peek(key: string): Promise<Pick<CacheEntry, 'version' | 'meta'> | undefined> {
    if (this.isMissing(key)) return undefined
    const asked = this.ask(key, metaOnly)
    if (asked === undefined) throw this.unavailable
    try {
      const entry = this.found(key, await asked)
      entry?.discard()
      return entry
    } catch (error) {
      this.failedLookup(error, undefined)
      throw error
    }
  }

  /** Finds out on nobody's time whether the store answers again: no lookup does where nothing can be found. */
  private probe(key: string): void {
    const asked = this.ask(key, metaOnly)
    if (asked === undefined) return
    this.background.add(
      asked.then(
        (entry) => this.found(key, entry)?.discard(),
        (error: unknown) => this.failedLookup(error, undefined)
      )
    )
  }

  admits(meta: CacheMeta): boolean {
    return this.settings.admit === undefined || this.settings.admit(meta)
  }

  /** Whether it takes a copy of what another tier has. One that would count as outdated at once is of no use. */
  wants(meta: StoredMeta): boolean {
    return this.settings.promote && meta.requestTime > this.missed.outdatedUntil && this.admits(meta)
  }

  put(key: string, meta: CacheMeta): TierWriter {
    const { mark } = this.missed
    let writer: CacheWriter = refusedWriter
    if (this.guard.mayWrite()) {
      try {
        writer = this.store.put(key, meta)
      } catch (error) {
        // Against the contract; the other tiers go on.
        this.guard.writeFailed(error)
      }
    }
    return new TierWriter(this.writes, key, mark, writer)
  }

  /** Renews that version of the entry or, as every tier has versions of its own, the one that is the same response by `meta.id`. Never rejects. */
  async touch(key: string, version: string, meta: CacheMeta): Promise<TouchOutcome> {
    if (this.isHidden(key)) return 'absent'
    if (!this.guard.mayChange()) return 'failed'
    try {
      const isTouched = (await this.touchVersion(key, version, meta)) || (await this.touchSame(key, version, meta))
      this.guard.changeSucceeded()
      return isTouched ? 'renewed' : 'absent'
    } catch (error) {
      this.guard.changeFailed(error)
      return 'failed'
    }
  }

  private touchVersion(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    return this.guard.within(this.settings.timeoutMs, this.store.touch(key, version, meta), nothing)
  }

  private async touchSame(key: string, tried: string, meta: CacheMeta): Promise<boolean> {
    if (meta.id === undefined) return false
    const entry = await this.guard.within(this.settings.timeoutMs, this.store.get(key, metaOnly), discardEntry)
    entry?.discard()
    return entry !== undefined && entry.version !== tried && entry.meta.id === meta.id && entry.meta.requestTime <= meta.requestTime && this.touchVersion(key, entry.version, meta)
  }

  /** Nothing is found under the key any more: what lies there has not been told what is known of it by now. */
  distrust(key: string, isSuperseded: boolean): void {
    this.missed.add(key, isSuperseded)
  }

  /**
   * Removes what the store holds under the key, or that version of it. When it cannot it rejects, and nothing is found under the key until that was made up for
   * or something new has been put there. `isSuperseded`: see `MissedRemovals`.
   */
  async remove(key: string, version?: string, isSuperseded = false): Promise<boolean> {
    if (this.guard.mayChange()) return this.removeNow(key, version, isSuperseded)
    this.missed.add(key, isSuperseded)
    this.guard.failed(this.unavailable)
    throw this.unavailable
  }

  /** Removes an entry that turned out to be broken while it was read. */
  drop(key: string, version: string): void {
    this.guard.failed(storedBodyBroken(`entry of tier ${this.settings.name} has another length than it said`))
    this.background.add(this.remove(key, version))
  }

  async clear(key: string, isSuperseded: boolean): Promise<void> {
    try {
      await this.remove(key, undefined, isSuperseded)
    } catch {
      // Told by `remove`, and not found until it is gone.
    }
  }

  private async removeNow(key: string, version: string | undefined, isSuperseded: boolean): Promise<boolean> {
    const { mark } = this.missed
    try {
      const removed = await this.guard.within(this.settings.timeoutMs, version === undefined ? this.store.delete(key) : this.store.delete(key, version), nothing)
      this.guard.changeSucceeded()
      if (version === undefined) this.missed.resolve(key, mark)
      return removed
    } catch (error) {
      this.missed.add(key, isSuperseded)
      this.guard.changeFailed(error)
      throw error
    }
  }

  /** Rejects when the tier is left out or could not be seen as a whole: what matches may still lie in it. */
  async sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    if (this.store.sweep === undefined) return 0
    try {
      if (this.guard.readBreaker !== 'closed') throw this.unavailable
      return await this.store.sweep(matches, keep)
    } catch (error) {
      this.guard.failed(error)
      throw error
    }
  }

  /** Begins nothing in the background any more. */
  rest(): void {
    this.owed.stop()
  }

  close(): Promise<void> {
    return this.guard.within(this.settings.commitTimeoutMs, this.store.close(), nothing)
  }

  stats(): TierStats {
    const { counts, guard, missed, settings, writes } = this
    const { entries, bytes, evictions, pendingBytes, readBreaker, timeouts, writeBreaker } = this.store.stats?.() ?? {}
    return {
      name: settings.name,
      ...counts,
      errors: guard.errors,
      timeouts: guard.timeouts + (timeouts ?? 0),
      bytesWritten: writes.writtenBytes,
      writesGivenUp: writes.givenUp,
      bufferedBytes: Math.max(writes.bufferedBytes, pendingBytes ?? 0),
      missedRemovals: missed.size,
      readBreaker: worse(guard.readBreaker, readBreaker),
      writeBreaker: worse(guard.writeBreaker, writeBreaker),
      entries,
      bytes,
      evictions
    }
  }
}

const metaOnly: GetOptions = { body: 'none' }

function discardEntry(entry: CacheEntry | undefined): void {
  entry?.discard()
}

function nothing(): void {}
