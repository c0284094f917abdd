import { type Clock, systemClock } from '@proxy/pipeline'
import { Background } from './background.ts'
import { Copies } from './copies.ts'
import { GuardedTier } from './guarded-tier.ts'
import { type Copy, PromotedEntry } from './promotion.ts'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from './store.ts'
import { positive, resolveTier, type Tier } from './tier.ts'
import type { TierStats } from './tier-stats.ts'
import type { TierWriter } from './tier-writer.ts'
import { TieredWriter } from './tiered-writer.ts'

/** Several stores as one. */
export interface TieredStore extends CacheStore {
  /** Nearest first. */
  tierStats(): readonly TierStats[]
}

export interface TieredOptions {
  /**
   * How long a tier that does not keep up may hold up the others before it is left out of a write, and how long in all a reader may pause before the copy that is
   * made while it reads is given up. Milliseconds. Default 2 s.
   */
  readonly stallMs?: number
  /**
   * Bound of the keys that are remembered for each tier because their removal did not reach it. Bytes. When that is not enough, all that the tier holds at that
   * time counts as outdated. Default 8 MiB, some 50 000 keys.
   */
  readonly maxMissedBytes?: number
  /** Told of every operation that failed in one tier; the others went on. Must not throw. */
  readonly onTierError?: (tier: string, error: unknown) => void
  /** Default the system's. */
  readonly clock?: Clock
}

/**
 * Several stores as one, nearest first. A lookup asks them in order and takes the first hit; an error in one is a miss in that one. A write goes to every
 * tier that admits it, and removes the key from those that do not have it then: what was put last is what is found, so a success clears a negative entry
 * kept elsewhere. What is found far away is copied to the nearer tiers that admit it. A tier that fails or hangs time and again is left out for a while; what
 * should have been removed from it is not found again when it is back. Throws TypeError when there is no tier, and for numbers that are not above 0.
 */
export function tiered(tiers: readonly Tier[], options: TieredOptions = {}): TieredStore {
  return new Tiers(tiers, options)
}

class Tiers implements TieredStore {
  readonly guarded = true
  private readonly tiers: readonly GuardedTier[]
  private readonly stallMs: number
  /** Copies, and removals that are made up for. */
  private readonly background = new Background()
  private readonly copies = new Copies()

  constructor(tiers: readonly Tier[], options: TieredOptions) {
    if (tiers.length === 0) throw new TypeError('tiered() needs one store at least')
    const stallMs = positive('stallMs', options.stallMs ?? 2000)
    const maxMissedBytes = positive('maxMissedBytes', options.maxMissedBytes ?? 8 * 1024 * 1024)
    const { background } = this
    const { clock = systemClock, onTierError: onError = () => {} } = options
    this.stallMs = stallMs
    this.tiers = tiers.map((tier) => new GuardedTier(resolveTier(tier), { background, clock, maxMissedBytes, onError, stallMs }))
  }

  async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    let silent: Set<GuardedTier> | undefined
    for (let i = 0; i < this.tiers.length; i++) {
      const tier = this.tiers[i] as GuardedTier
      try {
        if (!tier.isMissing(key)) {
          const asked = tier.ask(key, want)
          if (asked === undefined) {
            ;(silent ??= new Set()).add(tier)
            continue
          }
          const entry = tier.found(key, await asked)
          if (entry !== undefined) {
            tier.counts.hits++
            return i === 0 ? entry : this.promoted(key, entry, i, silent)
          }
        }
        tier.counts.misses++
      } catch (error) {
        tier.failedLookup(error, want)
        ;(silent ??= new Set()).add(tier)
      }
    }
    return undefined
  }

  tierStats(): readonly TierStats[] {
    return this.tiers.map((tier) => tier.stats())
  }

  private promoted(key: string, entry: CacheEntry, from: number, silent: ReadonlySet<GuardedTier> | undefined): CacheEntry {
    const nearer = this.tiers.slice(0, from).filter((tier) => silent?.has(tier) !== true && tier.wants(entry.meta))
    if (nearer.length === 0) return entry
    const start = (): Copy | undefined => this.startCopy(key, entry, nearer, this.tiers[from] as GuardedTier)
    // A base record leads to variants and is never opened.
    if (entry.meta.length > 0) return new PromotedEntry(entry, start)
    start()?.settle()
    return entry
  }

  private startCopy(key: string, entry: CacheEntry, nearer: readonly GuardedTier[], from: GuardedTier): Copy | undefined {
    const free = nearer.filter((tier) => !tier.copying.has(key))
    const copies = free.map((tier) => ({ tier, writer: tier.put(key, entry.meta) })).filter(({ writer }) => !writer.failed)
    if (copies.length === 0) return undefined
    for (const { tier } of copies) tier.copying.add(key)
    return {
      writers: copies.map(({ writer }) => writer),
      maxPausedMs: this.stallMs,
      abort: () => {
        for (const { tier, writer } of copies) {
          tier.copying.delete(key)
          writer.abort()
        }
      },
      settle: () => {
        for (const { tier, writer } of copies) this.background.add(this.commitCopy(key, entry, tier, writer, from))
      }
    }
  }

  /** Not when the entry has been replaced, removed or renewed meanwhile: the copy would bring back what is gone. */
  private async commitCopy(key: string, entry: CacheEntry, tier: GuardedTier, writer: TierWriter, from: GuardedTier): Promise<void> {
    try {
      const holds = async (): Promise<boolean> => isUnchanged(entry, await from.peek(key)) && (await tier.peek(key)) === undefined
      if (await this.copies.commit(key, writer, holds)) tier.counts.promotions++
    } catch {
      // Told by the tier that failed; there is no copy then.
    } finally {
      tier.copying.delete(key)
    }
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const { copies, stallMs, tiers } = this
    return new TieredWriter({ key, tiers, copies, writers: tiers.map((tier) => (tier.admits(meta) ? tier.put(key, meta) : undefined)), stallMs })
  }

  /**
   * Renews the version that was found, and what the other tiers hold of the same response. Nothing is found any more in a tier that could not be told: the freshness
   * that it had would be back when the others have lost theirs.
   */
  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    return this.copies.change(key, () => this.touchAll(key, version, meta))
  }

  private async touchAll(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    const outcomes = await Promise.all(this.tiers.map((tier) => tier.touch(key, version, meta)))
    const nearest = outcomes.indexOf('renewed')
    if (nearest < 0) return false
    for (const [i, tier] of this.tiers.entries()) if (outcomes[i] === 'failed') tier.distrust(key, i > nearest)
    return true
  }

  /** Rejects when a tier could not be reached: nothing is found in it under the key, but others who share it do not know. */
  delete(key: string, version?: string): Promise<boolean> {
    return this.copies.change(key, () => this.removeFromAll(key, version))
  }

  private async removeFromAll(key: string, version: string | undefined): Promise<boolean> {
    const first = await this.remove(key, version)
    // Every tier has a version of its own for one write: what the others hold is the same response, or an older one that must not come back.
    const second = version !== undefined && first.removed ? await this.remove(key) : undefined
    const failure = first.failure ?? second?.failure
    if (failure !== undefined) throw failure.reason
    return first.removed
  }

  private async remove(key: string, version?: string): Promise<{ removed: boolean; failure: PromiseRejectedResult | undefined }> {
    const results = await Promise.allSettled(this.tiers.map((tier) => tier.remove(key, version)))
    return { removed: results.some((result) => result.status === 'fulfilled' && result.value), failure: results.find((result) => result.status === 'rejected') }
  }

  async sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    // One that fails keeps none of the others from being swept.
    const swept = await Promise.allSettled(this.tiers.map((tier) => tier.sweep(matches, keep)))
    let count = 0
    for (const result of swept) {
      if (result.status === 'rejected') throw result.reason
      count += result.value
    }
    return count
  }

  async close(): Promise<void> {
    for (const tier of this.tiers) tier.rest()
    await this.background.settled()
    const results = await Promise.allSettled(this.tiers.map((tier) => tier.close()))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
}

function isUnchanged({ version, meta }: CacheEntry, now: Pick<CacheEntry, 'version' | 'meta'> | undefined): boolean {
  return now?.version === version && now.meta.requestTime === meta.requestTime && now.meta.responseTime === meta.responseTime && now.meta.keepUntil === meta.keepUntil
}
