import type { BodySource, HeaderMap, ProxyResponse } from '@proxy/pipeline'
import type { NotStoredReason } from './policy.ts'
import type { SharedBody } from './shared-body.ts'
import type { CacheMeta, VaryIndex } from './store.ts'

/** What came of asking the origin on behalf of everybody who waits for one key. */
export type FillOutcome =
  | {
      /** A response that is stored and may be shared. */
      readonly kind: 'shared'
      readonly status: number
      /** As the origin sent them; copied for each reader. */
      readonly headers: Readonly<HeaderMap>
      readonly body: SharedBody
      /** The leader's own reading, attached before the first byte arrived. */
      readonly leaderBody: BodySource
      /** Fields that select among variants, and the key of the one that the leader got. */
      readonly vary: VaryIndex | undefined
      readonly key: string
      readonly ttlSeconds: number
    }
  | { readonly kind: 'revalidated'; readonly version: string; readonly meta: CacheMeta }
  | { readonly kind: 'unshared'; readonly response: ProxyResponse; readonly reason: NotStoredReason }

/** One request to the origin under way, with all who wait for it. */
export interface Fill {
  readonly base: string
  /** Keys under which joiners find it. */
  readonly keys: string[]
  readonly outcome: Promise<FillOutcome>
}
