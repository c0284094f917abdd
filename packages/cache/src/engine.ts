import { cacheResult, combined, createHeaders, type Handler, type HeaderMap, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { answerFrom, applyConditions } from './answer.ts'
import { isAuthorized } from './authorized.ts'
import { Background } from './background.ts'
import { type CacheControl, parseCacheControl } from './cache-control.ts'
import { addCacheStatus, type ForwardedStatus, type ForwardReason, forwardedStatus } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import { onlyIfCached } from './errors.ts'
import { Fetcher, type Found } from './fetcher.ts'
import { type Fill, type FillOutcome, Fills } from './fill.ts'
import { currentAgeMs, isFresh, lifetimeMs, responseControl } from './freshness.ts'
import { cacheKey, variantKey } from './key.ts'
import { OtherMethods } from './other-methods.ts'
import { pass } from './pass.ts'
import { Prepared } from './prepared.ts'
import { bodiless, Refresher } from './refresher.ts'
import { clientTakesStale, whileRevalidateMs } from './staleness.ts'
import type { CacheEntry, CacheMeta, GetOptions, StoredMeta } from './store.ts'
import { Uncacheable } from './uncacheable.ts'

/** The decisions of a shared cache over one store: look up, serve, confirm, fetch once for all who wait, forget. */
export class CacheEngine {
  private readonly options: EngineOptions
  private readonly fills = new Fills()
  private readonly background = new Background()
  private readonly fetcher: Fetcher
  private readonly uncacheable = new Uncacheable()
  private readonly refresher: Refresher
  private readonly others: OtherMethods
  private readonly prepared = new WeakMap<CacheMeta, Prepared>()

  constructor(options: EngineOptions) {
    this.options = options
    this.fetcher = new Fetcher(options, this.fills, this.background)
    this.refresher = new Refresher(options, this.fetcher, this.background)
    this.others = new OtherMethods(options, this.fills, this.fetcher, this.background)
  }

  /** Resolves when the fills and store writes under way have ended. */
  async drain(): Promise<void> {
    while (this.fills.size > 0 || this.background.size > 0) {
      await Promise.allSettled(this.fills.outcomes())
      await this.background.settled()
    }
  }

  /** Fills under way. */
  get fillCount(): number {
    return this.fills.size
  }

  async handle(request: ProxyRequest, next: Handler, retried = false): Promise<ProxyResponse> {
    const { method, headers } = request
    if (method !== 'GET' && method !== 'HEAD') return this.others.passUnsafe(request, next)
    if (request.body !== null) return this.pass(request, next, 'bypass')
    const control =
      headers['cache-control'] === undefined
        ? headers.pragma !== undefined && pragmaNoCache.test(combined(headers.pragma) as string)
          ? reload
          : undefined
        : parseCacheControl(headers['cache-control'])

    const { clock, namespace, store, onStoreError } = this.options
    const base = cacheKey(namespace, request)
    const { invalidatedCount, storedCount } = this.fills
    const want = method === 'HEAD' || headers.range !== undefined ? metaOnly : undefined
    let key = base
    let index: StoredMeta | undefined
    let entry: CacheEntry | undefined
    try {
      entry = this.unlessOutdated(await store.get(base, want))
      if (entry?.meta.vary !== undefined) {
        index = entry.meta
        entry.discard()
        entry = undefined
        key = variantKey(base, index.vary as NonNullable<typeof index.vary>, headers)
        entry = this.unlessOutdated(await store.get(key, want))
      }
    } catch (error) {
      onStoreError(error)
    }

    let fwd: ForwardReason = index === undefined ? 'uri-miss' : 'vary-miss'
    if (entry !== undefined) {
      const { meta } = entry
      const prepared = this.prepare(meta)
      const now = clock.wallMs()
      const ageMs = currentAgeMs(meta, now)
      if (isFresh(prepared.lifetimeMs, ageMs, control)) {
        try {
          const answer = await answerFrom(entry, meta, prepared.headers(ageMs), request)
          request.exchange.set(cacheResult, meta.status >= 400 ? 'negative-hit' : 'hit')
          return answer
        } catch (error) {
          this.dropBroken(key, entry, error)
          entry = undefined
        }
      } else {
        const staleMs = ageMs - prepared.lifetimeMs
        fwd = staleMs < 0 ? 'request' : 'stale'
        if (now >= meta.keepUntil) {
          entry.discard()
          entry = undefined
        } else if (staleMs >= 0) {
          const refreshing = (control === undefined || acceptsStale(control)) && staleMs < whileRevalidateMs(prepared.control, this.options.stale)
          const detail = refreshing ? 'stale-while-revalidate' : clientTakesStale(control, prepared.control, ageMs, staleMs) ? 'max-stale' : this.standsIn(key, entry) ? 'stale-if-error' : undefined
          if (detail !== undefined) {
            try {
              const found: Found = { base, key, index, since: invalidatedCount, stale: bodiless(entry), fresh: false }
              const answer = await this.answerStale(entry, request, { hit: true, fwd, detail })
              if (refreshing) this.refresher.start(found, request, next, isAuthorized(request))
              return answer
            } catch (error) {
              this.dropBroken(key, entry, error)
              entry = undefined
            }
          }
        }
      }
    }
    // A fill that was stored while a slow store said that it had nothing would be missed by the lookup and by the search for a fill.
    if (entry === undefined && !retried && this.fills.storedSince(base, storedCount)) return this.handle(request, next, true)
    if (control?.onlyIfCached) {
      entry?.discard()
      throw onlyIfCached()
    }
    // Awaited: an async function that returns a promise takes two more turns to settle.
    return await this.forward({ base, key, index, since: invalidatedCount, stale: entry, fresh: fwd === 'request' }, request, next, control, fwd, retried)
  }

  private unlessOutdated(entry: CacheEntry | undefined): CacheEntry | undefined {
    if (entry === undefined || !this.fills.isOutdated(entry.meta)) return entry
    entry.discard()
    return undefined
  }

  private prepare(meta: StoredMeta): Prepared {
    let prepared = this.prepared.get(meta)
    if (prepared === undefined) {
      prepared = new Prepared(meta, this.options)
      this.prepared.set(meta, prepared)
    }
    return prepared
  }

  /** Nothing fresh is stored: ask the origin, or join who is asking already. */
  private forward(found: Found, request: ProxyRequest, next: Handler, control: CacheControl | undefined, fwd: ForwardReason, retried: boolean): Promise<ProxyResponse> {
    const authorized = isAuthorized(request)
    const known = found.stale === undefined ? this.uncacheable.find(found.key, this.options.clock.monotonicMs(), authorized) : undefined
    if (known?.bypass) return this.pass(request, next, fwd, known.reason)
    // A part is not the whole, and what one client may see is not fetched on behalf of others.
    const part = request.headers.range !== undefined
    const running = part || authorized || control?.noCache || known !== undefined ? undefined : this.fills.find(found.key)
    if (running !== undefined && this.mayJoin(running, control)) return this.join(running, found, request, next, fwd, retried)
    // A HEAD alone brings nothing to store.
    if (!part && request.method === 'GET' && !control?.noStore) return this.lead(found, request, next, fwd, authorized, known !== undefined)
    if (found.stale !== undefined && request.method === 'HEAD' && !part && !control?.noStore) return this.others.passHead(request, next, fwd, found.key, found.stale)
    found.stale?.discard()
    return this.pass(request, next, fwd, control?.noStore ? 'request-no-store' : part ? 'range' : 'method')
  }

  /** An answer whose header came before this request did is used like a stored one: while it is fresh. Its body, or the store, may take longer than that. */
  private mayJoin(fill: Fill, control: CacheControl | undefined): boolean {
    if (fill.meta === undefined) return true
    const { clock, freshness } = this.options
    const [lifetime, ageMs] = [lifetimeMs(fill.meta, freshness), currentAgeMs(fill.meta, clock.wallMs())]
    if (isFresh(lifetime, ageMs, control)) return true
    // Who comes next joins the one that is asked for now.
    if (ageMs >= lifetime) this.fills.close(fill)
    return false
  }

  private async lead(found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, authorized: boolean, alone: boolean): Promise<ProxyResponse> {
    const { stale } = found
    const { name } = this.options
    const fill = this.fetcher.start(found, request, next, { authorized, alone })
    let result: FillOutcome
    try {
      result = await fill.outcome
    } catch (error) {
      stale?.discard()
      throw error
    }
    if (result.kind === 'revalidated' && stale !== undefined) {
      try {
        const answer = await this.answerRevalidated(stale, result.meta, request, { fwd, fwdStatus: 304 })
        request.exchange.set(cacheResult, 'revalidated')
        return answer
      } catch (error) {
        // Confirmed, but its bytes are gone: nothing but the whole answer will do.
        this.dropBroken(found.key, stale, error)
        this.fills.close(fill)
        return this.lead({ ...found, stale: undefined }, request, next, fwd, authorized, alone)
      }
    }
    if (result.kind === 'stale' && stale !== undefined) {
      this.refresher.leaveAlone(found.key, result.status)
      try {
        return await this.answerStale(stale, request, { fwd, detail: 'stale-if-error', ...(result.status !== undefined && { fwdStatus: result.status }) })
      } catch (error) {
        this.dropBroken(found.key, stale, error)
        return this.lead({ ...found, stale: undefined }, request, next, fwd, authorized, alone)
      }
    }
    stale?.discard()
    request.exchange.set(cacheResult, 'miss')
    if (result.kind === 'shared') {
      const headers = createHeaders(result.headers)
      addCacheStatus(headers, forwardedStatus(name, { fwd, stored: result.stored, ttl: result.ttlSeconds }))
      return applyConditions({ status: result.status, headers, body: result.leaderBody }, request)
    }
    const { response, reason } = result as Extract<FillOutcome, { kind: 'unshared' }>
    this.uncacheable.add(found.key, reason, response.status, this.options.clock.monotonicMs(), { authorized, personal: authorized || request.headers.cookie !== undefined })
    addCacheStatus(response.headers, forwardedStatus(name, { fwd, detail: reason }))
    return applyConditions(response, request)
  }

  private async join(fill: Fill, found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, retried: boolean): Promise<ProxyResponse> {
    const { stale } = found
    const { clock, freshness, name } = this.options
    const { meta } = fill
    let result: FillOutcome
    try {
      result = await fill.outcome
    } catch (error) {
      stale?.discard()
      // One more try for all who waited and are still there: the first of them leads it, the others join that.
      if (retried || request.signal.aborted) throw error
      return this.handle(request, next, true)
    }
    if (result.kind === 'revalidated' && result.shared && stale?.version === result.version) {
      try {
        const answer = await this.answerRevalidated(stale, result.meta, request, { fwd, collapsed: true })
        request.exchange.set(cacheResult, 'collapsed')
        return answer
      } catch (error) {
        this.dropBroken(found.key, stale, error)
        this.fills.close(fill)
      }
    } else if (result.kind === 'stale' && stale?.version === result.version && this.fetcher.mayStandIn(stale, result.status)) {
      // Of one version, but perhaps found before the leader's was confirmed: it is older then.
      try {
        return await this.answerStale(stale, request, { fwd, collapsed: true, detail: 'stale-if-error', ...(result.status !== undefined && { fwdStatus: result.status }) })
      } catch (error) {
        this.dropBroken(found.key, stale, error)
      }
    } else {
      stale?.discard()
    }
    const matches = result.kind === 'shared' && (result.vary === undefined || variantKey(found.base, result.vary, request.headers) === result.key)
    if (result.kind === 'shared' && matches) {
      const body = request.method === 'HEAD' ? null : result.body.reader()
      if (body !== undefined) {
        request.exchange.set(cacheResult, 'collapsed')
        const headers = forOthers(result.headers, freshness.targets)
        let ttl = result.ttlSeconds
        if (meta !== undefined) {
          const ageMs = currentAgeMs(meta, clock.wallMs())
          headers.age = String(Math.floor(ageMs / 1000))
          ttl = Math.floor((lifetimeMs(meta, freshness) - ageMs) / 1000)
        }
        addCacheStatus(headers, forwardedStatus(name, { fwd, collapsed: true, ttl }))
        return applyConditions({ status: result.status, headers, body }, request)
      }
    }
    // Its first bytes have passed, and a store like S3 gives nothing of it before it has all. The fill goes at its readers' pace: it is not waited for without end.
    if (result.kind === 'shared' && result.stored && matches && !retried) await within(result.body.stored(), this.options.storeStallMs)
    // What the leader got is not for this client, or no longer to be had from its first byte: the store may have it, or another fill be running.
    if (!retried && (result.kind === 'shared' || result.kind === 'stale' || (result.kind === 'revalidated' && result.shared))) return this.handle(request, next, true)
    return this.pass(request, next, fwd, 'not-shared')
  }

  private answerRevalidated(entry: CacheEntry, meta: CacheMeta, request: ProxyRequest, status: ForwardedStatus): Promise<ProxyResponse> {
    const prepared = this.prepare({ ...meta, length: entry.meta.length })
    const ageMs = currentAgeMs(meta, this.options.clock.wallMs())
    const headers = prepared.headers(ageMs)
    headers['cache-status'] = forwardedStatus(this.options.name, { ...status, ttl: Math.floor((prepared.lifetimeMs - ageMs) / 1000) })
    return answerFrom(entry, meta, headers, request)
  }

  /** The origin failed a moment ago, and a client that may have a stale response need not wait for it to fail again. */
  private standsIn(key: string, entry: CacheEntry): boolean {
    const failure = this.refresher.failure(key)
    return failure !== undefined && this.fetcher.mayStandIn(entry, failure.status)
  }

  /** Answers from an entry beyond its lifetime. Uses it up; rejects when its body is gone. */
  private async answerStale(entry: CacheEntry, request: ProxyRequest, status: ForwardedStatus): Promise<ProxyResponse> {
    const prepared = this.prepare(entry.meta)
    const ageMs = currentAgeMs(entry.meta, this.options.clock.wallMs())
    const headers = prepared.headers(ageMs)
    headers['cache-status'] = forwardedStatus(this.options.name, { ...status, ttl: Math.floor((prepared.lifetimeMs - ageMs) / 1000) })
    const answer = await answerFrom(entry, entry.meta, headers, request)
    request.exchange.set(cacheResult, 'stale')
    return answer
  }

  /** An entry whose body does not open is a miss, and is not found again. */
  private dropBroken(key: string, entry: CacheEntry, error: unknown): void {
    this.options.onStoreError(error)
    this.background.add(this.fetcher.attempt(() => this.options.store.delete(key, entry.version)))
  }

  private pass(request: ProxyRequest, next: Handler, fwd: ForwardReason, detail?: string): Promise<ProxyResponse> {
    return pass(this.options.name, request, next, fwd, detail)
  }
}

/** Resolves when `work` does, after `ms` at the latest. */
async function within(work: Promise<unknown>, ms: number): Promise<void> {
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, ms)
  await Promise.race([work, late.promise])
  clearTimeout(timer)
}

const metaOnly: GetOptions = { body: 'none' }
/** Counts where there is no Cache-Control (RFC 9111 section 5.4); a list, in any case. */
const pragmaNoCache = /(?:^|,)[ \t]*no-cache[ \t]*(?:,|$)/i
const reload: CacheControl | undefined = parseCacheControl('no-cache')

/** The fields of an answer for a client that it was not made for. */
function forOthers(from: Readonly<HeaderMap>, targets: readonly string[]): HeaderMap {
  const headers = createHeaders(from)
  const control = responseControl(from, targets)
  if (control !== undefined) for (const name of control.withheld) delete headers[name]
  return headers
}

/** A client that names an age or a remaining time does not want a stale response, unless it says that too (RFC 9111 section 5.2.1). */
function acceptsStale(control: CacheControl): boolean {
  return !control.noCache && control.maxAge === undefined && control.minFresh === undefined
}
