import { derive, type HeaderMap, type ProxyRequest, type ProxyResponse, toSource } from '@proxy/pipeline'
import { isAuthorized } from './authorized.ts'
import type { Background } from './background.ts'
import { parseCacheControl } from './cache-control.ts'
import { ttlSeconds } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Found } from './fetcher.ts'
import type { Fill, FillOutcome, Fills } from './fill.ts'
import { initialAgeMs, responseControl } from './freshness.ts'
import { variantKey, varyFields } from './key.ts'
import type { ContentRange } from './range.ts'
import { indexRecord, recordOf, renewedRecord, type Times } from './record.ts'
import { SharedBody } from './shared-body.ts'
import { type NotStoredReason, storability } from './storability.ts'
import type { CacheEntry, CacheMeta, CacheWriter, StoredMeta, VaryIndex } from './store.ts'
import { type StoredParts, wholeFields } from './stored-parts.ts'
import { uniqueId } from './unique-id.ts'
import { Variants } from './variants.ts'

/** Decides what becomes of an answer of the origin: stored and shared, a confirmation of what is stored, or for the client alone who asked. */
export class Keeper {
  private readonly options: EngineOptions
  private readonly fills: Fills
  private readonly background: Background
  private readonly parts: StoredParts
  readonly variants: Variants

  constructor(options: EngineOptions, fills: Fills, background: Background, parts: StoredParts) {
    this.options = options
    this.fills = fills
    this.background = background
    this.parts = parts
    this.variants = new Variants(options.maxVariants)
  }

  /** Shares and stores the answer, or leaves it to the leader alone. */
  decide(fill: Fill, found: Found, request: ProxyRequest, response: ProxyResponse, times: Times, authorized: boolean, whole: boolean, part?: ContentRange): FillOutcome {
    const { clock, freshness, keys, maxObjectBytes, store, windowBytes } = this.options
    const { headers, status } = response
    // A client can have the origin dislike its request, and ask past an entry that all others are content with: that entry is not to suffer for it.
    if (found.fresh && !speaksOf(status)) return this.unshared(fill, found, response, 'still-fresh')
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
        initialAgeMs: initialAgeMs(headers, times.delayMs, times.responseTime)
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
    const meta = recordOf(this.options, keys.urlOf(found.base), response, times, decision.lifetimeMs, length)
    if (part === undefined && vary !== undefined && !this.variants.admits(found.base, vary.generation, key, meta.keepUntil, clock.wallMs()))
      return this.unshared(fill, found, response, 'too-many-variants')
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
    if (stale !== undefined && speaksOf(response.status) && !ofTheRequest.has(reason)) this.background.add(this.attempt(() => this.options.store.delete(key, stale.version)))
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
  confirm(fill: Fill, found: Found, stale: CacheEntry, from304: Readonly<HeaderMap>, times: Times, authorized: boolean): Extract<FillOutcome, { kind: 'revalidated' }> {
    const { freshness, store } = this.options
    const { version } = stale
    const meta = renewedRecord(this.options, stale.meta, from304, times)
    const cookies = from304['set-cookie']
    const decision = storability({ ...meta, method: 'GET', authorized, requestNoStore: false }, freshness)
    if (!decision.store) {
      this.fills.end(fill)
      // Where it is only this client's credentials that forbid sharing, the entry was never in doubt.
      if (decision.reason !== 'authorization') this.background.add(this.attempt(() => store.delete(found.key, version)))
      return { kind: 'revalidated', version, meta, cookies, shared: false }
    }
    this.fills.describe(fill, meta)
    // Joiners find this outcome until the store has the new metadata: the next request is then a hit.
    this.background.add(this.attempt(() => store.touch(found.key, version, meta)).then(() => this.fills.end(fill)))
    return { kind: 'revalidated', version, meta, cookies, shared: true }
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

  /** Whether an answer that went by the cache could have been stored, as far as it says itself. */
  isStorable(request: ProxyRequest, { status, headers }: ProxyResponse): boolean {
    const { clock, freshness } = this.options
    const said = responseControl(headers, freshness)
    // Most of those that go by the cache say so: no need to look at dates then.
    if ((said?.noStore && !said.mustUnderstand) || said?.private) return false
    const responseTime = clock.wallMs()
    return storability({ method: 'GET', authorized: isAuthorized(request), requestNoStore: false, status, headers, responseTime, initialAgeMs: initialAgeMs(headers, 0, responseTime) }, freshness)
      .store
  }

  put(key: string, meta: CacheMeta): CacheWriter {
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
}

/** Reasons that say nothing about what is stored for others. */
const ofTheRequest: ReadonlySet<NotStoredReason> = new Set(['method', 'authorization', 'request-no-store', 'refused', 'too-many-variants', 'still-fresh'])

/** Whether an answer of this status says something of what is stored, and not only of the request or of how the origin does. */
function speaksOf(status: number): boolean {
  return status < 400 || status === 404 || status === 410
}

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
