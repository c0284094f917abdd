import { Background } from './background.ts'
import { type Copy, PromotedEntry } from './promotion.ts'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from './store.ts'
import { TieredWriter, type TierWrite } from './tiered-writer.ts'

export interface Tier {
  readonly store: CacheStore
  /** Name in `onTierError`. */
  readonly name: string
  /** Which responses this tier keeps: `(meta) => meta.status >= 400` for negative entries alone. Default: all. */
  readonly admit?: (meta: CacheMeta) => boolean
  /** Whether what is found in a tier further away, and read whole, is copied to this one, where it admits it. Default true. */
  readonly promote?: boolean
}

/** What a tier has been asked, and what came of it. */
export interface TierStats {
  readonly name: string
  readonly hits: number
  readonly misses: number
  /** Operations that failed; the others went on. */
  readonly errors: number
  /** Entries copied to it from further away. */
  readonly promotions: number
}

/** Several stores as one. */
export interface TieredStore extends CacheStore {
  /** Nearest first. */
  stats(): readonly TierStats[]
}

interface Counted extends Tier {
  hits: number
  misses: number
  errors: number
  promotions: number
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
 * kept elsewhere. What is found far away is copied to the nearer tiers that admit it. Throws TypeError when there is no tier.
 */
export function tiered(tiers: readonly Tier[], options: TieredOptions = {}): TieredStore {
  return new Tiers(tiers, options)
}

class Tiers implements TieredStore {
  private readonly tiers: readonly Counted[]
  private readonly stallMs: number
  private readonly onTierError: NonNullable<TieredOptions['onTierError']>
  private readonly copying = new Background()

  constructor(tiers: readonly Tier[], options: TieredOptions) {
    if (tiers.length === 0) throw new TypeError('tiered() needs one store at least')
    this.tiers = tiers.map((tier) => ({ ...tier, hits: 0, misses: 0, errors: 0, promotions: 0 }))
    this.stallMs = options.stallMs ?? 2000
    this.onTierError = options.onTierError ?? (() => {})
  }

  async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    let failing: Set<Counted> | undefined
    for (let i = 0; i < this.tiers.length; i++) {
      const tier = this.tiers[i] as Counted
      try {
        const entry = await tier.store.get(key, want)
        if (entry === undefined) tier.misses++
        else {
          tier.hits++
          return i === 0 ? entry : this.promoted(key, entry, i, failing)
        }
      } catch (error) {
        this.failed(tier, error)
        ;(failing ??= new Set()).add(tier)
      }
    }
    return undefined
  }

  stats(): readonly TierStats[] {
    return this.tiers.map(({ name, hits, misses, errors, promotions }) => ({ name, hits, misses, errors, promotions }))
  }

  private failed(tier: Counted, error: unknown): void {
    tier.errors++
    this.onTierError(tier.name, error)
  }

  private promoted(key: string, entry: CacheEntry, from: number, failing: ReadonlySet<Counted> | undefined): CacheEntry {
    const nearer = this.tiers.slice(0, from).filter((tier) => tier.promote !== false && failing?.has(tier) !== true && (tier.admit === undefined || tier.admit(entry.meta)))
    if (nearer.length === 0) return entry
    const start = (): Copy | undefined => this.startCopy(key, entry, nearer, this.tiers[from] as Counted)
    // A base record leads to variants and is never opened.
    if (entry.meta.length > 0) return new PromotedEntry(entry, start)
    start()?.settle()
    return entry
  }

  private startCopy(key: string, { meta, version }: CacheEntry, nearer: readonly Counted[], from: Counted): Copy | undefined {
    const copies = nearer.map((tier) => ({ tier, writer: tier.store.put(key, meta) })).filter(({ writer }) => writer.failed !== true)
    if (copies.length === 0) return undefined
    return {
      writers: copies.map(({ writer }) => writer),
      settle: () => {
        for (const { tier, writer } of copies) this.copying.add(this.commitCopy(key, version, tier, writer, from))
      }
    }
  }

  /** Not when the entry has been replaced or removed meanwhile: the copy would bring back what is gone. */
  private async commitCopy(key: string, version: string, tier: Counted, writer: CacheWriter, from: Counted): Promise<void> {
    try {
      const original = await from.store.get(key, metaOnly)
      original?.discard()
      const newer = original?.version === version ? await tier.store.get(key, metaOnly) : undefined
      newer?.discard()
      if (original?.version !== version || newer !== undefined) writer.abort()
      else if (await writer.commit()) tier.promotions++
    } catch (error) {
      writer.abort()
      this.failed(tier, error)
    }
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const writes: TierWrite[] = []
    const others: Counted[] = []
    for (const tier of this.tiers) {
      if (tier.admit === undefined || tier.admit(meta)) writes.push({ writer: tier.store.put(key, meta), clear: () => this.clear(tier, key) })
      else others.push(tier)
    }
    const clearOthers = async (): Promise<void> => {
      await Promise.all(others.map((tier) => this.clear(tier, key)))
    }
    return new TieredWriter({ writes, clearOthers, stallMs: this.stallMs })
  }

  private async clear(tier: Counted, key: string): Promise<void> {
    try {
      await tier.store.delete(key)
    } catch (error) {
      this.failed(tier, error)
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
      this.tiers.map(async (tier) => {
        try {
          return (await tier.store.sweep?.(matches, keep)) ?? 0
        } catch (error) {
          this.failed(tier, error)
          return 0
        }
      })
    )
    return counts.reduce((sum, count) => sum + count, 0)
  }

  async close(): Promise<void> {
    await this.copying.settled()
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
          this.failed(tier, error)
        }
      })
    )
    if (failed && all) throw failure
    return result
  }
}

const metaOnly: GetOptions = { body: 'none' }
