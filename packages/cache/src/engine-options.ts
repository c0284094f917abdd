import type { Clock } from '@proxy/pipeline'
import type { FreshnessPolicy } from './freshness.ts'
import type { PurgeLog } from './purge-log.ts'
import type { StalePolicy } from './staleness.ts'
import type { CacheStore } from './store.ts'

/** `CacheOptions` with every default filled in. */
export interface EngineOptions {
  readonly store: CacheStore
  readonly namespace: string
  readonly name: string
  readonly freshness: FreshnessPolicy
  readonly stale: StalePolicy
  readonly purges: PurgeLog
  readonly connectErrorTtlMs: number
  readonly maxObjectBytes: number
  readonly windowBytes: number
  readonly finishBytes: number
  readonly storeStallMs: number
  readonly keepStaleMs: number
  readonly clock: Clock
  readonly onStoreError: (error: unknown) => void
}
