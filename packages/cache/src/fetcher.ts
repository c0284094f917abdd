import { createHeaders, derive, discardBody, errorResponse, type Handler, type HeaderMap, neverAborted, type ProxyRequest, type ProxyResponse, toProxyError } from '@proxy/pipeline'
import type { Background } from './background.ts'
import { complete } from './completion.ts'
import { addValidators, confirms, hasValidator, removeConditions } from './conditional.ts'
import type { EngineOptions } from './engine-options.ts'
import { isUnreachable } from './errors.ts'
import type { Fill, FillOutcome, Fills } from './fill.ts'
import { currentAgeMs, lifetimeMs, responseControl } from './freshness.ts'
import type { Keeper } from './keeper.ts'
import { recordOf } from './record.ts'
import { ifErrorMs, isServerError } from './staleness.ts'
import type { CacheEntry, StoredMeta } from './store.ts'
import type { StoredParts } from './stored-parts.ts'

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

/** Asks the origin for a key, once for everybody who waits. */
export class Fetcher {
  private readonly options: EngineOptions
  private readonly fills: Fills
  private readonly background: Background
  private readonly parts: StoredParts
  private readonly keeper: Keeper

  constructor(options: EngineOptions, fills: Fills, background: Background, parts: StoredParts, keeper: Keeper) {
    this.options = options
    this.fills = fills
    this.background = background
    this.parts = parts
    this.keeper = keeper
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

  private async fetch(fill: Fill, found: Found, request: ProxyRequest, next: Handler, authorized: boolean, whole: boolean): Promise<FillOutcome> {
    const { clock } = this.options
    const { stale } = found
    let response: ProxyResponse | undefined
    try {
      const headers = createHeaders(request.headers)
      removeConditions(headers)
      this.options.keys.negotiation.apply(headers)
      let requestTime = clock.wallMs()
      let askedMs = clock.monotonicMs()
      response = (stale === undefined && this.parts.has(found.key) ? await complete(this.parts, found.key, request, next, headers) : undefined) ?? (await this.ask(request, next, headers, stale))
      if (response.status === 304 && stale !== undefined && hasValidator(stale.meta.headers)) {
        discardBody(response.body)
        if (confirms(response.headers, stale.meta.headers))
          return this.keeper.confirm(fill, found, stale, response.headers, { requestTime, responseTime: clock.wallMs(), delayMs: clock.monotonicMs() - askedMs }, authorized)
        // It speaks of another representation than the one that is stored: only a whole answer helps.
        response = undefined
        requestTime = clock.wallMs()
        askedMs = clock.monotonicMs()
        response = await this.ask(request, next, headers, undefined)
      }
      if (stale !== undefined && isServerError(response.status) && this.mayStandIn(stale, response.status)) {
        discardBody(response.body)
        this.fills.end(fill)
        return { kind: 'stale', version: stale.version, status: response.status }
      }
      return this.keeper.decide(fill, found, request, response, { requestTime, responseTime: clock.wallMs(), delayMs: clock.monotonicMs() - askedMs }, authorized, whole)
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

  /** Keeps a failure to reach the origin, where the configuration asks for it, so that clients do not hammer a dead one. */
  private rememberFailure(found: Found, error: unknown): void {
    const { clock, connectErrorTtlMs: ttlMs, name } = this.options
    const failure = toProxyError(error)
    if (ttlMs <= 0 || failure.source !== 'upstream' || failure.status < 500 || found.stale !== undefined || found.fresh) return
    const answer = errorResponse(failure, { proxyName: name })
    if (!(answer.body instanceof Uint8Array)) return
    answer.headers['cache-control'] = `s-maxage=${Math.ceil(ttlMs / 1000)}, max-age=0`
    const now = clock.wallMs()
    const record = recordOf(this.options, this.options.keys.urlOf(found.base), answer, { requestTime: now, responseTime: now, delayMs: 0 }, ttlMs, answer.body.byteLength)
    const writer = this.keeper.put(found.key, { ...record, ttlMs, keepUntil: now + ttlMs })
    writer.write(answer.body)
    this.background.add(writer.commit())
  }
}
