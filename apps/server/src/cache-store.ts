import { type CacheStore, MemoryStore, type Tier, type TierStats, tiered } from '@proxy/cache'

/** What the caches of all routes keep their entries in. */
export interface CacheStorage {
  readonly store: CacheStore
  /** Nearest first. */
  tierStats(): readonly TierStats[]
}

/** One store of the tiers. Memory alone is used as it is: it cannot fail, and counts by itself; what tiers need beside it would cost each hit a microsecond. */
export function cacheStorage(tiers: readonly Tier[], onTierError: (tier: string, error: unknown) => void): CacheStorage {
  const [first] = tiers
  if (tiers.length === 1 && first?.store instanceof MemoryStore && first.admit === undefined) {
    const { name, store } = first
    return { store, tierStats: () => [memoryStats(name, store)] }
  }
  const store = tiered(tiers, { onTierError })
  return { store, tierStats: () => store.tierStats() }
}

function memoryStats(name: string, store: MemoryStore): TierStats {
  const { bytes, bytesServed, bytesWritten, entries, evictions, hits, misses, refused } = store.stats()
  const never = { errors: 0, timeouts: 0, promotions: 0, bufferedBytes: 0, missedRemovals: 0, readBreaker: 'closed', writeBreaker: 'closed' } as const
  return { name, hits, misses, bytesServed, bytesWritten, writesGivenUp: refused, entries, bytes, evictions, ...never }
}
