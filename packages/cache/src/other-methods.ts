import { cacheResult, createHeaders, type Handler, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { isAuthorized } from './authorized.ts'
import { addCacheStatus, forwardedStatus } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Fills } from './fill.ts'
import { explicitLifetimeMs, initialAgeMs, responseControl } from './freshness.ts'
import type { Keeper } from './keeper.ts'
import { changedKeys, sameOriginTarget } from './key.ts'
import type { Times } from './record.ts'
import type { StoredParts } from './stored-parts.ts'

const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH', 'QUERY'])

/** What requests that are no GET mean to what is stored. */
export class OtherMethods {
  private readonly options: EngineOptions
  private readonly fills: Fills
  private readonly keeper: Keeper
  private readonly parts: StoredParts

  constructor(options: EngineOptions, fills: Fills, keeper: Keeper, parts: StoredParts) {
    this.options = options
    this.fills = fills
    this.keeper = keeper
    this.parts = parts
  }

  /** Anything but GET and HEAD goes to the origin, and a success invalidates what is stored for its target and for what it names (RFC 9111 section 4.4). */
  async passUnsafe(request: ProxyRequest, next: Handler): Promise<ProxyResponse> {
    const { clock, keys, name, store } = this.options
    const requestTime = clock.wallMs()
    const askedMs = clock.monotonicMs()
    request.exchange.set(cacheResult, 'bypass')
    const response = await next(request)
    const times = { requestTime, responseTime: clock.wallMs(), delayMs: clock.monotonicMs() - askedMs }
    if (response.status >= 200 && response.status < 400 && !safeMethods.has(request.method)) {
      for (const base of changedKeys(keys, request, response.headers)) {
        this.fills.invalidate(base)
        await this.keeper.attempt(() => store.delete(base))
        await this.parts.remove(base)
        // Who looked it up while it was being removed may have found the index of its variants, and would write that back.
        this.fills.invalidate(base)
      }
      if (request.method === 'POST' && this.isWhatGetBrings(request, response, times)) return this.keep(request, response, times)
    }
    addCacheStatus(response.headers, forwardedStatus(name, { fwd: 'method' }))
    return response
  }

  /** A POST whose answer says that a GET of its target would bring the same, and for how long (RFC 9110 section 9.3.3). */
  private isWhatGetBrings(request: ProxyRequest, { status, headers }: ProxyResponse, times: Times): boolean {
    // What was chosen by fields that are not what the key says of them is not of the variant that it would be stored as.
    if (headers.vary !== undefined && this.options.keys.negotiation.isUsed) return false
    const named = headers['content-location']
    if (status !== 200 || typeof named !== 'string' || sameOriginTarget(named, request) !== request.target) return false
    const { freshness } = this.options
    const response = { status, headers, responseTime: times.responseTime, initialAgeMs: initialAgeMs(headers, times.delayMs, times.responseTime) }
    return (explicitLifetimeMs(response, responseControl(headers, freshness), { ...freshness, rules: [] }) ?? 0) > 0
  }

  private keep(request: ProxyRequest, response: ProxyResponse, times: Times): ProxyResponse {
    const { keys, name } = this.options
    const base = keys.key(request)
    const nothing = { base, key: base, index: undefined, since: this.fills.invalidatedCount, stale: undefined, fresh: false }
    const outcome = this.keeper.keepWhole(nothing, request, response, times, isAuthorized(request))
    const stored = outcome.kind === 'shared' && outcome.stored
    const headers = outcome.kind === 'shared' ? createHeaders(outcome.headers) : response.headers
    addCacheStatus(headers, forwardedStatus(name, { fwd: 'method', stored }))
    return { status: response.status, headers, body: outcome.kind === 'shared' ? outcome.leaderBody : response.body }
  }
}
