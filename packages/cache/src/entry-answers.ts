import { cacheResult, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { answerFrom } from './answer.ts'
import { type ForwardedStatus, forwardedStatus, ttlSeconds } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import { currentAgeMs } from './freshness.ts'
import { Prepared } from './prepared.ts'
import type { CacheEntry, CacheMeta, StoredMeta } from './store.ts'

/** Answers from entries that are not simply fresh. */
export class EntryAnswers {
  private readonly options: EngineOptions
  private readonly prepared = new WeakMap<CacheMeta, Prepared>()

  constructor(options: EngineOptions) {
    this.options = options
  }

  prepare(meta: StoredMeta): Prepared {
    let prepared = this.prepared.get(meta)
    if (prepared === undefined) {
      prepared = new Prepared(meta, this.options)
      this.prepared.set(meta, prepared)
    }
    return prepared
  }

  revalidated(entry: CacheEntry, meta: CacheMeta, request: ProxyRequest, status: ForwardedStatus, key: string): Promise<ProxyResponse> {
    const prepared = this.prepare({ ...meta, length: entry.meta.length })
    const ageMs = currentAgeMs(meta, this.options.clock.wallMs())
    const headers = prepared.headers(ageMs)
    headers['cache-status'] = forwardedStatus(this.options.name, { ...status, ttl: ttlSeconds(prepared.lifetimeMs, ageMs) })
    return answerFrom(entry, meta, headers, request, this.options.store, key)
  }

  /** Answers from an entry beyond its lifetime. Uses it up; rejects when its body is gone. */
  async stale(entry: CacheEntry, request: ProxyRequest, status: ForwardedStatus, key: string): Promise<ProxyResponse> {
    const prepared = this.prepare(entry.meta)
    const ageMs = currentAgeMs(entry.meta, this.options.clock.wallMs())
    const headers = prepared.headers(ageMs)
    headers['cache-status'] = forwardedStatus(this.options.name, { ...status, ttl: ttlSeconds(prepared.lifetimeMs, ageMs) })
    const answer = await answerFrom(entry, entry.meta, headers, request, this.options.store, key)
    request.exchange.set(cacheResult, 'stale')
    return answer
  }
}
