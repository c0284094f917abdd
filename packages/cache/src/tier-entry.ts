import { type Body, type ByteRange, discardBody, isProxyError } from '@proxy/pipeline'
import type { GuardedTier } from './guarded-tier.ts'
import type { CacheEntry, StoredMeta } from './store.ts'

/** An entry of a tier: opening it counts, and takes no longer than that tier may take. */
export class TierEntry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly tier: GuardedTier
  private readonly entry: CacheEntry

  constructor(tier: GuardedTier, entry: CacheEntry) {
    this.version = entry.version
    this.meta = entry.meta
    this.tier = tier
    this.entry = entry
  }

  async open(range?: ByteRange): Promise<Body> {
    const { counts, guard, settings } = this.tier
    try {
      const body = await guard.within(settings.timeoutMs, this.entry.open(range), discardBody)
      const { length } = this.meta
      counts.bytesServed += range === undefined ? length : Math.min(range.end + 1, length) - range.start
      return body
    } catch (error) {
      if (isProxyError(error) && error.code === 'TIER_TIMEOUT') guard.readFailed(error)
      // A range beyond the body is the caller's mistake, and bytes that are gone say nothing of the next lookup.
      else if (!(error instanceof RangeError)) guard.failed(error)
      throw error
    }
  }

  discard(): void {
    this.entry.discard()
  }
}
