import { type Body, type ByteRange, discardBody, isProxyError } from '@proxy/pipeline'
import { checkedBody, openedBytes } from './checked-body.ts'
import type { GuardedTier } from './guarded-tier.ts'
import type { CacheEntry, StoredMeta } from './store.ts'

/** An entry of a tier: opening it counts, takes no longer than that tier may take, and gives as many bytes as its metadata says. */
export class TierEntry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly tier: GuardedTier
  private readonly entry: CacheEntry

  private readonly key: string

  constructor(tier: GuardedTier, key: string, entry: CacheEntry) {
    this.version = entry.version
    this.meta = entry.meta
    this.tier = tier
    this.key = key
    this.entry = entry
  }

  async open(range?: ByteRange): Promise<Body> {
    const { counts, guard, settings } = this.tier
    try {
      const opened = await guard.within(settings.timeoutMs, this.entry.open(range), discardBody)
      const length = openedBytes(this.meta.length, range)
      const body = checkedBody(opened, length, () => this.tier.drop(this.key, this.version))
      counts.bytesServed += length
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
