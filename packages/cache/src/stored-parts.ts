import { createHeaders, type HeaderMap, type ProxyRequest } from '@proxy/pipeline'
import type { CacheControl } from './cache-control.ts'
import { ifRangeHolds } from './conditional.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Fills } from './fill.ts'
import { currentAgeMs } from './freshness.ts'
import type { Judgement } from './judgement.ts'
import { judge } from './judgement.ts'
import { Prepared } from './prepared.ts'
import { type ContentRange, contentRange, requestedRange } from './range.ts'
import { Recent } from './recent.ts'
import type { CacheEntry, StoredMeta } from './store.ts'

/** Parts that are remembered at most; the others are found by nobody, and go in their time. */
const MAX_PARTS = 10_000

/** A part of a response that is stored, with what it is a part of. */
export interface StoredPart {
  readonly entry: CacheEntry
  readonly range: ContentRange
  /** Its metadata as that of the whole, by which it is judged. */
  readonly meta: StoredMeta
  /** May be used without asking the origin. */
  readonly isFresh: boolean
}

/**
 * One part of each response that is not stored whole (RFC 9111 section 3.3), under a key of its own: it cannot be taken for the whole. Parts are looked for only where this process has
 * stored one, so that they cost nothing where there are none.
 */
export class StoredParts {
  private readonly options: EngineOptions
  private readonly fills: Fills
  private readonly known = new Recent<true>(MAX_PARTS)

  constructor(options: EngineOptions, fills: Fills) {
    this.options = options
    this.fills = fills
  }

  keyOf(key: string): string {
    return `${key}\n~part`
  }

  note(key: string): void {
    this.known.set(key, true)
  }

  has(key: string): boolean {
    return this.known.get(key) === true
  }

  /** For a request with these directives. Whoever gets it opens or discards it. */
  async find(key: string, body: 'none' | 'all', control: CacheControl | undefined): Promise<StoredPart | undefined> {
    if (!this.has(key)) return undefined
    const { clock, onStoreError, purges, stale, store } = this.options
    try {
      const entry = await store.get(this.keyOf(key), { body })
      if (entry === undefined) {
        this.known.delete(key)
        return undefined
      }
      const range = contentRange(entry.meta.headers)
      const meta = { ...entry.meta, status: 200 }
      const now = clock.wallMs()
      const judgement: Judgement =
        range === undefined || this.fills.isOutdated(entry.meta) ? 'gone' : judge(meta, new Prepared(meta, this.options), { control, ageMs: currentAgeMs(meta, now), now, purges, policy: stale })
      if (judgement !== 'gone' && judgement !== 'purged') return { entry, range: range as ContentRange, meta, isFresh: judgement === 'fresh' }
      entry.discard()
      await this.remove(key)
    } catch (error) {
      onStoreError(error)
    }
    return undefined
  }

  /** A part that does not open is reported, and not found again. */
  async broken(key: string, error: unknown): Promise<void> {
    this.options.onStoreError(error)
    await this.remove(key)
  }

  /** Never rejects. */
  async remove(key: string): Promise<void> {
    if (!this.has(key)) return
    this.known.delete(key)
    try {
      await this.options.store.delete(this.keyOf(key))
    } catch (error) {
      this.options.onStoreError(error)
    }
  }
}

/** Whether a part has all the bytes that a request asks for, and may be what it gets. */
export function holds({ meta, range: held }: StoredPart, request: ProxyRequest): boolean {
  const asked = requestedRange(request.headers, held.total)
  return typeof asked === 'object' && 'start' in asked && asked.start >= held.start && asked.end <= held.end && isUnconditional(request) && ifRangeHolds(request.headers, meta.headers)
}

/** The validator by which parts are known to belong together: a strong entity tag (RFC 9110 section 8.8.1). A date tells seconds apart, no more. */
export function strongTag(headers: Readonly<HeaderMap>): string | undefined {
  const { etag } = headers
  return typeof etag === 'string' && etag.startsWith('"') ? etag : undefined
}

/** Fields of the whole, from those of the part that came last. */
export function wholeFields(stored: Readonly<HeaderMap>, latest: Readonly<HeaderMap>, total: number): HeaderMap {
  const headers = createHeaders(stored)
  for (const name in latest) headers[name] = latest[name]
  delete headers['content-range']
  headers['content-length'] = String(total)
  return headers
}

/** Whether a client's own conditions let an answer to a part be what they get: they are the origin's to judge otherwise. */
export function isUnconditional({ headers }: ProxyRequest): boolean {
  return headers['if-none-match'] === undefined && headers['if-modified-since'] === undefined && headers['if-match'] === undefined && headers['if-unmodified-since'] === undefined
}
