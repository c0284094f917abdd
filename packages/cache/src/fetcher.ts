import { createHeaders, derive, discardBody, errorResponse, type Handler, type HeaderMap, neverAborted, type ProxyRequest, type ProxyResponse, toProxyError, toSource } from '@proxy/pipeline'
import { isAuthorized } from './authorized.ts'
import type { Background } from './background.ts'
import { parseCacheControl } from './cache-control.ts'
import { ttlSeconds } from './cache-status.ts'
import { complete } from './completion.ts'
import { addValidators, confirms, hasValidator, removeConditions } from './conditional.ts'
import type { EngineOptions } from './engine-options.ts'
import { isUnreachable } from './errors.ts'
import type { Fill, FillOutcome, Fills } from './fill.ts'
import { currentAgeMs, initialAgeMs, lifetimeMs, responseControl } from './freshness.ts'
import { variantKey, varyFields } from './key.ts'
import type { ContentRange } from './range.ts'
import { indexRecord, recordOf, renewedRecord, type Times } from './record.ts'
import { SharedBody } from './shared-body.ts'
import { ifErrorMs, isServerError } from './staleness.ts'
import { type NotStoredReason, storability } from './storability.ts'
import type { CacheEntry, CacheMeta, CacheWriter, StoredMeta, VaryIndex } from './store.ts'
import { type StoredParts, wholeFields } from './stored-parts.ts'
import { uniqueId } from './unique-id.ts'
import { Variants } from './variants.ts'

/** What a lookup found. `key` is the variant's where the base record says that there are variants. */
export interface Found {
  readonly base: string
  readonly key: string
  readonly index: StoredMeta | undefined
  /** `Fills.invalidatedCount` when the lookup began. */
  readonly since: number
  /** An entry that may be used again if the origin confirms it. */
  readonly stale: CacheEntry | undefined
  /** There is an entry that this client alone does not want: it is not replaced by a failure. */
  readonly fresh: boolean
}

export interface FillKind {
  /** What one client may see is not fetched on behalf of others. */
  readonly authorized: boolean
  /** Its answer is likely to be for one client. */
  readonly alone?: boolean
  /** It is fetched to its end, whoever reads it. */
  readonly whole?: boolean
}

/** Asks the origin for a key, once for everybody who waits, and decides what becomes of the answer. */
export class Fetcher {
  private readonly options: EngineOptions
  private readonly fills: Fills
  private readonly background: Background
  private readonly parts: StoredParts
  readonly variants: Variants

  constructor(options: EngineOptions, fills: Fills, background: Background, parts: StoredParts) {
    this.parts = parts
    this.options = options
    this.variants = new Variants(options.maxVariants)
    this.fills = fills
    this.background = background
  }

  /** Starts a fill. Others may join it unless it is `authorized` or `alone`. */
  start(found: Found, request: ProxyRequest, next: Handler, { authorized, alone = false, whole = false }: FillKind): Fill {
    const fill = this.fills.open(found.base, authorized || alone ? undefined : found.key)
    fill.outcome = this.fetch(fill, found, request, next, authorized, whole)
    return fill
  }

  /** Whether the whole is being fetched. */
  isFilling(key: string): boolean {
    return this.fills.find(key) !== undefined
  }

  /** Shares and stores an answer that was not asked for by a fill, but is what a GET would bring. `total` where it is a 206 that has all the bytes. What was asked for before its target changed is not kept. */
  keepWhole(found: Found, request: ProxyRequest, response: ProxyResponse, times: Times, authorized: boolean, total?: number): FillOutcome {
    if (this.fills.invalidatedSince(found.base, found.since)) return { kind: 'unshared', response, reason: 'refused' }
    const fill = this.fills.open(found.base, undefined)
    const whole = total === undefined ? response : { status: 200, headers: wholeFields(response.headers, response.headers, total), body: response.body }
    const outcome = this.decide(fill, found, derive(request, { method: 'GET' }), whole, times, authorized, false)
    fill.outcome = Promise.resolve(outcome)
    return outcome
  }

  /** The same for a part. */
  keepPart(found: Found, request: ProxyRequest, response: ProxyResponse, times: Times, authorized: boolean, range: ContentRange): FillOutcome {
    if (this.fills.invalidatedSince(found.base, found.since)) return { kind: 'unshared', response, reason: 'refused' }
    const fill = this.fills.open(found.base, undefined)
    const outcome = this.decide(fill, found, request, response, times, authorized, false, range)
    fill.outcome = Promise.resolve(outcome)
    return outcome
  }

  /** What is stored still holds, as a request for a part of it has shown. */
  confirmPart(found: Found, stale: CacheEntry, from304: Readonly<HeaderMap>, times: Times, authorized: boolean): CacheMeta {
    if (this.fills.invalidatedSince(found.base, found.since)) return renewedRecord(this.options, stale.meta, from304, times)
    const fill = this.fills.open(found.base, undefined)
    const outcome = this.confirm(fill, found, stale, from304, times, authorized)
    fill.outcome = Promise.resolve(outcome)
    return outcome.meta
  }

  private async fetch(fill: Fill, found: Found, request: ProxyRequest, next: Handler, authorized: boolean, whole: boolean): Promise<FillOutcome> {
    const { clock } = this.options
    const { stale } = found
    let response: ProxyResponse | undefined
    try {
      const headers = createHeaders(request.headers)
      removeConditions(headers)
      this.options.keys.negotiation.apply(headers)
      let requestTime = clock.wallMs()
      response = (stale === undefined && this.parts.has(found.key) ? await complete(this.parts, found.key, request, next, headers) : undefined) ?? (await this.ask(request, next, headers, stale))
      if (response.status === 304 && stale !== undefined && hasValidator(stale.meta.headers)) {
        discardBody(response.body)
        if (confirms(response.headers, stale.meta.headers)) return this.confirm(fill, found, stale, response.headers, { requestTime, responseTime: clock.wallMs() }, authorized)
        // It speaks of another representation than the one that is stored: only a whole answer helps.
        response = undefined
        requestTime = clock.wallMs()
        response = await this.ask(request, next, headers, undefined)
      }
      if (stale !== undefined && isServerError(response.status) && this.mayStandIn(stale, response.status)) {
        discardBody(response.body)
        this.fills.end(fill)
        return { kind: 'stale', version: stale.version, status: response.status }
      }
      return this.decide(fill, found, request, response, { requestTime, responseTime: clock.wallMs() }, authorized, whole)
    } catch (error) {
      if (response === undefined && stale !== undefined && isUnreachable(error) && this.mayStandIn(stale, undefined)) {
        this.fills.end(fill)
        return { kind: 'stale', version: stale.version, status: undefined }
      }
      if (response === undefined) this.rememberFailure(found, error)
      this.fills.end(fill)
      throw error
    }
  }

  /** Whether a stale entry may be served because the origin has failed. */
  mayStandIn({ meta }: CacheEntry, status: number | undefined): boolean {
    const { clock, freshness, stale } = this.options
    const staleMs = currentAgeMs(meta, clock.wallMs()) - lifetimeMs(meta, freshness)
    const allowedMs = ifErrorMs(meta.status, responseControl(meta.headers, freshness), status, stale)
    return allowedMs > 0 && staleMs < allowedMs
  }

  /** The fill is the cache's own: it does not end because the client that happened to come first has left. */
  private ask(request: ProxyRequest, next: Handler, plain: HeaderMap, stale: CacheEntry | undefined): Promise<ProxyResponse> {
    let headers = plain
    if (stale !== undefined) {
      headers = createHeaders(plain)
      addValidators(headers, stale.meta.headers)
    }
    return next(derive(request, { headers, signal: neverAborted }))
  }

  /** Whether an answer that went by the cache could have been stored, as far as it says itself. */
  isStorable(request: ProxyRequest, { status, headers }: ProxyResponse): boolean {
    const { clock, freshness } = this.options
    const said = responseControl(headers, freshness)
    // Most of those that go by the cache say so: no need to look at dates then.
    if ((said?.noStore && !said.mustUnderstand) || said?.private) return false
    const responseTime = clock.wallMs()
    return storability(
      { method: 'GET', authorized: isAuthorized(request), requestNoStore: false, status, headers, responseTime, initialAgeMs: initialAgeMs(headers, responseTime, responseTime) },
      freshness
    ).store
  }

  /** Shares and stores the answer, or leaves it to the leader alone. */
  private decide(fill: Fill, found: Found, request: ProxyRequest, response: ProxyResponse, times: Times, authorized: boolean, whole: boolean, part?: ContentRange): FillOutcome {
    const { clock, freshness, keys, maxObjectBytes, store, windowBytes } = this.options
    const { headers, status } = response
    // Most of what is not stored says so: no need to look at dates then.
    const said = responseControl(headers, freshness)
    if (said?.noStore && !said.mustUnderstand) return this.unshared(fill, found, response, 'no-store')
    if (said?.private) return this.unshared(fill, found, response, 'private')
    const decision = storability(
      {
        method: request.method,
        authorized,
        requestNoStore: this.options.heedsRequests && parseCacheControl(request.headers['cache-control'])?.noStore === true,
        // A part is stored where the whole would be.
        status: part === undefined ? status : 200,
        headers,
        responseTime: times.responseTime,
        initialAgeMs: initialAgeMs(headers, times.requestTime, times.responseTime)
      },
      freshness
    )
    if (!decision.store) return this.unshared(fill, found, response, decision.reason)
    const length = part === undefined ? declaredLength(headers) : part.end - part.start + 1
    if (length !== undefined && length > maxObjectBytes) return this.unshared(fill, found, response, 'too-large')

    const fields = varyFields(headers.vary, keys.fields)
    // The index of a time before its target was changed would lead to the variants of that time again.
    const index = this.fills.invalidatedSince(found.base, found.since) ? undefined : found.index
    const vary = fields.length === 0 ? undefined : this.varyIndex(index, fields)
    if (part !== undefined && vary !== index?.vary) return this.unshared(fill, found, response, 'status')
    const key = part !== undefined ? this.parts.keyOf(found.key) : vary === undefined ? found.base : variantKey(found.base, vary, request.headers, keys)
    if (part === undefined && vary !== undefined && !this.variants.admits(found.base, vary.generation, key, clock.monotonicMs())) return this.unshared(fill, found, response, 'too-many-variants')
    const meta = recordOf(this.options, keys.urlOf(found.base), response, times, decision.lifetimeMs, length)
    const writer = this.put(key, meta)
    // Shared without being stored, it would go at the pace of its slowest reader: fine while it fits the window.
    if (writer.failed === true && length !== undefined && length > windowBytes) return this.unshared(fill, found, response, 'refused')
    this.fills.describe(fill, meta)
    this.fills.alsoUnder(fill, key)
    const indexed =
      part === undefined && vary !== undefined && (index?.vary !== vary || index.keepUntil < meta.keepUntil) ? this.attempt(() => this.put(found.base, indexRecord(meta, vary)).commit()) : undefined

    const { onStoreError, storeStallMs } = this.options
    const finishBytes = whole ? Number.POSITIVE_INFINITY : this.options.finishBytes
    const onUnkept = (): void => this.fills.close(fill)
    const body = new SharedBody({ store, key, meta, writer, length, windowBytes, maxObjectBytes, finishBytes, storeStallMs, onUnkept, onStoreError })
    // Neither rejects, and both end the fill, for which an orderly end waits.
    if (part === undefined) void this.finish(fill, body, found.key, indexed)
    else void this.finishPart(fill, body, found.key, key)
    const stored = writer.failed !== true
    const leaderBody = body.begin(toSource(response.body))
    return { kind: 'shared', status, headers, body, leaderBody, vary, key, ttlSeconds: Math.max(0, ttlSeconds(decision.lifetimeMs, meta.initialAgeMs)), stored }
  }

  private unshared(fill: Fill, { key, stale }: Found, response: ProxyResponse, reason: NotStoredReason): FillOutcome {
    this.fills.end(fill)
    // What was stored is out of date, and would only be found and asked about again.
    if (stale !== undefined && response.status < 500 && !ofTheRequest.has(reason)) this.background.add(this.attempt(() => this.options.store.delete(key, stale.version)))
    return { kind: 'unshared', response, reason }
  }

  /** It can be joined until its commit is settled: the next request is then a hit. When its target was changed meanwhile, it is not over before nothing of it can be found. */
  private async finish(fill: Fill, body: SharedBody, key: string, indexed: Promise<void> | undefined): Promise<void> {
    const stored = await body.settled
    if (indexed !== undefined) await indexed
    if (stored) {
      this.fills.noteStored(fill.base)
      if (this.parts.has(key)) await this.parts.remove(key)
    }
    if (fill.invalidated && (stored || indexed !== undefined)) await this.attempt(() => this.options.store.delete(fill.base))
    this.fills.end(fill)
  }

  private async finishPart(fill: Fill, body: SharedBody, key: string, partKey: string): Promise<void> {
    if (await body.settled) {
      if (fill.invalidated) await this.attempt(() => this.options.store.delete(partKey))
      else this.parts.note(key)
    }
    this.fills.end(fill)
  }

  /** The origin says that what is stored still holds. */
  private confirm(fill: Fill, found: Found, stale: CacheEntry, from304: Readonly<HeaderMap>, times: Times, authorized: boolean): Extract<FillOutcome, { kind: 'revalidated' }> {
    const { freshness, store } = this.options
    const { version } = stale
    const meta = renewedRecord(this.options, stale.meta, from304, times)
    const decision = storability({ ...meta, method: 'GET', authorized, requestNoStore: false }, freshness)
    if (!decision.store) {
      this.fills.end(fill)
      // Where it is only this client's credentials that forbid sharing, the entry was never in doubt.
      if (decision.reason !== 'authorization') this.background.add(this.attempt(() => store.delete(found.key, version)))
      return { kind: 'revalidated', version, meta, shared: false }
    }
    this.fills.describe(fill, meta)
    // Joiners find this outcome until the store has the new metadata: the next request is then a hit.
    this.background.add(this.attempt(() => store.touch(found.key, version, meta)).then(() => this.fills.end(fill)))
    return { kind: 'revalidated', version, meta, shared: true }
  }

  private put(key: string, meta: CacheMeta): CacheWriter {
    try {
      return this.options.store.put(key, meta)
    } catch (error) {
      // Against the contract; the answer is on its way all the same.
      this.options.onStoreError(error)
      return noWriter
    }
  }

  /** Runs a store operation whose failure changes nothing for the request. Never rejects. */
  async attempt(operation: () => Promise<unknown>): Promise<void> {
    try {
      await operation()
    } catch (error) {
      this.options.onStoreError(error)
    }
  }

  /** The index already known, where its fields are the same; a new one forgets all variants stored so far. */
  private varyIndex(known: StoredMeta | undefined, fields: readonly string[]): VaryIndex {
    const before = known?.vary
    if (before !== undefined && before.fields.length === fields.length && before.fields.every((name, i) => name === fields[i])) return before
    return { fields, generation: uniqueId() }
  }

  /** Keeps a failure to reach the origin, where the configuration asks for it, so that clients do not hammer a dead one. */
  private rememberFailure(found: Found, error: unknown): void {
    const { clock, connectErrorTtlMs: ttlMs, name } = this.options
    const failure = toProxyError(error)
    if (ttlMs <= 0 || failure.source !== 'upstream' || failure.status < 500 || found.stale !== undefined || found.fresh) return
    const answer = errorResponse(failure, { proxyName: name })
    if (!(answer.body instanceof Uint8Array)) return
    answer.headers['cache-control'] = `s-maxage=${Math.ceil(ttlMs / 1000)}, max-age=0`
    const now = clock.wallMs()
    const writer = this.put(found.key, recordOf(this.options, this.options.keys.urlOf(found.base), answer, { requestTime: now, responseTime: now }, ttlMs, answer.body.byteLength))
    writer.write(answer.body)
    this.background.add(writer.commit())
  }
}

/** Reasons that say nothing about what is stored for others. */
const ofTheRequest: ReadonlySet<NotStoredReason> = new Set(['method', 'authorization', 'request-no-store', 'refused', 'too-many-variants'])

const noWriter: CacheWriter = {
  write: () => true,
  drained: () => Promise.resolve(),
  commit: () => Promise.resolve(false),
  abort() {},
  failed: true
}

function declaredLength(headers: Readonly<HeaderMap>): number | undefined {
  const declared = headers['content-length']
  return typeof declared === 'string' && /^\d+$/.test(declared) ? Number(declared) : undefined
}
