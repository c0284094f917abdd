import {
  type Clock,
  cacheResult,
  createHeaders,
  derive,
  discardBody,
  type Handler,
  type HeaderMap,
  ProxyError,
  type ProxyRequest,
  type ProxyResponse,
  principal,
  toProxyError,
  toSource
} from '@proxy/pipeline'
import { type CacheControl, parseCacheControl } from './cache-control.ts'
import { addCacheStatus, type ForwardReason, forwardedStatus } from './cache-status.ts'
import { addValidators, ifRangeHolds, notModified, removeConditions, strip304, updateFields } from './conditional.ts'
import type { Fill, FillOutcome } from './fill.ts'
import { cacheKey, requestUrl, variantKey, varyFields } from './key.ts'
import { currentAgeMs, initialAgeMs, lifetimeMs, storability, type TtlRule } from './policy.ts'
import { Prepared } from './prepared.ts'
import { requestedRange } from './range.ts'
import { SharedBody } from './shared-body.ts'
import type { CacheEntry, CacheMeta, CacheStore, StoredMeta, VaryIndex } from './store.ts'

export interface EngineOptions {
  readonly store: CacheStore
  readonly namespace: string
  readonly name: string
  readonly rules: readonly TtlRule[]
  readonly connectErrorTtlMs: number
  readonly maxObjectBytes: number
  readonly windowBytes: number
  readonly finishBytes: number
  readonly keepStaleMs: number
  readonly clock: Clock
  readonly onStoreError: ((error: unknown) => void) | undefined
}

/** What a lookup found. `key` is the variant's where the base record says that there are variants. */
interface Found {
  readonly base: string
  readonly key: string
  readonly index: StoredMeta | undefined
  readonly entry: CacheEntry | undefined
}

/** Base records outlive the variants they lead to by this much, so that not every new variant rewrites them. */
const INDEX_EXTRA_MS = 24 * 3_600_000

/** The decisions of a shared cache over one store: look up, serve, confirm, fetch once for all who wait, forget. */
export class CacheEngine {
  private readonly options: EngineOptions
  private readonly fills = new Map<string, Fill>()
  private readonly prepared = new WeakMap<CacheMeta, Prepared>()
  private readonly background = new Set<Promise<unknown>>()
  private generations = 0

  constructor(options: EngineOptions) {
    this.options = options
  }

  /** Resolves when the fills and store writes under way have ended. */
  async drain(): Promise<void> {
    while (this.background.size > 0) await Promise.allSettled([...this.background])
  }

  async handle(request: ProxyRequest, next: Handler, retried = false): Promise<ProxyResponse> {
    const { method, headers } = request
    if (method !== 'GET' && method !== 'HEAD') return this.passUnsafe(request, next)
    if (request.body !== null) return this.pass(request, next, 'bypass')
    const control = headers['cache-control'] === undefined ? (headers.pragma === 'no-cache' ? reload : undefined) : parseCacheControl(headers['cache-control'])

    const found = await this.lookup(cacheKey(this.options.namespace, request), request)
    const { entry } = found
    if (entry !== undefined) {
      const meta = entry.meta
      const prepared = this.prepare(meta)
      const ageMs = currentAgeMs(meta, this.options.clock.wallMs())
      if (isFresh(prepared.lifetimeMs, ageMs, control)) {
        const served = await this.serve(entry, meta, prepared.headers(ageMs), request)
        if (served !== undefined) {
          request.exchange.set(cacheResult, meta.status >= 400 ? 'negative-hit' : 'hit')
          return served
        }
      }
    }
    if (control?.onlyIfCached) {
      entry?.discard()
      throw new ProxyError('only-if-cached, and nothing usable is stored', { code: 'CACHE_ONLY_IF_CACHED', status: 504, source: 'client' })
    }
    return this.forward(found, request, next, control, retried)
  }

  private async lookup(base: string, request: ProxyRequest): Promise<Found> {
    const { store } = this.options
    try {
      const entry = await store.get(base)
      if (entry === undefined || entry.meta.vary === undefined) return { base, key: base, index: undefined, entry }
      entry.discard()
      const key = variantKey(base, entry.meta.vary, request.headers)
      return { base, key, index: entry.meta, entry: await store.get(key) }
    } catch (error) {
      this.options.onStoreError?.(error)
      return { base, key: base, index: undefined, entry: undefined }
    }
  }

  private prepare(meta: StoredMeta): Prepared {
    let prepared = this.prepared.get(meta)
    if (prepared === undefined) {
      prepared = new Prepared(meta, this.options.rules, this.options.name)
      this.prepared.set(meta, prepared)
    }
    return prepared
  }

  /** Answers from an entry: 304, 206, 416, or whole. Undefined when its body is gone: a miss after all. */
  private async serve(entry: CacheEntry, meta: CacheMeta, headers: HeaderMap, request: ProxyRequest): Promise<ProxyResponse | undefined> {
    const asked = request.headers
    if (meta.status === 200 && (asked['if-none-match'] !== undefined || asked['if-modified-since'] !== undefined) && notModified(asked, meta.headers)) {
      entry.discard()
      strip304(headers)
      return { status: 304, headers, body: null }
    }
    if (request.method === 'HEAD') {
      entry.discard()
      return { status: meta.status, headers, body: null }
    }
    const length = entry.meta.length
    const range = asked.range !== undefined && meta.status === 200 && ifRangeHolds(asked, meta.headers) ? requestedRange(asked, length) : 'ignore'
    if (range === 'unsatisfiable') {
      entry.discard()
      strip304(headers)
      headers['content-range'] = `bytes */${length}`
      return { status: 416, headers, body: null }
    }
    try {
      if (range === 'ignore') return { status: meta.status, headers, body: await entry.open() }
      const body = await entry.open(range)
      headers['content-range'] = `bytes ${range.start}-${range.end}/${length}`
      headers['content-length'] = String(range.end - range.start + 1)
      return { status: 206, headers, body }
    } catch (error) {
      this.options.onStoreError?.(error)
      return undefined
    }
  }

  /** Nothing fresh is stored: ask the origin, or join who is asking already. */
  private async forward(found: Found, request: ProxyRequest, next: Handler, control: CacheControl | undefined, retried: boolean): Promise<ProxyResponse> {
    const { entry, key } = found
    const fwd: ForwardReason = entry !== undefined ? (control?.noCache ? 'request' : 'stale') : found.index !== undefined ? 'vary-miss' : 'uri-miss'
    const authorized = isAuthorized(request)
    // A HEAD alone brings nothing to store, a part is not the whole, and what one client may see is not fetched on behalf of others.
    const running = control?.noCache || authorized ? undefined : this.fills.get(key)
    if (running === undefined && (request.method === 'HEAD' || control?.noStore || request.headers.range !== undefined)) {
      entry?.discard()
      return this.pass(request, next, fwd, control?.noStore ? 'request-no-store' : request.method === 'HEAD' ? 'method' : 'range')
    }
    if (running === undefined || request.headers.range !== undefined) {
      if (running !== undefined) {
        entry?.discard()
        return this.pass(request, next, fwd, 'range')
      }
      return this.lead(found, request, next, fwd, authorized)
    }
    return this.join(running, found, request, next, fwd, retried)
  }

  private async lead(found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, authorized: boolean): Promise<ProxyResponse> {
    const { entry } = found
    const keys = authorized || this.fills.has(found.key) ? [] : [found.key]
    const outcome = this.fetch(found, request, next, keys, authorized)
    const fill: Fill = { base: found.base, keys, outcome }
    for (const key of keys) this.fills.set(key, fill)
    this.keep(outcome)
    let result: FillOutcome
    try {
      result = await outcome
    } catch (error) {
      entry?.discard()
      throw error
    }
    request.exchange.set(cacheResult, result.kind === 'revalidated' ? 'revalidated' : fwd === 'stale' ? 'stale' : 'miss')
    if (result.kind === 'unshared') {
      entry?.discard()
      addCacheStatus(result.response.headers, forwardedStatus(this.options.name, { fwd, detail: result.reason }))
      return this.conditional(result.response, request)
    }
    if (result.kind === 'revalidated') {
      const answer = await this.answerRevalidated(entry as CacheEntry, result.meta, request, { fwd, fwdStatus: 304 })
      return answer ?? this.pass(request, next, fwd)
    }
    entry?.discard()
    const headers = createHeaders(result.headers)
    addCacheStatus(headers, forwardedStatus(this.options.name, { fwd, stored: true, ttl: result.ttlSeconds }))
    return this.conditional({ status: result.status, headers, body: result.leaderBody }, request)
  }

  private async join(fill: Fill, found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, retried: boolean): Promise<ProxyResponse> {
    let result: FillOutcome
    try {
      result = await fill.outcome
    } catch (error) {
      found.entry?.discard()
      // One more try for all who waited: the first of them leads it, the others join that.
      if (retried) throw error
      return this.handle(request, next, true)
    }
    const { entry } = found
    if (result.kind === 'revalidated' && entry !== undefined && entry.version === result.version) {
      request.exchange.set(cacheResult, 'collapsed')
      const answer = await this.answerRevalidated(entry, result.meta, request, { fwd, collapsed: true })
      if (answer !== undefined) return answer
    } else {
      entry?.discard()
    }
    if (result.kind === 'shared' && (result.vary === undefined || variantKey(found.base, result.vary, request.headers) === result.key)) {
      const body = result.body.reader()
      if (body !== undefined) {
        request.exchange.set(cacheResult, 'collapsed')
        const headers = createHeaders(result.headers)
        addCacheStatus(headers, forwardedStatus(this.options.name, { fwd, collapsed: true, ttl: result.ttlSeconds }))
        return this.conditional({ status: result.status, headers, body }, request)
      }
    }
    // What the leader got is not for this client, or no longer to be had from its first byte.
    if (!retried && result.kind === 'shared') return this.handle(request, next, true)
    return this.pass(request, next, fwd, 'not-shared')
  }

  /** Asks the origin for a key, once for everybody, and decides what becomes of the answer. */
  private async fetch(found: Found, request: ProxyRequest, next: Handler, keys: string[], authorized: boolean): Promise<FillOutcome> {
    const { clock, rules } = this.options
    const stale = found.entry
    const headers = createHeaders(request.headers)
    removeConditions(headers)
    if (stale !== undefined) addValidators(headers, stale.meta.headers)
    const requestTime = clock.wallMs()
    let response: ProxyResponse
    try {
      // The fill is the cache's own: it does not end because the client that happened to come first has left.
      response = await next(derive(request, { headers, signal: new AbortController().signal }))
    } catch (error) {
      this.rememberFailure(found, request, error, requestTime)
      this.forget(keys)
      throw error
    }
    const responseTime = clock.wallMs()
    if (response.status === 304 && stale !== undefined) return this.confirm(found, stale, response, keys, requestTime, responseTime)
    const decision = storability(
      { method: request.method, authorized, requestNoStore: parseCacheControl(request.headers['cache-control'])?.noStore === true, status: response.status, headers: response.headers, responseTime },
      rules
    )
    const declared = response.headers['content-length']
    const length = typeof declared === 'string' && /^\d+$/.test(declared) ? Number(declared) : undefined
    if (!decision.store || (length !== undefined && length > this.options.maxObjectBytes)) {
      this.forget(keys)
      return { kind: 'unshared', response, reason: decision.store ? 'too-large' : decision.reason }
    }
    const fields = varyFields(response.headers.vary)
    const vary = fields.length === 0 ? undefined : this.varyIndex(found.index, fields)
    const key = vary === undefined ? found.base : variantKey(found.base, vary, request.headers)
    if (vary !== undefined && keys.length > 0 && !keys.includes(key) && !this.fills.has(key)) {
      const fill = this.fills.get(keys[0] as string)
      if (fill !== undefined) {
        keys.push(key)
        this.fills.set(key, fill)
      }
    }
    const meta = this.metaOf(request, response.status, response.headers, requestTime, responseTime, decision.lifetimeMs, length)
    if (vary !== undefined) this.writeIndex(found, meta, vary)
    const body = new SharedBody({
      store: this.options.store,
      key,
      writer: this.options.store.put(key, meta),
      length,
      windowBytes: this.options.windowBytes,
      maxObjectBytes: this.options.maxObjectBytes,
      finishBytes: this.options.finishBytes,
      onSettled: () => {
        this.forget(keys)
        this.background.delete(settled.promise)
        settled.resolve()
      }
    })
    const settled = Promise.withResolvers<void>()
    this.background.add(settled.promise)
    const leaderBody = body.reader()
    body.begin(toSource(response.body))
    const ttlSeconds = Math.max(0, Math.floor((decision.lifetimeMs - meta.initialAgeMs) / 1000))
    return { kind: 'shared', status: response.status, headers: response.headers, body, leaderBody: leaderBody as NonNullable<typeof leaderBody>, vary, key, ttlSeconds }
  }

  /** The origin says that what is stored still holds. */
  private confirm(found: Found, stale: CacheEntry, response: ProxyResponse, keys: string[], requestTime: number, responseTime: number): FillOutcome {
    discardBody(response.body)
    const headers = createHeaders(stale.meta.headers)
    updateFields(headers, response.headers)
    const initial = initialAgeMs(response.headers, requestTime, responseTime)
    const renewed = { ...stale.meta, headers, requestTime, responseTime, initialAgeMs: initial }
    const meta: CacheMeta = { ...renewed, keepUntil: this.keepUntil(headers, responseTime, lifetimeMs(renewed, this.options.rules), initial) }
    // Joiners find this outcome until the store has the new metadata: the next request is then a hit.
    this.keep(
      this.options.store
        .touch(found.key, stale.version, meta)
        .catch((error: unknown) => this.options.onStoreError?.(error))
        .finally(() => this.forget(keys))
    )
    return { kind: 'revalidated', version: stale.version, meta }
  }

  private async answerRevalidated(
    entry: CacheEntry,
    meta: CacheMeta,
    request: ProxyRequest,
    status: { fwd: ForwardReason; fwdStatus?: number; collapsed?: boolean }
  ): Promise<ProxyResponse | undefined> {
    const prepared = this.prepare({ ...meta, length: entry.meta.length })
    const ageMs = currentAgeMs(meta, this.options.clock.wallMs())
    const headers = prepared.headers(ageMs)
    headers['cache-status'] = forwardedStatus(this.options.name, { ...status, ttl: Math.floor((prepared.lifetimeMs - ageMs) / 1000) })
    return this.serve(entry, meta, headers, request)
  }

  /** What a fill brought, as this client asked for it. */
  private conditional(response: ProxyResponse, request: ProxyRequest): ProxyResponse {
    if (response.status === 200 && notModified(request.headers, response.headers)) {
      discardBody(response.body)
      strip304(response.headers)
      return { status: 304, headers: response.headers, body: null }
    }
    return response
  }

  private metaOf(request: ProxyRequest, status: number, from: Readonly<HeaderMap>, requestTime: number, responseTime: number, lifetime: number, length: number | undefined): CacheMeta {
    const headers = createHeaders(from)
    const initial = initialAgeMs(headers, requestTime, responseTime)
    delete headers.age
    delete headers['content-length']
    delete headers['cache-status']
    delete headers.trailer
    headers.date ??= new Date(responseTime).toUTCString()
    const meta = {
      v: 1 as const,
      url: requestUrl(request),
      namespace: this.options.namespace,
      status,
      headers,
      requestTime,
      responseTime,
      initialAgeMs: initial,
      keepUntil: this.keepUntil(headers, responseTime, lifetime, initial),
      tags: []
    }
    return length === undefined ? meta : { ...meta, length }
  }

  /** A response that can be confirmed is kept for a while after it went stale. */
  private keepUntil(headers: Readonly<HeaderMap>, responseTime: number, lifetime: number, initialAge: number): number {
    const confirmable = headers.etag !== undefined || headers['last-modified'] !== undefined
    return responseTime + Math.max(0, lifetime - initialAge) + (confirmable ? this.options.keepStaleMs : 0)
  }

  private varyIndex(known: StoredMeta | undefined, fields: readonly string[]): VaryIndex {
    const before = known?.vary
    if (before !== undefined && before.fields.length === fields.length && before.fields.every((name, i) => name === fields[i])) return before
    return { fields, generation: `${this.options.clock.wallMs().toString(36)}-${process.pid.toString(36)}-${(this.generations++).toString(36)}` }
  }

  private writeIndex(found: Found, variant: CacheMeta, vary: VaryIndex): void {
    if (found.index?.vary === vary && found.index.keepUntil >= variant.keepUntil) return
    const writer = this.options.store.put(found.base, { ...variant, headers: createHeaders(), keepUntil: variant.keepUntil + INDEX_EXTRA_MS, vary, length: 0 })
    this.keep(writer.commit())
  }

  /** Keeps a failure to reach the origin, where the configuration asks for it, so that clients do not hammer a dead one. */
  private rememberFailure(found: Found, request: ProxyRequest, error: unknown, requestTime: number): void {
    const ttl = this.options.connectErrorTtlMs
    const failure = toProxyError(error)
    if (ttl <= 0 || failure.source !== 'upstream' || failure.status < 500 || found.entry !== undefined) return
    const headers = createHeaders()
    headers['content-type'] = 'text/plain; charset=utf-8'
    headers['cache-control'] = `s-maxage=${Math.ceil(ttl / 1000)}, max-age=0`
    const text = failure.status === 504 ? 'Gateway Timeout\n' : 'Bad Gateway\n'
    const now = this.options.clock.wallMs()
    const writer = this.options.store.put(found.key, this.metaOf(request, failure.status, headers, requestTime, now, ttl, text.length))
    writer.write(Buffer.from(text, 'latin1'))
    this.keep(writer.commit())
  }

  private async pass(request: ProxyRequest, next: Handler, fwd: ForwardReason, detail?: string): Promise<ProxyResponse> {
    request.exchange.set(cacheResult, fwd === 'bypass' ? 'bypass' : 'miss')
    const response = await next(request)
    addCacheStatus(response.headers, forwardedStatus(this.options.name, detail === undefined ? { fwd } : { fwd, detail }))
    return response
  }

  /** Anything but GET and HEAD goes to the origin, and a success invalidates what is stored for its target (RFC 9111 section 4.4). */
  private async passUnsafe(request: ProxyRequest, next: Handler): Promise<ProxyResponse> {
    const response = await this.pass(request, next, 'method')
    request.exchange.set(cacheResult, 'bypass')
    if (response.status >= 200 && response.status < 400 && !safeMethods.has(request.method)) {
      try {
        await this.options.store.delete(cacheKey(this.options.namespace, request))
      } catch (error) {
        this.options.onStoreError?.(error)
      }
    }
    return response
  }

  private forget(keys: readonly string[]): void {
    for (const key of keys) this.fills.delete(key)
  }

  private keep(work: Promise<unknown>): void {
    const quiet: Promise<unknown> = work.then(nothing, nothing).finally(() => this.background.delete(quiet))
    this.background.add(quiet)
  }
}

function nothing(): void {}

const reload: CacheControl | undefined = parseCacheControl('no-cache')
const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH', 'QUERY'])

function isFresh(lifetime: number, ageMs: number, control: CacheControl | undefined): boolean {
  if (control === undefined) return ageMs < lifetime
  if (control.noCache) return false
  if (control.maxAge !== undefined && ageMs > control.maxAge * 1000) return false
  return ageMs + (control.minFresh ?? 0) * 1000 < lifetime
}

/** RFC 9111 section 3.5, and the same for a request that was authenticated by a layer before the cache. */
function isAuthorized(request: ProxyRequest): boolean {
  return request.headers.authorization !== undefined || request.context.get(principal) !== undefined
}
