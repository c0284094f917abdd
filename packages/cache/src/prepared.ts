import { createHeaders, type HeaderMap } from '@proxy/pipeline'
import type { CacheControl } from './cache-control.ts'
import { ttlSeconds } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import { lifetimeMs, responseControl } from './freshness.ts'
import type { PurgeLog, PurgeVerdict } from './purge-log.ts'
import type { StoredMeta } from './store.ts'

/**
 * What a hit needs of an entry, worked out once per metadata record instead of once per request: its lifetime, the fields every answer from it has,
 * and the text of Age and Cache-Status, which changes once a second.
 */
export class Prepared {
  /** Counted from the response's origin, as its age is. */
  readonly lifetimeMs: number
  /** The directives that count for this cache. */
  readonly control: CacheControl | undefined
  private readonly meta: StoredMeta
  private judged = -1
  private verdict: PurgeVerdict = { hardAt: 0, softAt: 0 }
  private readonly fields: HeaderMap
  private readonly cacheName: string
  private readonly status: number
  /** Age in seconds until which the origin asked not to be asked again; undefined where it named a date, which stays as it is. */
  private readonly originRetryAfter: number | undefined
  private second = -1
  private age = ''
  private cacheStatus = ''
  private retryAfter = ''

  constructor(meta: StoredMeta, { freshness, name }: Pick<EngineOptions, 'freshness' | 'name'>) {
    // What was stored for a shorter time than the rules give now, such as a failure to connect, ends when it was to end.
    this.lifetimeMs = Math.min(lifetimeMs(meta, freshness), meta.initialAgeMs + meta.keepUntil - meta.responseTime)
    this.fields = createHeaders(meta.headers)
    this.meta = meta
    this.cacheName = name
    this.control = responseControl(meta.headers, freshness)
    this.status = meta.status
    const asked = meta.headers['retry-after']
    this.originRetryAfter = asked === undefined ? 0 : typeof asked === 'string' && /^\d{1,9}$/.test(asked) ? Number(asked) : undefined
    // RFC 9110 section 8.6 allows none with 204.
    if (meta.status !== 204) this.fields['content-length'] = String(meta.length)
  }

  /** When it was purged; looked up once for each change of the log. */
  purged(log: PurgeLog): PurgeVerdict {
    if (log.revision !== this.judged) {
      this.verdict = log.verdict(this.meta)
      this.judged = log.revision
    }
    return this.verdict
  }

  /** Fields of an answer from this entry at the given age; the caller's to change. */
  headers(ageMs: number): HeaderMap {
    const second = Math.floor(ageMs / 1000)
    if (second !== this.second) this.renew(second)
    const headers = createHeaders(this.fields)
    headers.age = this.age
    headers['cache-status'] = this.cacheStatus
    // A remembered failure says when it is worth asking again.
    if (this.retryAfter !== '') headers['retry-after'] = this.retryAfter
    return headers
  }

  private renew(second: number): void {
    const ttl = ttlSeconds(this.lifetimeMs, second * 1000)
    this.second = second
    this.age = String(second)
    this.cacheStatus = `${this.cacheName}; hit; ttl=${ttl}${this.status >= 400 ? '; detail=negative' : ''}`
    const { originRetryAfter, status } = this
    if (originRetryAfter !== undefined && (status === 429 || status >= 500)) this.retryAfter = String(Math.max(1, ttl, originRetryAfter - second))
  }
}
