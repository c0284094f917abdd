import type { Clock, ProxyRequest } from '@proxy/pipeline'
import type { KeyRules } from './key-rules.ts'
import type { PurgeLog } from './purge-log.ts'
import type { StalePolicy } from './staleness.ts'
import type { StoragePolicy } from './storability.ts'
import type { CacheStore } from './store.ts'

/** What a request for a part of something that is not stored does: it goes to the origin as it is, or it also starts fetching the whole. */
export type RangeMiss = 'pass' | 'fill'

/** `CacheOptions` with every default filled in. */
export interface EngineOptions {
  readonly store: CacheStore
  readonly namespace: string
  readonly keys: KeyRules
  readonly name: string
  readonly freshness: StoragePolicy
  /** What requests say in Cache-Control and Pragma counts. */
  readonly heedsRequests: boolean
  readonly bypasses: ((request: ProxyRequest) => boolean) | undefined
  readonly rangeMiss: RangeMiss
  readonly maxVariants: number
  readonly stale: StalePolicy
  readonly purges: PurgeLog
  readonly sweepWaitMs: number
  readonly connectErrorTtlMs: number
  readonly maxObjectBytes: number
  readonly windowBytes: number
  readonly finishBytes: number
  readonly storeStallMs: number
  readonly keepStaleMs: number
  readonly clock: Clock
  readonly onStoreError: (error: unknown) => void
}
