import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from './store.ts'
import { TieredWriter, type TierWrite } from './tiered-writer.ts'

export interface Tier {
  readonly store: CacheStore
  /** Name in `onTierError`. */
  readonly name: string
  /** Which responses this tier keeps: `(meta) => meta.status >= 400` for negative entries alone. Default: all. */
  readonly admit?: (meta: CacheMeta) => boolean
}

export interface TieredOptions {
  /** How long a tier that does not keep up may hold up the others before it is left out of a write. Milliseconds. Default 2 s. */
  readonly stallMs?: number
  /** Told of every operation that failed in one tier; the others went on. Must not throw. */
  readonly onTierError?: (tier: string, error: unknown) => void
}

/**
 * Several stores as one, nearest first. A lookup asks them in order and takes the first hit; an error in one is a miss in that one. A write goes to every
 * tier that admits it, and removes the key from those that do not have it then: what was put last is what is found, so a success clears a negative entry
 * kept elsewhere. Throws TypeError when there is no tier.
 */
export function tiered(tiers: readonly Tier[], options: TieredOptions = {}): CacheStore {
  return new TieredStore(tiers, options)
}

class TieredStore implements CacheStore {
  private readonly tiers: readonly Tier[]
  private readonly stallMs: number
  private readonly onTierError: NonNullable<TieredOptions['onTierError']>

  constructor(tiers: readonly Tier[], options: TieredOptions) {
    if (tiers.length === 0) throw new TypeError('tiered() needs one store at least')
    this.tiers = tiers
    this.stallMs = options.stallMs ?? 2000
    this.onTierError = options.onTierError ?? (() => {})
  }

  async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    for (const tier of this.tiers) {
      try {
        const entry = await tier.store.get(key, want)
        if (entry !== undefined) return entry
      } catch (error) {
        this.onTierError(tier.name, error)
      }
    }
    return undefined
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const writes: TierWrite[] = []
    const others: Tier[] = []
    for (const tier of this.tiers) {
      if (tier.admit === undefined || tier.admit(meta)) writes.push({ writer: tier.store.put(key, meta), clear: () => this.clear(tier, key) })
      else others.push(tier)
    }
    const clearOthers = async (): Promise<void> => {
      await Promise.all(others.map((tier) => this.clear(tier, key)))
    }
    return new TieredWriter({ writes, clearOthers, stallMs: this.stallMs })
  }

  private async clear(tier: Tier, key: string): Promise<void> {
    try {
      await tier.store.delete(key)
    } catch (error) {
      this.onTierError(tier.name, error)
    }
  }

  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    return this.any((store) => store.touch(key, version, meta))
  }

  async delete(key: string, version?: string): Promise<boolean> {
    if (version === undefined) return this.any((store) => store.delete(key), true)
    if (!(await this.any((store) => store.delete(key, version), true))) return false
    // Every tier has a version of its own for one write: what the others hold is the same response, or an older one that must not come back.
    await this.any((store) => store.delete(key), true)
    return true
  }

  async sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    const counts = await Promise.all(
      this.tiers.map(async ({ name, store }) => {
        try {
          return (await store.sweep?.(matches, keep)) ?? 0
        } catch (error) {
          this.onTierError(name, error)
          return 0
        }
      })
    )
    return counts.reduce((sum, count) => sum + count, 0)
  }

  async close(): Promise<void> {
    const results = await Promise.allSettled(this.tiers.map((tier) => tier.store.close()))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  /** Runs on every tier; true when one says so. With `all`, a tier that fails makes the whole fail: a purge that missed one is not done. */
  private async any(run: (store: CacheStore) => Promise<boolean>, all = false): Promise<boolean> {
    let result = false
    let failure: unknown
    let failed = false
    await Promise.all(
      this.tiers.map(async (tier) => {
        try {
          if (await run(tier.store)) result = true
        } catch (error) {
          failed = true
          failure = error
          this.onTierError(tier.name, error)
        }
      })
    )
    if (failed && all) throw failure
    return result
  }
}
