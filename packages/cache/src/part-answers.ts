import { type ByteRange, cacheResult, createHeaders, derive, discardBody, type Handler, neverAborted, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { isAuthorized } from './authorized.ts'
import type { Background } from './background.ts'
import type { CacheControl } from './cache-control.ts'
import { addCacheStatus, type ForwardReason, forwardedStatus } from './cache-status.ts'
import { wholeOf } from './checked-body.ts'
import { addValidators, confirms, hasValidator, ifRangeHolds } from './conditional.ts'
import type { EngineOptions } from './engine-options.ts'
import type { EntryAnswers } from './entry-answers.ts'
import { isUnreachable } from './errors.ts'
import type { Fetcher, Found } from './fetcher.ts'
import { currentAgeMs } from './freshness.ts'
import type { Keeper } from './keeper.ts'
import { Prepared } from './prepared.ts'
import { contentRange, requestedRange } from './range.ts'
import type { Times } from './record.ts'
import { bodiless, type Refresher } from './refresher.ts'
import { isServerError } from './staleness.ts'
import type { CacheEntry } from './store.ts'
import { holds, isUnconditional, type StoredParts, strongTag } from './stored-parts.ts'

export interface PartAnswersParts {
  readonly options: EngineOptions
  readonly fetcher: Fetcher
  readonly keeper: Keeper
  readonly refresher: Refresher
  readonly background: Background
  readonly answers: EntryAnswers
  readonly stored: StoredParts
}

/** Answers to requests for a part of what is not stored whole, or is no longer fresh: at once, from a stored part or as the origin gives it. */
export class PartAnswers {
  private readonly parts: PartAnswersParts

  constructor(parts: PartAnswersParts) {
    this.parts = parts
  }

  /** `uncacheable`: lately the whole was not to be stored. */
  async answer(found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, control: CacheControl | undefined, uncacheable: boolean): Promise<ProxyResponse> {
    const { fetcher, options, refresher } = this.parts
    let { stale } = found
    if (stale === undefined) {
      const stored = await this.fromStored(found.key, request, control)
      if (stored !== undefined) return stored
    }
    const authorized = isAuthorized(request)
    const mayStore = !control?.noStore
    if (options.rangeMiss === 'fill' && mayStore && !authorized && !uncacheable && !fetcher.isFilling(found.key)) {
      refresher.start({ ...found, stale: stale === undefined ? undefined : bodiless(stale) }, request, next, false)
    }
    // The answer is kept where that may be: it does not end then because this client has left.
    const asked = mayStore ? derive(request, { signal: neverAborted, ...this.asked(found, request) }) : request
    const requestTime = options.clock.wallMs()
    const askedMs = options.clock.monotonicMs()
    request.exchange.set(cacheResult, 'miss')
    let response: ProxyResponse
    try {
      response = await next(asked)
    } catch (error) {
      const instead = isUnreachable(error) ? await this.standingIn(stale, found.key, request, fwd, undefined) : undefined
      if (instead === undefined) stale?.discard()
      else if (instead !== 'gone') return instead
      throw error
    }
    if (isServerError(response.status)) {
      const instead = await this.standingIn(stale, found.key, request, fwd, response.status)
      if (instead === 'gone') stale = undefined
      else if (instead !== undefined) {
        discardBody(response.body)
        return instead
      }
    }
    let times = { requestTime, responseTime: options.clock.wallMs(), delayMs: options.clock.monotonicMs() - askedMs }
    if (response.status === 304 && stale !== undefined && isUnconditional(request) && mayStore) {
      discardBody(response.body)
      const confirmed = await this.confirmed({ ...found, stale }, request, response, times, fwd, authorized)
      if (confirmed !== undefined) return confirmed
      const again = options.clock.wallMs()
      const askedAgainMs = options.clock.monotonicMs()
      response = await next(derive(request, { signal: neverAborted, ...this.asked({ ...found, stale: undefined }, request) }))
      times = { requestTime: again, responseTime: options.clock.wallMs(), delayMs: options.clock.monotonicMs() - askedAgainMs }
    } else stale?.discard()
    return mayStore ? this.kept(found, request, response, times, fwd, authorized) : this.passed(response, fwd, 'request-no-store')
  }

  /** The part of a stale response, where the origin has failed and it may be used. `gone`: its bytes were not to be had. */
  private async standingIn(stale: CacheEntry | undefined, key: string, request: ProxyRequest, fwd: ForwardReason, status: number | undefined): Promise<ProxyResponse | 'gone' | undefined> {
    const { answers, fetcher, options, refresher } = this.parts
    if (stale === undefined || !fetcher.mayStandIn(stale, status)) return undefined
    refresher.leaveAlone(key, status)
    try {
      return await answers.stale(stale, request, { fwd, detail: 'stale-if-error', ...(status !== undefined && { fwdStatus: status }) }, key)
    } catch (error) {
      options.onStoreError(error)
      return 'gone'
    }
  }

  /** The fields to ask with. A client without conditions of its own gets its part from the store, if the origin says that what is stored still holds. */
  private asked({ stale }: Found, request: ProxyRequest): { headers?: ProxyRequest['headers'] } {
    const { negotiation } = this.parts.options.keys
    const confirmable = stale !== undefined && hasValidator(stale.meta.headers) && isUnconditional(request) && ifRangeHolds(request.headers, stale.meta.headers)
    if (!confirmable && !negotiation.isUsed) return {}
    const headers = createHeaders(request.headers)
    negotiation.apply(headers)
    if (confirmable) addValidators(headers, stale.meta.headers)
    return { headers }
  }

  /** Undefined when it does not hold, or its bytes are gone: it is removed then. */
  private async confirmed(
    found: Found & { readonly stale: CacheEntry },
    request: ProxyRequest,
    { headers }: ProxyResponse,
    times: Times,
    fwd: ForwardReason,
    authorized: boolean
  ): Promise<ProxyResponse | undefined> {
    const { answers, background, keeper, options } = this.parts
    const { key, stale } = found
    const remove = (): void => background.add(keeper.attempt(() => options.store.delete(key, stale.version)))
    // It may speak of another representation than the one that is stored.
    if (!confirms(headers, stale.meta.headers)) {
      stale.discard()
      remove()
      return undefined
    }
    const meta = keeper.confirmPart(found, stale, headers, times, authorized)
    try {
      const answer = await answers.revalidated(stale, meta, request, { fwd, fwdStatus: 304 }, key)
      request.exchange.set(cacheResult, 'revalidated')
      return answer
    } catch (error) {
      options.onStoreError(error)
      remove()
      return undefined
    }
  }

  /** From a part that is stored and fresh, if it has all the bytes. */
  async fromStored(key: string, request: ProxyRequest, control: CacheControl | undefined): Promise<ProxyResponse | undefined> {
    const { options, stored } = this.parts
    const part = await stored.find(key, 'all', control)
    if (part === undefined) return undefined
    const { entry, isFresh, meta, range: held } = part
    if (!isFresh || !holds(part, request)) {
      entry.discard()
      return undefined
    }
    const prepared = new Prepared(meta, options)
    const ageMs = currentAgeMs(meta, options.clock.wallMs())
    const asked = requestedRange(request.headers, held.total) as ByteRange
    try {
      const range = { start: asked.start - held.start, end: asked.end - held.start }
      const body = wholeOf(await entry.open(range), entry, range, options.store, stored.keyOf(key))
      const headers = prepared.headers(ageMs)
      headers['content-range'] = `bytes ${asked.start}-${asked.end}/${held.total}`
      headers['content-length'] = String(asked.end - asked.start + 1)
      request.exchange.set(cacheResult, 'hit')
      return { status: 206, headers, body }
    } catch (error) {
      await stored.broken(key, error)
      return undefined
    }
  }

  /** Stores what the origin gave, as far as that may be: the whole where it is the whole, or a part that others can be put to. */
  private kept(found: Found, request: ProxyRequest, response: ProxyResponse, times: Times, fwd: ForwardReason, authorized: boolean): ProxyResponse {
    const { keeper, options } = this.parts
    const { status, headers } = response
    const range = status === 206 ? contentRange(headers) : undefined
    const declared = headers['content-length']
    const isAsSaid = range !== undefined && (declared === undefined || declared === String(range.end - range.start + 1))
    const isWhole = status === 200 || (isAsSaid && range.start === 0 && range.end === range.total - 1)
    if (!isWhole && !(isAsSaid && strongTag(headers) !== undefined)) return this.passed(response, fwd, 'range')
    const outcome = isWhole
      ? keeper.keepWhole(found, request, response, times, authorized, range?.total)
      : keeper.keepPart(found, request, response, times, authorized, range as NonNullable<typeof range>)
    if (outcome.kind !== 'shared') return this.passed(response, fwd, outcome.kind === 'unshared' && outcome.reason !== 'status' ? outcome.reason : 'range')
    const own = createHeaders(headers)
    addCacheStatus(own, forwardedStatus(options.name, { fwd, stored: outcome.stored, ttl: outcome.ttlSeconds, ...(isWhole ? {} : { detail: 'part' }) }))
    return { status, headers: own, body: outcome.leaderBody }
  }

  private passed(response: ProxyResponse, fwd: ForwardReason, detail: string): ProxyResponse {
    addCacheStatus(response.headers, forwardedStatus(this.parts.options.name, { fwd, detail }))
    return response
  }
}
