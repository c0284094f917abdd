import type { BodySource, HeaderMap, ProxyResponse } from '@proxy/pipeline'
import { Recent } from './recent.ts'
import type { SharedBody } from './shared-body.ts'
import type { NotStoredReason } from './storability.ts'
import type { CacheMeta, VaryIndex } from './store.ts'

/** What came of asking the origin on behalf of everybody who waits for one key. */
export type FillOutcome =
  | {
      /** A response that may be shared, and is being stored. */
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
      /** False when the store had refused it before the first byte. */
      readonly stored: boolean
    }
  | {
      /** The stored entry of this version still holds, under this metadata. */
      readonly kind: 'revalidated'
      readonly version: string
      readonly meta: CacheMeta
      /** The cookies of the 304, for the client that it was for. */
      readonly cookies: string | string[] | undefined
      /** Whether others than the leader may have it. */
      readonly shared: boolean
    }
  | {
      /** The origin has failed, and the stored entry of this version may stand in. `status` is what it answered, if it did. */
      readonly kind: 'stale'
      readonly version: string
      readonly status: number | undefined
    }
  | { readonly kind: 'unshared'; readonly response: ProxyResponse; readonly reason: NotStoredReason }

const over = new Promise<never>(() => {})

/** One request to the origin under way, with all who wait for it. */
export class Fill {
  readonly base: string
  /** Keys under which joiners find it. */
  readonly keys: string[] = []
  /** What is known of the answer, once its header has come and others may have it: whoever joins from then on gets something that has an age. Set by `Fills.describe`. */
  meta: CacheMeta | undefined
  /** Its target was changed by an unsafe request while it ran: what it has stored is removed again. */
  invalidated = false
  /** Not to be asked for once the fill has ended. */
  outcome!: Promise<FillOutcome>

  constructor(base: string) {
    this.base = base
  }
}

/** Stored fills that are remembered at most, for lookups that began before them. */
const MAX_STORED = 1000

/** The fills under way. */
export class Fills {
  private readonly byKey = new Map<string, Fill>()
  private readonly running = new Set<Fill>()
  private readonly awaiting: (() => void)[] = []
  /** Base keys of fills that were stored lately, with the count of stored fills at that time. */
  private readonly stored = new Recent<number>(MAX_STORED)
  /** How many fills have been stored so far. */
  storedCount = 0
  /** The same for what unsafe requests have changed. */
  private readonly invalidated = new Recent<number>(MAX_STORED)
  invalidatedCount = 0
  /** Ids of what invalidated fills store, or have stored and not yet removed again. */
  private readonly outdated = new Set<string>()

  get size(): number {
    return this.running.size
  }

  /** Resolves when one of those under way has ended. */
  nextEnd(): Promise<void> {
    return new Promise((resolve) => this.awaiting.push(resolve))
  }

  /** The fill that requests for `key` may join. */
  find(key: string): Fill | undefined {
    return this.byKey.get(key)
  }

  /** Starts one, to be joined under `key` where that is given and free. */
  open(base: string, key: string | undefined): Fill {
    const fill = new Fill(base)
    this.running.add(fill)
    if (key !== undefined) this.list(fill, key)
    return fill
  }

  /** Lets it be joined under one more key, when it can be joined at all. */
  alsoUnder(fill: Fill, key: string): void {
    if (fill.keys.length > 0) this.list(fill, key)
  }

  private list(fill: Fill, key: string): void {
    if (this.byKey.has(key)) return
    this.byKey.set(key, fill)
    fill.keys.push(key)
  }

  /** Nobody joins it any more. */
  close(fill: Fill): void {
    for (const key of fill.keys) this.byKey.delete(key)
    fill.keys.length = 0
  }

  /** Notes what is known of its answer. */
  describe(fill: Fill, meta: CacheMeta): void {
    fill.meta = meta
    if (fill.invalidated) this.distrust(fill)
  }

  private distrust({ meta }: Fill): void {
    if (meta?.id !== undefined) this.outdated.add(meta.id)
  }

  /** Whether a stored record was fetched before its target was changed, and is only still, or again, to be found. */
  isOutdated({ id }: CacheMeta): boolean {
    return this.outdated.size > 0 && id !== undefined && this.outdated.has(id)
  }

  end(fill: Fill): void {
    this.close(fill)
    if (fill.invalidated && fill.meta?.id !== undefined) this.outdated.delete(fill.meta.id)
    this.running.delete(fill)
    if (this.awaiting.length > 0) for (const resolve of this.awaiting.splice(0)) resolve()
    // A Map or Set that entries come to and go from is rebuilt time and again, and what was in it then stays referenced by the table it had before. Once one
    // of these tables is in the old generation, all that follow it live until the next full collection, with all that their entries hold.
    fill.outcome = over
  }

  /** Notes that what it brought can be found in the store now. */
  noteStored(base: string): void {
    this.stored.set(base, ++this.storedCount)
  }

  /** Whether a fill for `base` was stored after `storedCount` had this value: a lookup that had begun by then may have missed it. */
  storedSince(base: string, count: number): boolean {
    return (this.stored.get(base) ?? 0) > count
  }

  /** Nobody joins what is under way: it was asked for before something was purged, and may be part of that. It is judged when it is found in the store. */
  forget(): void {
    for (const fill of this.running) this.close(fill)
  }

  /** What is on its way for `base` was asked for before it changed: nobody new gets it, and it is not kept. */
  invalidate(base: string): void {
    this.invalidated.set(base, ++this.invalidatedCount)
    for (const fill of this.running) {
      if (fill.base !== base) continue
      fill.invalidated = true
      this.distrust(fill)
      this.close(fill)
    }
  }

  /** Whether `base` has been changed since `invalidatedCount` had this value: what a lookup had found by then is out of date. */
  invalidatedSince(base: string, count: number): boolean {
    return (this.invalidated.get(base) ?? 0) > count
  }
}
