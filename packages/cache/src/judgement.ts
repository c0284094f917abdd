import type { CacheControl } from './cache-control.ts'
import { isFresh } from './freshness.ts'
import type { Prepared } from './prepared.ts'
import type { PurgeLog } from './purge-log.ts'
import { clientTakesStale, type StalePolicy, whileRevalidateMs } from './staleness.ts'
import type { StoredMeta } from './store.ts'

/**
 * What may be done with an entry that was found. `fresh`: serve it. `stale-while-revalidate`: serve it and ask the origin afterwards. `max-stale`: serve it, the
 * client takes it. `stale`: ask the origin first. `request`: the same, because this client wants it. `gone`: as if it were not there. `purged`: the same, and it can be removed.
 */
export type Judgement = 'fresh' | 'stale-while-revalidate' | 'max-stale' | 'stale' | 'request' | 'gone' | 'purged'

export interface Circumstances {
  /** Directives of the request. */
  readonly control: CacheControl | undefined
  readonly ageMs: number
  /** Wall clock, milliseconds. */
  readonly now: number
  readonly purges: PurgeLog
  readonly policy: StalePolicy
}

/** Judges an entry by what is known of it (`prepared`), for one request. */
export function judge(meta: StoredMeta, prepared: Prepared, { control, ageMs, now, purges, policy }: Circumstances): Judgement {
  const { hardAt, softAt } = prepared.purged(purges)
  if (hardAt >= meta.requestTime) return 'purged'
  const softly = softAt >= meta.requestTime
  if (!softly && isFresh(prepared.lifetimeMs, ageMs, control)) return 'fresh'
  if (now >= meta.keepUntil) return 'gone'
  // It may have been purged for good: only its origin can tell.
  if (softAt === Number.POSITIVE_INFINITY) return 'stale'
  const staleMs = Math.max(ageMs - prepared.lifetimeMs, softly ? now - softAt : Number.NEGATIVE_INFINITY)
  if (staleMs < 0) return 'request'
  if ((control === undefined || acceptsStale(control)) && staleMs < whileRevalidateMs(prepared.control, policy)) return 'stale-while-revalidate'
  return clientTakesStale(control, prepared.control, ageMs, staleMs) ? 'max-stale' : 'stale'
}

/** A client that names an age or a remaining time does not want a stale response, unless it says that too (RFC 9111 section 5.2.1). */
function acceptsStale(control: CacheControl): boolean {
  return !control.noCache && control.maxAge === undefined && control.minFresh === undefined
}
